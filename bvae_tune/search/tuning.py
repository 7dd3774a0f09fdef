"""One run of Ray Tune over a study's record. Imported late: it brings Ray Tune with it, which takes seconds."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.exceptions import OutOfMemoryError

from bvae_tune.errors import RunError
from bvae_tune.search import folder
from bvae_tune.search.cluster import Placement, probe_nodes
from bvae_tune.search.progress import Progress
from bvae_tune.search.recorder import Recorder, taking_part
from bvae_tune.search.scheduler import RecordScheduler
from bvae_tune.search.searcher import RecordSearcher, RunStopper
from bvae_tune.search.study import Study
from bvae_tune.search.trainable import BetaVAETrainable
from bvae_tune.wording import way_on

if TYPE_CHECKING:
    from rich.console import Console

# A trial whose worker dies is tried again from its last checkpoint, so often in a row without another report.
RETRIES = 2


def run_trials(study: Study, placement: Placement, console: Console | None, searching: bool, began: float) -> None:
    """Run what is unfinished and what is still to come, and note the run's start and end in the record.

    Args:
        study: opened by its driver, under the lock; Ray is up.
        placement: what a trial gets, and how many run at once.
        console: shows progress there.
        searching: run searched trials too, not controls only.
        began: when the driver began, Unix time.

    Raises:
        RunError: the run had to stop; what was recorded is safe.
        KeyboardInterrupt: Ctrl-C or SIGTERM, between two events.
    """
    session = f"session {len(study.sessions):04d}"
    facts = {
        "start": began,
        "cores": placement.cores,
        "cpus_per_trial": placement.cpus,
        "gpus": placement.all_gpus,
        "concurrent": placement.concurrent,
    }
    study.searched.set_user_attr(session, facts)
    with _progress(study, console, searching) as progress:
        recorder = Recorder(study, placement, searching, progress)
        recorder.show()
        with _interrupts(recorder.interrupted):
            try:
                _tune(study, placement, recorder)
            finally:
                with suppress(OSError):
                    folder.repair(study.path)
                    study.searched.set_user_attr(session, {**facts, "end": time.time()})


def probe(path: Path) -> None:
    """Let every node of the cluster show that it sees the study's folder; raises InputError where one does not."""
    file = path / f".probe-{uuid.uuid4().hex}"
    file.touch()
    try:
        probe_nodes(str(path), file.name)
    finally:
        file.unlink(missing_ok=True)


def _tune(study: Study, placement: Placement, recorder: Recorder) -> None:
    at_once = placement.concurrent
    failure: BaseException | None = _tune_once(study, placement, recorder, at_once)
    # Tune goes on after a worker that died, and gives up after one that Ray killed because memory was short. Another
    # run of Tune takes the record up, with fewer trials at once.
    while recorder.error is None and failure and isinstance(failure.__cause__, OutOfMemoryError):
        what = str(failure.__cause__).partition(" Memory on")[0]
        recorder.lose(f"out of memory: {what}", None if at_once > 1 else RETRIES)
        at_once = max(1, at_once // 2)
        failure = None if recorder.exhausted else _tune_once(study, placement, recorder, at_once)
    failure = recorder.error or failure
    if isinstance(failure, RunError):
        raise failure
    if failure is not None:
        raise RunError(f"the search stopped: {type(failure).__name__}: {failure}. {way_on(study.path)}") from failure


def _tune_once(study: Study, placement: Placement, recorder: Recorder, at_once: int) -> Exception | None:
    """Run trials until none is left; what stopped it before."""
    try:
        # Not tune.Tuner: it pickles searcher and scheduler for a restore that never comes.
        tune.run(
            BetaVAETrainable,
            name=folder.SCRATCH,
            storage_path=str(study.path),
            resources_per_trial={"cpu": placement.cpus, "gpu": placement.gpus},
            search_alg=RecordSearcher(recorder),
            scheduler=RecordScheduler(recorder),
            stop=RunStopper(recorder),
            num_samples=-1,
            # Without a limiter Tune asks for one trial ahead, on stale data.
            max_concurrent_trials=at_once,
            max_failures=RETRIES,
            reuse_actors=True,
            raise_on_failed_trial=False,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
            verbose=0,
        )
    except Exception as error:
        return error
    return None


def _trial_name(trial: Any) -> str:
    return str(trial.config["tasks"][0].folder).replace("/", "-")


@contextmanager
def _progress(study: Study, console: Console | None, searching: bool) -> Iterator[Progress | None]:
    if console is None:
        yield None
        return
    steps = None if "training.steps" in study.config.space else study.config.training.steps
    trials = study.trials_wanted if searching else 0
    controls = sum(record.kind != "search" for record in taking_part(study, searching))
    with Progress(console, study.name, trials, controls, steps) as progress:
        yield progress


@contextmanager
def _interrupts(flag: threading.Event) -> Iterator[None]:
    """Set `flag` at the first Ctrl-C or SIGTERM; a second one acts as it did before. In the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def interrupt(number: int, frame: FrameType | None) -> None:
        flag.set()
        restore()

    for number in signals:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        restore()
