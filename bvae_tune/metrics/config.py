"""How codes are scored: settings alone, without scipy, so that a search space is checked fast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bvae_tune.errors import InputError


@dataclass(frozen=True)
class MetricConfig:
    """How one set of codes is scored.

    Attributes:
        pairs: L of Eq. 5, the pairs averaged into one z_diff. It decides how hard the question is; the paper does not
            give it.
        train_points: B of Eq. 5, the z_diff that train the classifier.
        test_points: fresh z_diff that score it (5,000 in Sec. 4.2).
        classifier: "lbfgs", or "adagrad" as in A.4 (slow, and short of the minimum).
        ridge: penalty on the classifier's weights; z_diff is scaled by one number first, so that it means the same for
            every model.
        profile: other L to score at, on the same pairs: L = 4 averages the first four pairs of L = 16.
    """

    pairs: int = 4
    train_points: int = 10_000
    test_points: int = 5_000
    classifier: Literal["lbfgs", "adagrad"] = "lbfgs"
    ridge: float = 1e-6
    profile: tuple[int, ...] = (1, 4, 16, 64)

    def __post_init__(self) -> None:
        for key in ("pairs", "train_points", "test_points"):
            if getattr(self, key) < 1:
                raise InputError(f"metric.{key}: {getattr(self, key)} is too few; give 1 or more")
        if any(pairs < 1 for pairs in self.profile):
            raise InputError(f"metric.profile: {list(self.profile)} holds a number of pairs below 1; each is 1 or more")
        if self.classifier not in ("lbfgs", "adagrad"):
            raise InputError(f"metric.classifier: {self.classifier!r} is unknown; use lbfgs or adagrad")
        if not 0 <= self.ridge < math.inf:
            raise InputError(f"metric.ridge: {self.ridge} must be 0 or more, and finite")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Every L scored, ascending: the profile and `pairs`."""
        return tuple(sorted({self.pairs, *self.profile}))


@dataclass(frozen=True)
class ProtocolConfig:
    """How scores are combined (A.4: ten replicas, three classifier seeds, the better half).

    Attributes:
        replicas: R, models of one configuration, each with a seed of its own.
        classifier_seeds: S, draws of pairs (and fits) per replica.
        keep: share of the R x S scores that is averaged, the best ones, rounded up.
    """

    replicas: int = 1
    classifier_seeds: int = 3
    keep: float = 0.5

    def __post_init__(self) -> None:
        for key in ("replicas", "classifier_seeds"):
            if getattr(self, key) < 1:
                raise InputError(f"protocol.{key}: {getattr(self, key)} is too few; give 1 or more")
        if not 0 < self.keep <= 1:
            raise InputError(f"protocol.keep: {self.keep} must be above 0 and at most 1")
