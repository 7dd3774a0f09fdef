"""Finding a study by what a person calls it, and a trial within it."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from bvae_tune.errors import InputError
from bvae_tune.search.storage import LATEST, STUDY
from bvae_tune.wording import command

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


def pick_trial(study: Study, number: int | None) -> TrialRecord:
    """The searched trial `number`, or the best one.

    Raises:
        InputError: no such trial, or none has finished.
    """
    trials = study.trials
    if number is None:
        best = study.best
        if best is None:
            raise InputError(f"{study.path}: no trial has finished yet; go on with: {command('resume', study.path)}")
        return best
    if not 0 <= number < len(trials):
        known = f"0 to {len(trials) - 1}" if trials else "none so far"
        raise InputError(f"--trial {number}: {study.path} has no such trial (its trials: {known})")
    return trials[number]
