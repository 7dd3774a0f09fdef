"""What a search space says of the search itself: distributions, how trials are chosen, and what one of them takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from bvae_tune.errors import InputError

Scalar = bool | int | float | str | None
Kind = Literal["uniform", "loguniform", "int", "logint", "categorical", "grid"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class Distribution:
    """What a searched key is drawn from: `low` and `high` (both included) for the ranges, `choices` for the lists.

    A choice that is itself a list (`model.widths`) is carried as its JSON text, since Optuna's journal and
    TensorBoard's HParams know scalars only; `configure` turns it back.
    """

    kind: Kind
    low: float | int | None = None
    high: float | int | None = None
    choices: tuple[Scalar, ...] = ()

    def __post_init__(self) -> None:
        if self.kind in ("categorical", "grid"):
            if not self.choices:
                raise InputError(f"{self.kind} needs at least one choice, as in {{{self.kind}: [1, 2, 4]}}")
            if len(set(map(repr, self.choices))) < len(self.choices):
                raise InputError(f"{self.kind}: {list(self.choices)} names a choice twice")
            return
        if self.low is None or self.high is None:
            raise InputError(f"{self.kind} needs a low and a high bound, as in {{{self.kind}: [1, 20]}}")
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise InputError(f"{self.kind}: the bounds [{self.low}, {self.high}] must be finite")
        if self.low > self.high:
            raise InputError(f"{self.kind}: low {self.low} is above high {self.high}; write the lower bound first")
        if self.kind in ("loguniform", "logint") and self.low <= 0:
            raise InputError(f"{self.kind}: low {self.low} must be above zero")
        if self.kind in ("int", "logint") and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise InputError(f"{self.kind}: the bounds [{self.low}, {self.high}] must be whole numbers")

    @property
    def extremes(self) -> tuple[Scalar, ...]:
        """Every choice, or both bounds: values that must all be valid for the key."""
        return self.choices or (self.low, self.high)


@dataclass(frozen=True)
class SearchConfig:
    """How trials are chosen and which of them stop early.

    Attributes:
        trials: configurations to try, baselines not counted.
        sampler: tpe (Optuna's, multivariate), random, or grid (every combination of lists, once).
        startup_trials: trials spread evenly over the space before TPE starts to learn.
        pruner: none, halving (Optuna's successive halving) or median.
        min_resource: training steps before which no trial is stopped (halving's first rung); a pruner needs it.
        reduction_factor: halving keeps one in this many at each rung.
        seed: the search, its trials and their replicas draw from it.
        baselines: run first, outside the sampler's sight.
        keep_models: weights are kept for this many of the best trials, and for the baselines that are trained.
    """

    trials: int = 10
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    startup_trials: int = 10
    pruner: Literal["none", "halving", "median"] = "none"
    min_resource: int | None = None
    reduction_factor: int = 2
    seed: int = 0
    baselines: tuple[Literal["untrained", "beta=1"], ...] = ("untrained", "beta=1")
    keep_models: int = 3

    def __post_init__(self) -> None:
        least = {"trials": 1, "startup_trials": 1, "reduction_factor": 2, "seed": 0, "keep_models": 1}
        for key, bound in (least | ({"min_resource": 1} if self.min_resource is not None else {})).items():
            if getattr(self, key) < bound:
                raise InputError(f"search.{key}: {getattr(self, key)} must be at least {bound}")
        if self.pruner != "none" and self.min_resource is None:
            raise InputError(f"search.min_resource: {self.pruner} needs it, the training steps before anything stops")
        if len(set(self.baselines)) < len(self.baselines):
            raise InputError(f"search.baselines: {list(self.baselines)} names one twice")


@dataclass(frozen=True)
class ResourcesConfig:
    """What one trial takes of the machine or cluster, and how many run at once.

    Trials of a grid that differ in β alone can train as one bank, `trials_per_bank` of them on what one trial takes; it
    counts as one of the `concurrent_trials`, and a worker that is lost again and again takes all its trials along.

    `auto`: a GPU for each trial if there are any; two cores where no other trial has to wait for them, else one; as
    many trials at once as fit. Fractions of a GPU are allowed (0.25: four trials share one).
    """

    cpus_per_trial: Literal["auto"] | int | float = "auto"
    gpus_per_trial: Literal["auto"] | int | float = "auto"
    concurrent_trials: Literal["auto"] | int = "auto"
    trials_per_bank: int = 1

    def __post_init__(self) -> None:
        if self.trials_per_bank < 1:
            raise InputError(f"resources.trials_per_bank: {self.trials_per_bank} must be at least 1")
        if self.cpus_per_trial != "auto" and not 0 < self.cpus_per_trial < math.inf:
            raise InputError(f"resources.cpus_per_trial: {self.cpus_per_trial} must be auto or above 0")
        gpus = self.gpus_per_trial
        if gpus != "auto" and not (0 <= gpus <= 1 or (float(gpus).is_integer() and gpus > 0)):
            raise InputError(
                f"resources.gpus_per_trial: {gpus} must be auto, a fraction from 0 to 1, or a whole number"
            )
        if self.concurrent_trials != "auto" and self.concurrent_trials < 1:
            raise InputError(f"resources.concurrent_trials: {self.concurrent_trials} must be auto or at least 1")
