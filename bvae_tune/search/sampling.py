"""Where a trial's parameters come from: Optuna's samplers, as functions of (seed, trial number, record).

Optuna's own samplers carry a random state from one trial to the next, which a killed search would lose. Here every
trial builds its sampler anew, so a resumed search draws what an undisturbed one would.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial

from bvae_tune.randomness import derive_seed, generator

if TYPE_CHECKING:
    from bvae_tune.space import StudyConfig
    from bvae_tune.space_config import Distribution, SearchConfig


def optuna_distribution(distribution: Distribution) -> BaseDistribution:
    """The same distribution in Optuna's terms; `grid` is a list of choices to every sampler but the grid."""
    low, high = distribution.low, distribution.high
    if low is None or high is None:
        return CategoricalDistribution(distribution.choices)
    if distribution.kind in ("int", "logint"):
        return IntDistribution(int(low), int(high), log=distribution.kind == "logint")
    return FloatDistribution(float(low), float(high), log=distribution.kind == "loguniform")


def grid_points(space: Mapping[str, Distribution]) -> list[dict[str, Any]]:
    """Every combination of choices, the last key fastest."""
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*(d.choices for d in space.values()))]


def trials_possible(space: Mapping[str, Distribution], search: SearchConfig) -> int | None:
    """How many different trials there are at most: the grid's points; None for the samplers that never run out."""
    return len(grid_points(space)) if search.sampler == "grid" else None


def bank_of(number: int, config: StudyConfig) -> tuple[int, int]:
    """Which bank trains searched trial `number`: trials of one bank follow one another and differ in β alone.

    The first number counts the grid's columns, β being its last and fastest key; the second the banks of a column.
    """
    if config.resources.trials_per_bank == 1:
        return number, 0
    column, place = divmod(number, len(list(config.space.values())[-1].choices))
    return column, place // config.resources.trials_per_bank


def bank_sizes(config: StudyConfig) -> list[int]:
    """How many searched trials each bank of a study has, in order."""
    possible = trials_possible(config.space, config.search)
    trials = config.search.trials if possible is None else min(config.search.trials, possible)
    return list(Counter(bank_of(number, config) for number in range(trials)).values())


def draw_parameters(trial: Trial, space: Mapping[str, Distribution]) -> dict[str, Any]:
    """The trial's value for every searched key; values that the record has come back, missing ones are drawn.

    A trial that a kill caught between two of them is completed as it would have been.
    """
    for key, distribution in space.items():
        inner = optuna_distribution(distribution)
        match inner:
            case FloatDistribution():
                trial.suggest_float(key, inner.low, inner.high, log=inner.log)
            case IntDistribution():
                trial.suggest_int(key, inner.low, inner.high, log=inner.log)
            case CategoricalDistribution():
                trial.suggest_categorical(key, inner.choices)
    return {key: trial.params[key] for key in space}


def value_at(distribution: BaseDistribution, share: float) -> Any:
    """The value below which lies this share, in [0, 1), of the distribution; choices share evenly."""
    match distribution:
        case FloatDistribution(low=low, high=high, log=True):
            return float(low * (high / low) ** share)
        case FloatDistribution(low=low, high=high):
            return low + share * (high - low)
        case IntDistribution(low=low, high=high, log=True):
            # Each whole number owns the half on either side of it, as in Optuna's own draws.
            value = round((low - 0.5) * ((high + 0.5) / (low - 0.5)) ** share)
            return min(max(value, low), high)
        case IntDistribution(low=low, high=high):
            return low + int(share * (high - low + 1))
        case CategoricalDistribution(choices=choices):
            return choices[int(share * len(choices))]
    raise AssertionError(distribution)


class SeededSampler(BaseSampler):
    """TPE (multivariate, with constant liar), random or grid, each trial's draws made from its number.

    TPE's first trials are a Latin hypercube (McKay et al. 1979): of `startup_trials` equal shares of a key's range,
    each holds one trial. Random draws leave gaps: six of them miss two given octaves of nine in one search of five.

    The grid is a function of the number too: trial n takes point n. Nothing is enqueued, so nothing can be enqueued
    twice, and no point can come twice.
    """

    def __init__(self, search: SearchConfig, space: Mapping[str, Distribution]) -> None:
        self._search, self._space = search, space
        self._grid = grid_points(space) if search.sampler == "grid" else None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The keys drawn together: all of them for TPE once it learns, none before and for the others.

        Optuna would look for them in every trial, every time.
        """
        if self._search.sampler != "tpe" or self._starting(trial):
            return {}
        space = {key: optuna_distribution(distribution) for key, distribution in sorted(self._space.items())}
        return {key: distribution for key, distribution in space.items() if not distribution.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values drawn together."""
        return self._inner(trial, "relative").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One value. Its stream depends on the key, not on how many were drawn before it."""
        if self._grid is not None:
            return self._grid[trial.number][param_name]
        if self._starting(trial):
            numbers = generator(self._search.seed, f"sampler startup {param_name}")
            strata = numbers.permutation(self._search.startup_trials)
            within = numbers.random(len(strata))
            return value_at(param_distribution, (strata[trial.number] + within[trial.number]) / len(strata))
        return self._inner(trial, param_name).sample_independent(study, trial, param_name, param_distribution)

    def _starting(self, trial: FrozenTrial) -> bool:
        return self._search.sampler == "tpe" and trial.number < self._search.startup_trials

    def _inner(self, trial: FrozenTrial, purpose: str) -> BaseSampler:
        seed = derive_seed(self._search.seed, f"sampler {purpose}", trial.number)
        if self._search.sampler == "tpe":
            return TPESampler(
                multivariate=True, constant_liar=True, n_startup_trials=self._search.startup_trials, seed=seed
            )
        return RandomSampler(seed=seed)
