"""status, best, trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bvae_tune.cli.arguments import STORAGE, Json, Run, Storage
from bvae_tune.cli.printing import console, output_file, print_json
from bvae_tune.errors import RunError

if TYPE_CHECKING:
    from bvae_tune.search.study import Study, TrialRecord


def status(run: Run, storage: Storage = STORAGE, as_json: Json = False) -> None:
    """How a study stands, also while it runs."""
    from bvae_tune.reporting.tables import status as table

    study = _open(run, storage)
    if not as_json:
        console().print(table(study))
        return
    states = [record.state for record in study.trials]
    print_json(
        {
            "name": study.name,
            "path": str(study.path),
            "driver": study.driver,
            "finished": study.finished,
            "trials_wanted": study.trials_wanted,
            "trials": {state: states.count(state) for state in sorted(set(states))},
            "size_bytes": study.size_bytes,
            "share_of_work": study.share_of_work,
            "best": _row(study.best),
        }
    )


def best(run: Run, storage: Storage = STORAGE, as_json: Json = False) -> None:
    """The best β, β_norm and M, against chance, the untrained network and β = 1, and what it represents."""
    from bvae_tune.reporting.tables import best as table
    from bvae_tune.search.confirm import read_confirmation

    study = _open(run, storage)
    if study.finished and study.best is None:
        raise RunError(study.without_best)
    if not as_json:
        console().print(table(study, read_confirmation(study)))
        return
    baselines = [row for row in study.rows() if row["kind"] == "baseline"]
    print_json(
        {
            "name": study.name,
            "path": str(study.path),
            "finished": study.finished,
            "best": _row(study.best),
            "best_complete": _row(study.best_complete),
            "baselines": baselines,
            "confirmation": confirmed.to_dict() if (confirmed := read_confirmation(study)) else None,
        }
    )


def trials(
    run: Run,
    storage: Storage = STORAGE,
    as_json: Json = False,
    parquet: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table there as Parquet.")] = None,
) -> None:
    """Every trial, baseline and confirmation, as a table."""
    from bvae_tune.reporting.tables import trials_table

    study = _open(run, storage)
    if parquet is not None:
        study.write_results(output_file(parquet, "--parquet"))
    if as_json:
        print_json(study.rows())
    elif parquet is not None:
        console().print(str(parquet), soft_wrap=True)
    else:
        console().print(trials_table([*study.controls, *study.trials]))


def _open(run: str, storage: Path) -> Study:
    from bvae_tune.search.runs import find_run
    from bvae_tune.search.study import Study

    return Study.open(find_run(run, storage))


def _row(record: TrialRecord | None) -> dict[str, Any] | None:
    from bvae_tune.search.study import row

    return None if record is None else row(record)
