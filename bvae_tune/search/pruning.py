"""Which trials stop early: Optuna's pruners, by the trainer's own step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import optuna
from optuna.pruners import BasePruner, MedianPruner, SuccessiveHalvingPruner

if TYPE_CHECKING:
    from bvae_tune.space_config import SearchConfig


def build_pruner(search: SearchConfig) -> BasePruner | None:
    """Optuna's pruner; its resource is training steps, and `min_resource` the first step at which it may stop one."""
    if search.pruner == "none" or search.min_resource is None:
        return None
    if search.pruner == "median":
        return MedianPruner(n_startup_trials=search.startup_trials, n_warmup_steps=search.min_resource)
    return SuccessiveHalvingPruner(min_resource=search.min_resource, reduction_factor=search.reduction_factor)


def judge(study: optuna.Study, pruner: BasePruner, number: int) -> tuple[bool, dict[str, Any]]:
    """Whether trial `number` is to stop at its last report, and the rung values the pruner would note for it.

    The pruner works on a copy in memory: successive halving notes a trial's rung before it decides, and a driver
    killed between the two would afterwards take the trial for one that passed. So the decision is made first and the
    caller records both.
    """
    copy = optuna.create_study(direction="maximize")
    copy.add_trials(study.get_trials(deepcopy=False))
    before = copy.get_trials(deepcopy=False)[number]
    stop = pruner.prune(copy, before)
    after = copy.get_trials(deepcopy=False)[number].system_attrs
    return bool(stop), {key: value for key, value in after.items() if key not in before.system_attrs}
