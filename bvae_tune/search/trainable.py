"""A trial as Ray Tune sees it: a class trainable whose worker serves one after another.

The driver imports this for its name only, so torch is imported where a worker first needs it.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import ray

from bvae_tune.errors import NO_SPACE, InputError, RunError
from bvae_tune.search.importing import without_collector
from bvae_tune.search.task import TrialTask

with without_collector():
    from ray import tune

if TYPE_CHECKING:
    from bvae_tune.search.trial_run import TrialData, TrialRun


class BetaVAETrainable(tune.Trainable):
    """Runs the `TrialTask`s in `config["tasks"]`, one or those that share a bank; each `step` is one report of each.

    `setup` and `reset_config` only store the tasks: an exception there would leak the worker's place in Tune. What can
    fail happens in `step`, and becomes one of three things:

    - raised, so that Tune tries again in a new worker, from the last checkpoints: errors of the storage or the device,
      which may pass (as when the worker is killed). The other trials of its bank first train to their end;
    - a trial's `reason`, the trial is over: everything else, since it is a function of its seeds and would fail again;
    - `fatal`, the run is over and its trials stay unfinished: no space left, or a node without the study or its data.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Keep the tasks."""
        self._tasks: Sequence[TrialTask] = config["tasks"]
        self._data: TrialData | None = None
        self._runs: list[TrialRun] | None = None
        self._failure: Exception | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Keep the next tasks; images and labels stay open."""
        self._tasks, self._runs, self._failure = new_config["tasks"], None, None
        return True

    def step(self) -> dict[str, Any]:
        """One report of each trial that is not over (see `_report`), the node, and whether all are over; or `fatal`."""
        with without_collector():
            from bvae_tune.search.trial_run import NodeError, TrialData, TrialRun
            from bvae_tune.training.shared_bank import SharedBank
        self._data = self._data or TrialData()
        if self._runs is None:
            share = SharedBank()
            self._runs = [TrialRun(task, self._data, share) for task in self._tasks]
        for run in self._runs:
            with suppress(Exception):  # raised again where the trial reports
                run.open()
        reports, unfinished = [], []
        for run in self._runs:
            try:
                report = _report(run)
            except NodeError as error:
                return {"done": True, "fatal": str(error)}
            except Exception as error:
                if isinstance(error, OSError) and error.errno in NO_SPACE:
                    return {"done": True, "fatal": f"{run.task.study}: no space left ({error})"}
                self._failure = self._failure or error
            else:
                reports.append(report)
                if not report["done"]:
                    unfinished.append(run)
        self._runs = unfinished
        if self._failure and not reports:
            raise self._failure
        node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else None
        return {"done": not unfinished and self._failure is None, "node": node, "reports": reports}


def _report(run: TrialRun) -> dict[str, Any]:
    """The trial's folder, done, and the `TrialResult` as JSON; or done with the `reason`."""
    import torch

    from bvae_tune.search.trial_run import NodeError
    from bvae_tune.training.memory import is_out_of_memory, out_of_memory_in_words

    over = {"folder": run.task.folder, "done": True}
    try:
        result, done = run.advance()
    except (NodeError, OSError, torch.AcceleratorError):
        raise
    except (InputError, RunError) as error:
        return {**over, "reason": str(error)}
    except Exception as error:
        if is_out_of_memory(error):
            return {**over, "reason": out_of_memory_in_words(error)}
        return {**over, "reason": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    return {
        "folder": run.task.folder,
        "done": done,
        "result": json.dumps(result.to_dict()),
    }
