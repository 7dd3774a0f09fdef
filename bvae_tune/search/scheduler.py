"""What Ray Tune does with a report: the record behind Tune's scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial

    from bvae_tune.search.recorder import Recorder


class RecordScheduler(FIFOScheduler):
    """Hands every report to the record and stops the trials that the record has pruned."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorder = recorder

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """A report that is not the trial's last."""
        heard = self._recorder.report(trial.trial_id, result)
        if heard.news:
            # Tune counts the failures of a trial's whole life. Lost workers are none where each brings the trial on.
            trial.run_metadata.num_failures = 0
        return TrialScheduler.STOP if heard.over else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """A worker died or raised; Tune tries the trial again or fails it, and tells only here why."""
        # Not trial.get_error(): that reads the copy in Tune's storage, which Tune makes later or never.
        path = trial.error_file
        told = Path(path).read_text(errors="replace") if path and Path(path).exists() else ""
        left = self._recorder.worker_failed(trial.trial_id, failure_in_words(told))
        # A new worker shall not train again what is over, and has no checkpoint any more.
        trial.config["tasks"] = tuple(task for task in trial.config["tasks"] if task.folder in left)


def failure_in_words(told: str) -> str:
    """One line of Tune's error file: how the worker died, or the last line of the traceback it left.

    Args:
        told: the file's text; every failure of the trial adds a heading and what Ray says of it.
    """
    lines = [line.strip() for line in told.rpartition("Failure # ")[2].splitlines()[1:] if line.strip()]
    if not lines:
        return "the worker failed without a word"
    return f"the worker was lost: {lines[0]}" if lines[0].startswith("The actor ") else lines[-1]
