"""What the commands print: rich tables of a study, its trials and a dataset. They draw what they are given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bvae_tune.metrics.agreement import INFORMATIVE_KL
from bvae_tune.search.progress import last_score, last_step
from bvae_tune.search.records import FINISHED
from bvae_tune.space import short_key
from bvae_tune.wording import clock, command, counted, nats, nearest, percent, percent_with_spread, significant

if TYPE_CHECKING:
    from bvae_tune.data.image_store import ImageStore
    from bvae_tune.data.shapes import EqualImages
    from bvae_tune.search.confirm import Confirmation
    from bvae_tune.search.records import TrialRecord
    from bvae_tune.search.study import Study

SHOWN_BY_ITSELF = ("beta", "beta_norm", "latent_size")
BAR = 20  # characters for 100%
OFF = f"every latent switched off (each KL below {INFORMATIVE_KL} nats per image)"


def trials_table(records: Sequence[TrialRecord]) -> RenderableType:
    """One row per trial, in the order given, with a column for each searched key; reasons and notices stand below."""
    table = _table(gap=1, edges=False)
    long_labels = any(record.kind == "confirm" for record in records)
    table.add_column("trial", no_wrap=not long_labels, overflow="fold")
    table.add_column("state", no_wrap=True)
    for title in ("β", "KL", "β_norm", "M"):
        _number(table, title)
    searched = dict.fromkeys(key for record in records for key in record.parameters)
    keys = [key for key in searched if short_key(key) not in SHOWN_BY_ITSELF]
    for key in keys:
        table.add_column(short_key(key).split(".")[-1], justify="right", overflow="fold")
    for title in ("step", "score", "MIG", "time"):
        _number(table, title)
    table.add_column("misses", overflow="fold")
    for record in records:
        table.add_row(
            record.label,
            record.state,
            significant(record.beta),
            nats(record.kl),
            significant(record.beta_norm),
            str(record.latent_size),
            *(Text(_cell(record.parameters.get(key))) for key in keys),
            str(last_step(record)),
            percent_with_spread(last_score(record), _spread(record)),
            percent(record.result.score.mig if record.result else None),
            clock(record.seconds),
            ", ".join(record.result.score.missing) if record.result else "",
            style=_style(record),
        )
    parts: list[RenderableType] = [table]
    scores = [record.result.score for record in records if record.result]
    if scores:
        units = f"KL in nats per image; scores at L = {scores[0].pairs}, chance {percent(scores[0].chance)}"
        parts.append(Text(units, style="dim"))
    collapsed = ", ".join(record.label for record in records if record.state == "complete" and record.collapsed)
    if collapsed:
        parts.append(Text(f"{OFF[0].upper()}{OFF[1:]}: {collapsed}"))
    for record in records:
        if record.state == "failed":
            parts.append(Text(f"{record.label} failed: {record.reason or 'reason unknown'}", style="red"))
        if record.result and record.result.notice:
            parts.append(Text(f"{record.label}: {record.result.notice}"))
    return Group(*parts)


def status(study: Study) -> RenderableType:
    """How a study stands: who drives it, what is done, running and left, the best so far, its size on disk."""
    trials, controls = study.trials, study.controls
    counts = {state: sum(record.state == state for record in trials) for state in ("complete", "pruned", "failed")}
    rows = [
        ("study", study.name),
        ("folder", f"{study.path} ({study.size_bytes / 1e6:.1f} MB)"),
        ("state", study.standing),
        ("trials", f"{sum(counts.values())} of {study.trials_wanted}: {_counts(counts)}"),
    ]
    if controls:
        done = sum(record.state in ("complete", "failed") for record in controls)
        kinds = {"baseline": "baselines", "confirm": "confirmations"}
        named = " and ".join(name for kind, name in kinds.items() if any(record.kind == kind for record in controls))
        failed = sum(record.state == "failed" for record in controls)
        rows.append(("controls", f"{done} of {len(controls)} {named}" + (f", {failed} failed" if failed else "")))
    best = study.best
    if best is not None:
        rows.append(("best", f"{_score(best)} in {best.label}: {_where(best)}"))
    running = [record for record in (*controls, *trials) if record.state == "running"]
    interrupted = [record for record in (*controls, *trials) if record.state == "interrupted"]
    if interrupted:
        rows.append(("unfinished", ", ".join(f"{record.label} at step {last_step(record)}" for record in interrupted)))
    parts: list[RenderableType] = [_pairs(rows)]
    return Group(*parts, trials_table(running)) if running else Group(*parts)


def best(study: Study, confirmed: Confirmation | None = None) -> RenderableType:
    """What a study found: the best trial against chance and the baselines, what it represents, where to look next.

    Args:
        study: any.
        confirmed: what is known of the best trial on fresh seeds.
    """
    record = study.best
    if record is None or record.result is None:
        return Text(study.without_best)
    score = record.result.score
    trials = study.trials
    lines = [Text(f"{study.name}: {_heading(study, record, trials)}", style="bold"), Text(_where(record))]
    parameters = [
        f"{short_key(key)} {_cell(value)}"
        for key, value in record.parameters.items()
        if short_key(key) not in SHOWN_BY_ITSELF
    ]
    if parameters:
        lines.append(Text(", ".join(parameters)))
    table = _table()
    table.add_column("", no_wrap=True)
    for title in ("β", "KL (nats)", "M", f"score (L = {score.pairs})", "MIG"):
        _number(table, title)
    table.add_column("not represented")
    whole = study.best_complete
    rows = [record] if whole is None or whole.number == record.number else [record, whole]
    baselines = [control for control in study.controls if control.kind == "baseline"]
    for row in (*rows, *baselines):
        if row.result is None:
            continue
        table.add_row(
            row.label,
            significant(row.beta),
            nats(row.kl),
            str(row.latent_size),
            percent_with_spread(last_score(row), _spread(row)),
            percent(row.result.score.mig),
            ", ".join(row.result.score.missing) or "–",
            style="bold" if row is record else "",
        )
    table.add_row("chance", "", "", "", percent(score.chance), "", "")
    parts: list[RenderableType] = [*lines, *_collapse(record, trials), table, Text(_profile(score.profile))]
    parts += [
        Text("What its best latent knows of each factor:"),
        Padding(information(score.information), (0, 0, 0, 2), expand=False),
    ]
    if score.missing and whole is None:
        parts.append(Text(f"No trial represents every factor; this one misses {', '.join(score.missing)}."))
    parts += [Text(f"{name} took no part: {why}") for name, why in score.unusable.items()]
    for baseline in baselines:
        if baseline.score is not None and record.score is not None and baseline.score >= record.score:
            parts.append(Text(f"No trial beats {baseline.label} ({percent(baseline.score)}).", style="bold"))
    if not score.converged:
        parts.append(Text("The classifier of the metric stopped at its iteration bound: read the score with care."))
    if confirmed is not None:
        parts.append(Text("Confirmed on fresh seeds, which is what to quote:", style="bold"))
        parts.append(Padding(confirmation(confirmed), (0, 0, 0, 2), expand=False))
    folder = nearest(study.path)
    commands = [
        (command("traverse", folder), "what its latents do"),
        (command("trials", folder), "every trial"),
        (command("tensorboard", folder), "their curves"),
    ]
    if not math.isnan(record.beta) and study.driver is None:  # confirmed against β = 1, by a driver
        if len(score.replica_scores) == 1 and confirmed is None:
            parts.append(Text("One replica per trial: how far its score is luck shows when it is confirmed."))
        commands.insert(0, (command("confirm", folder), "again, on fresh seeds"))
    parts += [Text("Look further:"), Padding(_pairs(commands), (0, 0, 0, 2), expand=False)]
    return Group(*parts)


def _heading(study: Study, best: TrialRecord, trials: Sequence[TrialRecord]) -> str:
    if study.trials_finished:
        return f"best is {best.label}"
    over = sum(trial.state in FINISHED for trial in trials)
    return f"best so far is {best.label}, after {over} of {counted(study.trials_wanted, 'trial')} ({study.standing})"


def _collapse(best: TrialRecord, trials: Sequence[TrialRecord]) -> list[Text]:
    """What is to be said of trials whose codes carry nothing."""
    if best.collapsed:
        told = f"It has {OFF}, as has every trial that ran to its end: its score reads what little is left in the means"
        return [Text(f"{told} and will hardly come back on other seeds. Lower β, or train longer.", style="bold")]
    higher = [trial for trial in trials if trial.collapsed and (trial.score or 0.0) > (best.score or 0.0)]
    scores = ", ".join(f"{trial.label} {percent(trial.score)}" for trial in higher)
    return [Text(f"Not counted are those that score higher with {OFF}: {scores}.")] if higher else []


def information(shares: Mapping[str, float]) -> Table:
    """What the best latent knows of each factor, `max_m I(z_m; v_k) / H(v_k)`, as a bar."""
    table = Table.grid(padding=(0, 2))
    for name, share in shares.items():
        filled = round(BAR * min(1.0, max(0.0, share)))
        bar = Text.assemble(("━" * filled, "green"), ("┄" * (BAR - filled), "bright_black"))
        table.add_row(name.replace("_", " "), bar, percent(share))
    return table


def confirmation(found: Confirmation) -> RenderableType:
    """The best configuration against β = 1 at the same M on fresh seeds, pair by pair."""
    table = _table()
    table.add_column("", no_wrap=True)
    for title in ("β", "M", f"mean score (L = {found.pairs})"):
        _number(table, title)
    table.add_column("scores on fresh seeds", overflow="fold")
    for name, beta, scores, (mean, spread) in (
        (f"trial {found.trial}, retrained", found.beta, found.best, found.best_spread),
        ("β = 1", 1.0, found.baseline, found.baseline_spread),
    ):
        shown = percent_with_spread(mean, 0.0 if math.isnan(spread) else spread)
        table.add_row(name, significant(beta), str(found.latent_size), shown, ", ".join(map(percent, scores)))
    luck = (
        f"The search had scored it {percent(found.searched)}; on fresh seeds it scores {percent(found.best_spread[0])}."
    )
    error = "" if math.isnan(found.standard_error) else f" ± {100 * found.standard_error:.1f} (standard error)"
    lead = f"Mean lead over β = 1 in {len(found.best)} pairs of seeds: {100 * found.lead:+.1f}{error} points."
    parts: list[RenderableType] = [table, Text(luck), Text(lead, style="bold")]
    if found.failed:
        parts.append(Text(f"Pairs left out because one of the two failed: {found.failed}.", style="red"))
    for name, collapsed in ((f"trial {found.trial}", found.collapsed), ("β = 1", found.baseline_collapsed)):
        if collapsed:
            parts.append(Text(f"Of {name}, retrained, {collapsed} have {OFF}.", style="bold"))
    return Group(*parts)


def data_info(
    store: ImageStore, facts: Mapping[str, str] | None = None, equal: Sequence[EqualImages] = ()
) -> RenderableType:
    """A dataset: what its store says of itself, further `facts` ("mean pixel": "0.0425"), factors, equal images."""
    depth = "binary" if store.bits == 1 else f"{store.bits} bit"
    rows = [
        ("dataset", store.name),
        ("file", f"{store.path} ({store.path.stat().st_size / 1e6:.0f} MB)"),
        ("images", f"{store.count:,} of {store.channels} × {store.height} × {store.width}, {depth}"),
        ("fingerprint", store.fingerprint),
        *(facts or {}).items(),
    ]
    parts: list[RenderableType] = [_pairs(rows)]
    if store.factor_space is not None:
        table = _table()
        table.add_column("factor")
        for title in ("values", "from", "to"):
            _number(table, title)
        for name, values in zip(store.factor_space.names, store.factor_space.values, strict=True):
            table.add_row(name, str(len(values)), significant(min(values)), significant(max(values)))
        parts.append(table)
    elif store.factor_names:
        parts.append(Text(f"factors: {', '.join(store.factor_names)}"))
    if equal:
        parts.append(_equal_images(equal))
    return Group(*parts)


def _equal_images(counts: Sequence[EqualImages]) -> Table:
    table = _table()
    table.title = "% of images equal to an earlier one (closing rotation + other reasons)"
    table.title_justify = "left"
    table.add_column("scale", no_wrap=True)
    for scale in dict.fromkeys(count.scale for count in counts):
        _number(table, significant(scale))
    for shape in dict.fromkeys(count.shape for count in counts):
        shares = [
            (count.closing / count.images, count.other / count.images) for count in counts if count.shape == shape
        ]
        table.add_row(shape, *(f"{100 * closing:.1f} + {100 * other:.1f}" for closing, other in shares))
    return table


def _table(gap: int = 2, *, edges: bool = True) -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=edges, padding=(0, gap - 1, 0, 0))


def _number(table: Table, title: str) -> None:
    table.add_column(title, justify="right", no_wrap=True)


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))  # paths may hold brackets, which are rich's markup
    return table


def _spread(record: TrialRecord) -> float | None:
    return record.result.score.spread if record.result else None


def _score(record: TrialRecord) -> str:
    score = percent_with_spread(record.score, _spread(record))
    return f"{score} (L = {record.result.score.pairs})" if record.result else score


def _where(record: TrialRecord) -> str:
    return f"β {significant(record.beta)}, β_norm {significant(record.beta_norm)}, M {record.latent_size}"


def _profile(profile: Mapping[int, float]) -> str:
    return "Its score by L: " + ", ".join(f"L = {pairs} {percent(share)}" for pairs, share in sorted(profile.items()))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.items() if number) or "none yet"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return significant(value) if isinstance(value, float) else str(value)


def _style(record: TrialRecord) -> str:
    return {"failed": "red", "pruned": "dim", "running": "cyan"}.get(record.state, "")
