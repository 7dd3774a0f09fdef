"""What the commands print: rich tables of a study, its trials and a dataset. They draw what they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bvae_tune.search.progress import last_score, last_step
from bvae_tune.space import short_key
from bvae_tune.wording import duration, percent, percent_with_spread, significant

if TYPE_CHECKING:
    from bvae_tune.data.image_store import ImageStore
    from bvae_tune.search.records import TrialRecord
    from bvae_tune.search.study import Study

SHOWN_BY_ITSELF = ("beta", "beta_norm", "latent_size")
BAR = 20  # characters for 100%


def trials_table(records: Sequence[TrialRecord]) -> Table:
    """One row per trial, in the order given; a column for each searched key beside β and M. Scores in percent."""
    table = _table()
    table.add_column("trial", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for title in ("β", "β_norm", "M"):
        _number(table, title)
    searched = dict.fromkeys(key for record in records for key in record.parameters)
    keys = [key for key in searched if short_key(key) not in SHOWN_BY_ITSELF]
    for key in keys:
        table.add_column(short_key(key).split(".")[-1], justify="right", overflow="fold")
    pairs = next((record.result.score.pairs for record in records if record.result), None)
    for title in ("step", f"score (L = {pairs})" if pairs else "score", "MIG", "time"):
        _number(table, title)
    table.add_column("remark", overflow="fold")
    for record in records:
        table.add_row(
            record.label,
            record.state,
            significant(record.beta),
            significant(record.beta_norm),
            str(record.latent_size),
            *(_cell(record.parameters.get(key)) for key in keys),
            str(last_step(record)),
            percent_with_spread(last_score(record), _spread(record)),
            percent(record.result.score.mig if record.result else None),
            duration(record.seconds),
            _remark(record),
            style=_style(record),
        )
    return table


def status(study: Study) -> RenderableType:
    """How a study stands: who drives it, what is done, running and left, the best so far, its size on disk."""
    trials, controls = study.trials, study.controls
    counts = {state: sum(record.state == state for record in trials) for state in ("complete", "pruned", "failed")}
    driver = study.driver
    if driver is not None:
        state = f"running, driven by {driver}"
    elif study.finished:
        state = "finished"
    else:
        state = f"interrupted; go on with: bvae-tune resume {study.path}"
    rows = [
        ("study", study.name),
        ("folder", f"{study.path} ({study.size_bytes / 1e6:.1f} MB)"),
        ("state", state),
        ("trials", f"{sum(counts.values())} of {study.trials_wanted}: {_counts(counts)}"),
    ]
    if controls:
        done = sum(record.state in ("complete", "failed") for record in controls)
        rows.append(("controls", f"{done} of {len(controls)} baselines and confirmations"))
    best = study.best
    if best is not None:
        rows.append(("best", f"{_score(best)} in {best.label}: {_where(best)}"))
    running = [record for record in (*controls, *trials) if record.state == "running"]
    parts: list[RenderableType] = [_pairs(rows)]
    return Group(*parts, trials_table(running)) if running else Group(*parts)


def best(study: Study) -> RenderableType:
    """What a study found: the best trial against chance and the baselines, what it represents, where to look next."""
    record = study.best
    if record is None or record.result is None:
        return Text(f"{study.name}: no trial has finished yet")
    score = record.result.score
    lines = [
        Text.assemble((f"{study.name}: best is {record.label}", "bold")),
        Text(_where(record)),
    ]
    parameters = [
        f"{short_key(key)} {_cell(value)}"
        for key, value in record.parameters.items()
        if short_key(key) not in SHOWN_BY_ITSELF
    ]
    if parameters:
        lines.append(Text(", ".join(parameters)))
    table = _table()
    table.add_column("", no_wrap=True)
    for title in ("β", "M", f"score (L = {score.pairs})", "MIG"):
        _number(table, title)
    table.add_column("not represented")
    whole = study.best_complete
    rows = [record] if whole is None or whole.number == record.number else [record, whole]
    for row in (*rows, *(control for control in study.controls if control.kind == "baseline")):
        if row.result is None:
            continue
        table.add_row(
            row.label,
            significant(row.beta),
            str(row.latent_size),
            percent_with_spread(last_score(row), _spread(row)),
            percent(row.result.score.mig),
            ", ".join(row.result.score.missing) or "–",
            style="bold" if row is record else "",
        )
    table.add_row("chance", "", "", percent(score.chance), "", "")
    parts: list[RenderableType] = [*lines, table, Text(_profile(score.profile)), information(score.information)]
    if score.missing and whole is None:
        parts.append(Text(f"No trial represents every factor; this one misses {', '.join(score.missing)}."))
    if not score.converged:
        parts.append(Text("The classifier of the metric stopped at its iteration bound: read the score with care."))
    commands = [
        (f"bvae-tune confirm {study.path}", "train it and β = 1 again on fresh seeds: how lucky was it?"),
        (f"bvae-tune traverse {study.path}", "see what its latents do"),
        (f"bvae-tune trials {study.path}", "every trial"),
        (f"bvae-tune tensorboard {study.path}", "curves of every trial"),
    ]
    parts += [Text("Look further:"), Padding(_pairs(commands), (0, 0, 0, 2))]
    return Group(*parts)


def information(shares: Mapping[str, float]) -> Table:
    """What the best latent knows of each factor, `max_m I(z_m; v_k) / H(v_k)`, as a bar."""
    table = Table.grid(padding=(0, 2))
    for name, share in shares.items():
        filled = round(BAR * min(1.0, max(0.0, share)))
        bar = Text.assemble(("━" * filled, "green"), ("━" * (BAR - filled), "bright_black"))
        table.add_row(name.replace("_", " "), bar, percent(share))
    return table


def data_info(
    store: ImageStore, facts: Mapping[str, str], repeats: Mapping[str, Mapping[str, float]] | None = None
) -> RenderableType:
    """A dataset: what the store says of itself, `facts` measured elsewhere, its factors, and its repeated images.

    Args:
        store: the dataset.
        facts: further lines, as "mean pixel": "0.0425".
        repeats: row -> column -> share of images that equal another one, as shape -> scale -> share.
    """
    depth = "binary" if store.bits == 1 else f"{store.bits} bit"
    rows = [
        ("dataset", store.name),
        ("file", f"{store.path} ({store.path.stat().st_size / 1e6:.0f} MB)"),
        ("images", f"{store.count:,} of {store.channels} × {store.height} × {store.width}, {depth}"),
        ("fingerprint", store.fingerprint),
        *facts.items(),
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
    if repeats:
        columns = list(next(iter(repeats.values())))
        table = _table()
        table.add_column("images equal to another")
        for column in columns:
            _number(table, column)
        for name, shares in repeats.items():
            table.add_row(name, *(percent(shares[column]) for column in columns))
        parts.append(table)
    return Group(*parts)


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False)


def _number(table: Table, title: str) -> None:
    table.add_column(title, justify="right", no_wrap=True)


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _spread(record: TrialRecord) -> float | None:
    return record.result.score.spread if record.result else None


def _score(record: TrialRecord) -> str:
    score = percent_with_spread(record.score, _spread(record))
    return f"{score} (L = {record.result.score.pairs})" if record.result else score


def _where(record: TrialRecord) -> str:
    return f"β {significant(record.beta)}, β_norm {significant(record.beta_norm)}, M {record.latent_size}"


def _profile(profile: Mapping[int, float]) -> str:
    return "score by L: " + ", ".join(f"L = {pairs}: {percent(share)}" for pairs, share in sorted(profile.items()))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.items() if number) or "none yet"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return significant(value) if isinstance(value, float) else str(value)


def _remark(record: TrialRecord) -> str:
    if record.state == "failed":
        return record.reason or "reason unknown"
    if record.result is None:
        return ""
    missing = record.result.score.missing
    return "; ".join(filter(None, [f"misses {', '.join(missing)}" if missing else "", record.result.notice or ""]))


def _style(record: TrialRecord) -> str:
    return {"failed": "red", "pruned": "dim", "running": "cyan"}.get(record.state, "")
