"""The disentanglement metric of Sec. 3 (Eq. 5, A.4): which factor did not change between the images of a pair?

For b = 1..B: draw y uniformly from the factors; draw L pairs of different labelled images that have the same value of
factor y, the rest free; z_diff = mean over the L pairs of |mu_i - mu_j|. A linear classifier learns y from z_diff; the
score is its accuracy on fresh points. Training and test points come from disjoint halves of the labelled images, which
are encoded once: a pair is two row numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bvae_tune.errors import InputError
from bvae_tune.metrics.config import MetricConfig
from bvae_tune.randomness import generator

# Codes gathered at a time: both ends of the pairs stay in a core's cache.
GATHERED_VALUES = 2**18
# Fits of so few latents are products of matrices too small to share: more threads only wait for each other, and long on
# a busy machine (43 s of CPU against 12 s for the tests of this room).
ONE_THREAD_LATENTS = 128
# Of all fits that Adagrad makes at once: a batch of 256 points stays in a core's cache.
ADAGRAD_LATENTS = 512


@dataclass(frozen=True)
class PairTable:
    """One half of the labelled images, sorted by factor, then value: the pairs of Eq. 5 by lookup.

    An image stands once under each factor whose value it shares with another image of this half.

    Attributes:
        rows: (T,) int64 row numbers of the images in the codes.
        group_start: (T,) int64 position where the images of the same factor and value begin.
        group_size: (T,) int64 how many they are, at least 2.
        factor_start: (K,) int64 position where a factor begins.
        factor_size: (K,) int64 how many images it has.
    """

    rows: NDArray[np.int64]
    group_start: NDArray[np.int64]
    group_size: NDArray[np.int64]
    factor_start: NDArray[np.int64]
    factor_size: NDArray[np.int64]


@dataclass(frozen=True)
class PairTables:
    """Both halves, over the usable factors.

    Attributes:
        train, test: the halves.
        factors: (K',) positions of the usable factors among all.
        unusable: for each other factor, by name, why it is not.
    """

    train: PairTable
    test: PairTable
    factors: tuple[int, ...]
    unusable: dict[str, str]

    @property
    def chance(self) -> float:
        """Expected score of codes that know nothing: 1 / K'."""
        return 1 / len(self.factors)


def _pairable(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images (n,) have a known value that another of them shares."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    shared: NDArray[np.bool_] = (sizes[group] > 1) & (values >= 0)
    return shared


def _pair_table(factors: NDArray[np.int64], rows: NDArray[np.int64]) -> PairTable:
    parts: list[tuple[NDArray[np.int64], ...]] = []
    factor_start, start = [], 0
    for values in factors[rows].T:
        usable = np.flatnonzero(_pairable(values))
        usable = usable[np.argsort(values[usable], kind="stable")]
        _, first, group, sizes = np.unique(values[usable], return_index=True, return_inverse=True, return_counts=True)
        factor_start.append(start)
        parts.append((rows[usable], first[group] + start, sizes[group]))
        start += len(usable)
    row, group_start, group_size = (np.concatenate(part) for part in zip(*parts, strict=True))
    starts = np.array(factor_start, dtype=np.int64)
    return PairTable(row, group_start, group_size, starts, np.diff(starts, append=start))


def _why_unusable(values: NDArray[np.int64], halves: Sequence[NDArray[np.int64]]) -> str | None:
    known = values[values >= 0]
    if not len(known):
        return "no labelled image knows its value"
    distinct = len(np.unique(known))
    if distinct == 1:
        return f"it has the same value in all {len(known)} labelled images that know it"
    shared = min(len(np.unique(values[half][_pairable(values[half])])) for half in halves)
    if shared < 2:
        return (
            f"its {distinct} values over {len(known)} labelled images leave {shared} that two images share in each half"
            " (training and test); label more images, or use fewer values"
        )
    return None


def pair_tables(factors: NDArray[np.int64], factor_names: Sequence[str]) -> PairTables:
    """Split the labelled images into random halves for training and test and look up their pairs.

    The split follows from the number of images alone, so that which factors are usable is a property of the labels. A
    factor is, when each half has at least two of its values in two images or more.

    Args:
        factors: (n, K) int, -1 where a value is unknown.
        factor_names: the K names.

    Raises:
        InputError: fewer than two factors are usable.
    """
    order = generator(0, "metric halves").permutation(len(factors))
    halves = (np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :]))
    reasons = [_why_unusable(values, halves) for values in factors.T]
    usable = tuple(k for k, reason in enumerate(reasons) if reason is None)
    unusable = {name: reason for name, reason in zip(factor_names, reasons, strict=True) if reason is not None}
    if len(usable) < 2:
        named = "; ".join(f"{name}: {reason}" for name, reason in unusable.items()) or "none; label another factor"
        kept = ", ".join(factor_names[k] for k in usable) or "none"
        raise InputError(
            f"labels: the metric needs two usable factors and has {len(usable)} ({kept}). Unusable: {named}"
        )
    columns = factors[:, usable]
    return PairTables(_pair_table(columns, halves[0]), _pair_table(columns, halves[1]), usable, unusable)


def draw_pairs(
    table: PairTable, points: int, pairs: int, rng: np.random.Generator, *, distinct: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Draw the pairs of Eq. 5.

    The first image is uniform over those of factor y that share their value, the second uniform over the first's
    equals. Fewer `pairs` from the same generator are the first of more.

    Args:
        table: where pairs are looked up.
        points: B, how many z_diff.
        pairs: L, pairs in each.
        rng: of factors and pairs.
        distinct: False lets a pair be one image twice.

    Returns:
        y (B,) positions in the table's factors, and the rows of first and second images, (L, B) each, all int64.
    """
    y = rng.integers(len(table.factor_start), size=points)
    first, second = np.empty((2, pairs, points), dtype=np.int64)
    start, size = table.factor_start[y], table.factor_size[y]
    for pair in range(pairs):
        at = start + (rng.random(points) * size).astype(np.int64)
        low, equals = table.group_start[at], table.group_size[at]
        if distinct:
            other = low + (rng.random(points) * (equals - 1)).astype(np.int64)
            other += other >= at
        else:
            other = low + (rng.random(points) * equals).astype(np.int64)
        first[pair], second[pair] = table.rows[at], table.rows[other]
    return y, first, second


def mean_differences(
    mean: NDArray[np.floating], first: NDArray[np.int64], second: NDArray[np.int64], lengths: Sequence[int]
) -> NDArray[np.floating]:
    """z_diff of Eq. 5 at several L, for every replica, from the same pairs.

    Args:
        mean: (n, W) float, the codes; replicas may stand side by side.
        first, second: (L, B) rows of the pairs.
        lengths: ascending numbers of pairs to average, none above L.

    Returns:
        (len(lengths), B, W) in the dtype of `mean`.
    """
    points, width = first.shape[1], mean.shape[1]
    result = np.empty((len(lengths), points, width), dtype=mean.dtype)
    block = max(1, GATHERED_VALUES // width)
    for start in range(0, points, block):
        here = slice(start, start + block)
        total = np.zeros((min(block, points - start), width), dtype=mean.dtype)
        done = 0
        for position, length in enumerate(lengths):
            for pair in range(done, length):
                change = mean.take(first[pair, here], axis=0)
                change -= mean.take(second[pair, here], axis=0)
                total += np.abs(change, out=change)
            done = length
            result[position, here] = total / length
    return result


@dataclass(frozen=True)
class FactorChange:
    """Scores of R replicas from one draw of pairs.

    Attributes:
        scores: (lengths, R) float64, share of test points named right.
        converged: whether every fit converged.
    """

    scores: NDArray[np.float64]
    converged: bool


def factor_change(
    mean: NDArray[np.floating], tables: PairTables, config: MetricConfig, seed: int, repetition: int = 0
) -> FactorChange:
    """Score the codes at every L of `config.lengths`. All replicas answer the same questions.

    Args:
        mean: (R, n, M) float, the encoders' means.
        tables: from `pair_tables`, over the same n images.
        config: L, B and the classifier.
        seed, repetition: of the pairs; another repetition is another draw (the classifier seeds of A.4).
    """
    # It brings scipy: a worker trains before it scores, and the driver needs the pairs only.
    from bvae_tune.metrics.classifier import SoftmaxProblem, accuracy, fit_adagrad, fit_lbfgs

    replicas, count, size = mean.shape
    side_by_side = np.ascontiguousarray(mean.transpose(1, 0, 2)).reshape(count, replicas * size)
    lengths = config.lengths
    parts = []
    for table, points, purpose in (
        (tables.train, config.train_points, "metric training pairs"),
        (tables.test, config.test_points, "metric test pairs"),
    ):
        y, first, second = draw_pairs(table, points, lengths[-1], generator(seed, purpose, repetition))
        parts.append((y, mean_differences(side_by_side, first, second, lengths).reshape(-1, points, replicas, size)))
    (train_y, train), (test_y, test) = parts
    scores = np.empty((len(lengths), replicas))
    converged = True
    places = list(np.ndindex(scores.shape))
    # Adagrad's steps are too small to fill a core; those of several fits are made at once.
    together = max(1, ADAGRAD_LATENTS // size) if config.classifier == "adagrad" else 1
    with threadpool_limits(1 if size <= ONE_THREAD_LATENTS else None, user_api="blas"):
        for start in range(0, len(places), together):
            some = places[start : start + together]
            scales = [float(train[length, :, r].std(dtype=np.float64)) or 1.0 for length, r in some]
            problems = [
                SoftmaxProblem(train[length, :, r] / scale, train_y, len(tables.factors), config.ridge)
                for (length, r), scale in zip(some, scales, strict=True)
            ]
            if config.classifier == "adagrad":
                fits = fit_adagrad(problems, generator(seed, "adagrad batches", repetition))
            else:
                fits = [fit_lbfgs(problem) for problem in problems]
            for (length, r), scale, fit in zip(some, scales, fits, strict=True):
                scores[length, r] = accuracy(fit, test[length, :, r] / scale, test_y)
                converged &= fit.converged
    return FactorChange(scores, converged)
