"""Finding a study by what a person calls it, and a trial within it."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from bvae_tune.errors import InputError
from bvae_tune.search.folder import SPACE, trial_folder
from bvae_tune.search.storage import LATEST, STUDY, WEIGHTS

if TYPE_CHECKING:
    from bvae_tune.search.study import Study, TrialRecord

_LISTED = 5


def find_run(run: str, storage: Path) -> Path:
    """The folder of a study.

    Args:
        run: the folder itself, its name below `storage`, or "latest" for the one begun last.
        storage: the folder of studies.

    Raises:
        InputError: there is none; names those there are, and the one that was probably meant.
    """
    for path in (Path(run).expanduser(), storage.expanduser() / run):
        if (path / STUDY).is_file():
            return path
        if (path / SPACE).is_file():
            raise InputError(f"{path}: {STUDY} is missing from this study; bring it back from a copy")
    begun = {path.parent: path.stat().st_mtime for path in storage.expanduser().glob(f"[!.]*/{STUDY}")}
    known = sorted(begun, key=lambda path: begun[path], reverse=True)
    if not known:
        raise InputError(
            f"{run}: there is no study here, nor any in {storage}/; give a study's folder, or --storage DIR"
        )
    if run == LATEST:
        return known[0]
    names = [path.name for path in known]
    close = difflib.get_close_matches(run, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    more = ", ..." if len(names) > _LISTED else ""
    raise InputError(f"{run}: there is no study of that name{hint} (in {storage}/: {', '.join(names[:_LISTED])}{more})")


def find_trial(run: str, trial: str | None, storage: Path) -> tuple[Study, TrialRecord, str | None]:
    """A trial of a study, and the checkpoint of it that was asked for.

    Args:
        run: as for `find_run`, or one of the files in which a study keeps its trials' weights.
        trial: the number of a searched trial, or the label of any ("untrained"); the best one if not given.
        storage: the folder of studies.

    Returns:
        study, trial, and the file's name; None for the newest.

    Raises:
        InputError: no such study, trial or file, or none has finished.
    """
    from bvae_tune.search.study import Study

    path = Path(run).expanduser().absolute()
    if path.suffix != Path(WEIGHTS).suffix:
        study = Study.open(find_run(run, storage))
        return study, _pick_trial(study, trial), None
    if not path.is_file():
        raise InputError(f"{run}: there is no such file")
    home = path.parents[2] if len(path.parents) > 2 else path.parent
    place = path.parent.relative_to(home).as_posix()
    if (home / STUDY).is_file():
        study = Study.open(home)
        for record in (*study.trials, *study.controls):
            if trial_folder(record.kind, record.number) == place:
                if trial is not None:
                    raise InputError(f"--trial {trial}: leave it out; {run} is a checkpoint of {record.label}")
                return study, record, path.name
    raise InputError(
        f"{run}: weights are read where a study has them, as runs/NAME/trials/00007/{WEIGHTS}, since the study says "
        "of which model and images they are"
    )


def _pick_trial(study: Study, wanted: str | None) -> TrialRecord:
    if wanted is None:
        best = study.best
        if best is None:
            looked_at = " or ".join(f"--trial {name}" for name in _with_weights(study))
            raise InputError(study.without_best + (f"; there are weights of {looked_at}" if looked_at else ""))
        return best
    trials, controls = study.trials, study.controls
    # A control that failed may have been run again, under its label.
    for record in (*trials, *reversed(controls)):
        if wanted == record.label or (record.kind == "search" and wanted == str(record.number)):
            return record
    kept = ", ".join(_with_weights(study)) or "none so far"
    raise InputError(f"--trial {wanted}: {study.path} has no such trial (those with weights: {kept})")


def _with_weights(study: Study) -> list[str]:
    """The trials and controls that have a file of weights, as `--trial` takes them."""
    return [
        str(record.number) if record.kind == "search" else shlex.quote(record.label)
        for record in (*study.trials, *study.controls)
        if any((study.path / trial_folder(record.kind, record.number)).glob(f"*{Path(WEIGHTS).suffix}"))
    ]
