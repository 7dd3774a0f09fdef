"""The record: two Optuna studies in one journal file, the searched trials and the controls.

Baselines and confirmations are controls: a trial without the searched parameters would empty TPE's search space for
good, so no sampler may see one.
"""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from bvae_tune.errors import InputError

SEARCHED, CONTROLS = "search", "controls"


def create_record(journal: Path) -> None:
    """Start an empty record in a new file."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    for name in (SEARCHED, CONTROLS):
        optuna.create_study(storage=storage, study_name=name, direction="maximize")


def open_record(journal: Path, sampler: BaseSampler | None = None) -> tuple[optuna.Study, optuna.Study]:
    """The searched trials and the controls. Reading never writes; a last line still being written is passed over.

    Args:
        journal: the file.
        sampler: of the searched trials, for a driver that asks for new ones.

    Raises:
        InputError: the file is missing or damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not journal.is_file():
        raise InputError(f"{journal}: the record is missing; bring it back from a copy")
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        return (
            optuna.load_study(study_name=SEARCHED, storage=storage, sampler=sampler),
            optuna.load_study(study_name=CONTROLS, storage=storage),
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{journal}: damaged ({error}); bring it back from a copy") from error
