"""What Ray Tune runs next, and what becomes of it: the record behind Tune's Searcher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher
from ray.tune.stopper import NoopStopper, Stopper

if TYPE_CHECKING:
    from bvae_tune.search.recorder import Recorder


class RecordSearcher(Searcher):
    """Gives Tune the record's unfinished trials, then new ones, and writes their ends back.

    Tune swallows what a callback raises and would run the trial again, so nothing here raises: the recorder keeps the
    first error and the RunStopper ends the run.
    """

    def __init__(self, recorder: Recorder) -> None:
        # No metric: Tune would refuse the report of a trial that ends with a reason and has no score.
        super().__init__()
        self._recorder = recorder

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # Ray's hint lacks FINISHED
        """The next trial, or those of a bank; None while one may still be asked for, FINISHED when none can come."""
        tasks = self._recorder.next_tasks(trial_id)
        if tasks:
            return {"tasks": tasks}
        return Searcher.FINISHED if self._recorder.exhausted else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial; `result` is its last report."""
        if error or result is None:
            self._recorder.fail(trial_id)
        else:
            self._recorder.complete(trial_id, result)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the record is the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: Tune's experiments are never restored."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing, see `save`."""


class RunStopper(Stopper):
    """Ends the run at the first error of a callback, and at an interrupt.

    An interrupt is raised from here, between two events, so the record is consistent; and as a KeyboardInterrupt, so
    Tune does not wait for its trials, which may be minutes from their next report.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune saves its experiment, which nobody reads; the recorder has a lock and cannot be pickled.
        return NoopStopper, ()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stops a single trial."""
        return False

    def stop_all(self) -> bool:
        """Asked after every event, ten times a second at least."""
        if self._recorder.interrupted.is_set():
            raise KeyboardInterrupt
        return self._recorder.error is not None
