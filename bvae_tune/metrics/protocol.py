"""The protocol of A.4: R replicas scored by S classifier seeds each, the bottom of the R x S scores discarded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bvae_tune.errors import InputError
from bvae_tune.metrics.agreement import agreement
from bvae_tune.metrics.config import MetricConfig, ProtocolConfig
from bvae_tune.metrics.factor_change import factor_change, pair_tables
from bvae_tune.metrics.mutual_information import information

# A factor of which the best latent knows less is named as not represented.
MISSING_INFORMATION = 0.05


@dataclass(frozen=True)
class TrialScore:
    """What the metric says of one configuration. Scores are shares in [0, 1].

    Attributes:
        score: mean of the kept scores at L = `pairs`.
        spread: standard deviation over the replicas of their mean scores (n - 1); 0 for one replica.
        pairs: L.
        classifier: which one gave the scores.
        chance: 1 / number of usable factors.
        replica_scores: (R) mean over classifier seeds.
        seed_scores: (R x S) every score at L = `pairs`.
        profile: L -> mean of the scores kept at that L.
        mig: mutual information gap, averaged as the score is: each kept score brings its replica's value.
        information: factor -> share its best latent knows (see `mutual_information`), averaged likewise.
        missing: factors below MISSING_INFORMATION.
        unusable: labelled factor that took no part -> why.
        agreement: UDR, mean over replicas; None for one replica.
        converged: whether every classifier met its tolerance.
    """

    score: float
    spread: float
    pairs: int
    classifier: str
    chance: float
    replica_scores: tuple[float, ...]
    seed_scores: tuple[tuple[float, ...], ...]
    profile: dict[int, float]
    mig: float
    information: dict[str, float]
    missing: tuple[str, ...]
    unusable: dict[str, str]
    agreement: float | None
    converged: bool

    @property
    def best_replica(self) -> int:
        """Which replica has the highest score; the earlier of equals."""
        return self.replica_scores.index(max(self.replica_scores))

    @property
    def worst_replica(self) -> int:
        """Which replica has the lowest score; the earlier of equals."""
        return self.replica_scores.index(min(self.replica_scores))

    def to_dict(self) -> dict[str, Any]:
        """The same in types that JSON knows."""
        return dataclasses.asdict(self) | {"profile": {str(pairs): score for pairs, score in self.profile.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialScore:
        """The score that `to_dict` wrote, before or after a journey through JSON."""
        return cls(
            **{
                **values,
                "replica_scores": tuple(values["replica_scores"]),
                "seed_scores": tuple(tuple(scores) for scores in values["seed_scores"]),
                "profile": {int(pairs): score for pairs, score in values["profile"].items()},
                "missing": tuple(values["missing"]),
            }
        )


def score_codes(
    mean: NDArray[np.number],
    factors: NDArray[np.integer],
    factor_names: Sequence[str],
    metric: MetricConfig,
    protocol: ProtocolConfig,
    seed: int,
    logvar: NDArray[np.floating] | None = None,
) -> TrialScore:
    """Score the codes of R replicas for the same n labelled images. A replica alone answers the same questions.

    Args:
        mean: (R, n, M); any real numbers, at least float32 while they are compared.
        factors: (n, K) int, -1 where unknown.
        factor_names: the K names.
        metric, protocol: how; R is that of the codes, whatever `protocol.replicas` says.
        seed: of pairs and batches.
        logvar: (R, n, M) float; tells information and agreement which latents carry something.

    Raises:
        InputError: shapes that do not fit, factors that are not whole numbers, codes that are not finite, or fewer
            than two usable factors.
    """
    _check(mean, factors, factor_names, logvar)
    values = factors.astype(np.int64)
    codes: NDArray[np.floating] = mean.astype(np.result_type(mean, np.float32), copy=False)
    tables = pair_tables(values, factor_names)
    draws = [factor_change(codes, tables, metric, seed, draw) for draw in range(protocol.classifier_seeds)]
    scores = np.stack([draw.scores for draw in draws], axis=-1)  # (lengths, R, S)
    at = metric.lengths.index(metric.pairs)
    kept = _kept(scores[at], protocol.keep)
    weight = kept.sum(axis=1) / kept.sum()
    known = information(codes, values[:, tables.factors], logvar)
    shares = {factor_names[k]: float(share) for k, share in zip(tables.factors, weight @ known.factors, strict=True)}
    replica_scores = scores[at].mean(axis=1)
    return TrialScore(
        score=float(scores[at][kept].mean()),
        spread=float(replica_scores.std(ddof=1)) if len(mean) > 1 else 0.0,
        pairs=metric.pairs,
        classifier=metric.classifier,
        chance=tables.chance,
        replica_scores=tuple(replica_scores.tolist()),
        seed_scores=tuple(tuple(row) for row in scores[at].tolist()),
        profile={
            pairs: float(scores[position][_kept(scores[position], protocol.keep)].mean())
            for position, pairs in enumerate(metric.lengths)
        },
        mig=float(weight @ known.gap),
        information=shares,
        missing=tuple(name for name, share in shares.items() if share < MISSING_INFORMATION),
        unusable=tables.unusable,
        agreement=float(agreement(codes, logvar).mean()) if len(mean) > 1 else None,
        converged=all(draw.converged for draw in draws),
    )


def _kept(scores: NDArray[np.float64], keep: float) -> NDArray[np.bool_]:
    """Mask of the best share `keep` of all scores (R, S), their number rounded up; the earlier of equals stays."""
    count = math.ceil(keep * scores.size - 1e-9)
    mask = np.zeros(scores.size, dtype=np.bool_)
    mask[np.argsort(-scores, axis=None, kind="stable")[:count]] = True
    return mask.reshape(scores.shape)


def _check(
    mean: NDArray[np.number],
    factors: NDArray[np.integer],
    factor_names: Sequence[str],
    logvar: NDArray[np.floating] | None,
) -> None:
    if mean.ndim != 3 or factors.ndim != 2 or mean.shape[1] != len(factors) or not mean.size:
        raise InputError(
            f"codes {mean.shape} and factors {factors.shape} do not fit: give (replicas, images, latents) and"
            " (images, factors), none of them empty"
        )
    if not np.issubdtype(factors.dtype, np.integer):
        raise InputError(f"factors are {factors.dtype}: give whole numbers, one per value, -1 where unknown")
    if factors.shape[1] != len(factor_names):
        raise InputError(f"factors have {factors.shape[1]} columns and {len(factor_names)} names: {factor_names}")
    if logvar is not None and logvar.shape != mean.shape:
        raise InputError(f"logvar {logvar.shape} must have the shape of the codes {mean.shape}")
    bad = ~np.isfinite(mean)
    if bad.any():
        replica, image, latent = np.argwhere(bad)[0]
        raise InputError(
            f"{bad.sum()} of {mean.size} codes are not finite numbers, the first of replica {replica}, image {image},"
            f" latent {latent}: they have no score; a model that gives such codes has diverged"
        )
