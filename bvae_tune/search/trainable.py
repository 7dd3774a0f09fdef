"""A trial as Ray Tune sees it: a class trainable whose worker serves one trial after another.

The driver imports this for its name only, so torch is imported where a worker first needs it.
"""

from __future__ import annotations

import json
import traceback
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
    """Runs the `TrialTask` in `config["task"]`; each `step` is one report.

    `setup` and `reset_config` only store the task: an exception there would leak the worker's place in Tune. What can
    fail happens in `step`, and becomes one of three things:

    - raised, so that Tune tries again in a new worker, from the last checkpoint: errors of the storage or the device,
      which may pass (as when the worker is killed);
    - `reason`, the trial is over: everything else, since a trial is a function of its seeds and would fail again;
    - `fatal`, the run is over and the trial stays unfinished: no space left, or a node without the study or its data.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Keep the task."""
        self._task: TrialTask = config["task"]
        self._data: TrialData | None = None
        self._run: TrialRun | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Keep the next task; images and labels stay open."""
        self._task, self._run = new_config["task"], None
        return True

    def step(self) -> dict[str, Any]:
        """One report: step, score, done, node and the `TrialResult` as JSON; or done with `reason` or `fatal`."""
        with without_collector():
            import torch

            from bvae_tune.search.trial_run import NodeError, TrialData, TrialRun
            from bvae_tune.training.memory import OUT_OF_MEMORY_ADVICE, is_out_of_memory
        self._data = self._data or TrialData()
        self._run = self._run or TrialRun(self._task, self._data)
        try:
            result, done = self._run.advance()
        except NodeError as error:
            return {"done": True, "fatal": str(error)}
        except (InputError, RunError) as error:
            return {"done": True, "reason": str(error)}
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            return {"done": True, "fatal": f"{self._task.study}: no space left ({error})"}
        except torch.AcceleratorError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                return {"done": True, "reason": f"out of memory ({error}); {OUT_OF_MEMORY_ADVICE}"}
            reason = f"{type(error).__name__}: {error}"
            return {"done": True, "reason": reason, "traceback": traceback.format_exc()}
        return {
            "step": result.step,
            "score": result.score.score,
            "done": done,
            "result": json.dumps(result.to_dict()),
            "node": ray.get_runtime_context().get_node_id() if ray.is_initialized() else None,
        }
