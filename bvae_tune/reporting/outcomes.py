"""What `plan` and `evaluate` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bvae_tune.reporting.tables import OFF, information
from bvae_tune.wording import counted, duration, percent, percent_with_spread, size

if TYPE_CHECKING:
    from bvae_tune.metrics.protocol import TrialScore
    from bvae_tune.search.plan import Plan


def plan_table(plan: Plan) -> RenderableType:
    """Trials, resources, memory, disk and time of a search, and how they were found."""
    cost, place = plan.calibration, plan.placement
    gpus = f" and {counted(place.gpus, 'GPU')}" if place.gpus else ""
    factors = ", ".join(f"{name} {values} values" for name, values in plan.factors.items())
    replicas = f" of {plan.replicas} replicas" if plan.replicas > 1 else ""
    alone = plan.trials_per_bank == 1
    what = "trial" if alone else "bank"
    at_once = counted(plan.measured_at_once, what) + ("" if alone else f" of {plan.trials_per_bank} trials")
    rows = [
        ("trials", f"{plan.trials}{replicas} and {counted(plan.controls, 'baseline')}"),
        ("labels", f"{plan.labelled:,} images; {factors}; chance {percent(plan.chance)}"),
        *((f"{name} takes no part", why) for name, why in plan.unusable.items()),
        ("at once", f"{at_once}, each with {counted(place.cpus, 'CPU')}{gpus}"),
        ("a trial", f"{plan.steps:,} steps, {counted(plan.reports, 'report')}"),
        ("parameters", f"{cost.parameters:,} of one replica"),
        ("memory", f"{size(cost.memory_bytes)} a {what}, {size(plan.memory_bytes)} at once; Ray's own not counted"),
        *([("GPU memory", f"{size(cost.gpu_bytes)} a {what}, images included")] if cost.gpu_bytes else []),
        ("images", f"{size(plan.images_bytes)} on disk, mapped once for all trials of a machine"),
        ("checkpoint", f"{size(cost.checkpoint_bytes)}; {size(cost.weights_bytes)} of weights where they are kept"),
        ("disk", f"{size(plan.disk_bytes)} at the end, up to {size(plan.peak_disk_bytes)} while it runs"),
        ("step", f"{1000 * cost.seconds_per_step:.1f} ms"),
        ("report", f"{cost.seconds_per_report:.1f} s to evaluate once"),
        (
            "time",
            f"{duration(plan.seconds_per_trial)} a trial, {duration(plan.seconds)} in all if none stops early",
        ),
    ]
    if plan.memory_bytes > plan.memory_free_bytes:
        beware = f"{size(plan.memory_bytes)} of memory is more than the {size(plan.memory_free_bytes)} free here: "
        rows.append(("beware", beware + "lower resources.concurrent_trials or trials_per_bank"))
    measured = counted(plan.measured_at_once, what) + (" side by side" if plan.measured_at_once > 1 else "")
    note = f"Measured on this machine: a few seconds of {measured}, with the largest sizes that the space allows."
    return Group(_pairs(rows), Text(note, style="dim"))


def score_table(label: str, score: TrialScore, collapsed: bool = False) -> RenderableType:
    """One evaluation: score against chance, by L and by replica, and what is represented, if the code is in use."""
    rows = [
        ("score", f"{percent_with_spread(score.score, score.spread)} at L = {score.pairs} ({score.classifier})"),
        ("chance", percent(score.chance)),
        ("by L", ", ".join(f"L = {pairs}: {percent(share)}" for pairs, share in sorted(score.profile.items()))),
        ("MIG", percent(score.mig)),
    ]
    if len(score.replica_scores) > 1:
        rows.append(("replicas", ", ".join(map(percent, score.replica_scores))))
        rows.append(("agreement", percent(score.agreement)))
    if collapsed:
        rows.append(("switched off", OFF))
    if score.missing:
        rows.append(("not represented", ", ".join(score.missing)))
    rows += [(f"{name} took no part", why) for name, why in score.unusable.items()]
    return Group(Text(label, style="bold"), _pairs(rows), information(score.information))


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
