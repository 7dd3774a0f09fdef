"""Factors of variation: their grid, and the weak labels that name their values for some of the images."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bvae_tune.errors import InputError
from bvae_tune.randomness import generator

if TYPE_CHECKING:
    from bvae_tune.data.image_store import ImageStore


@dataclass(frozen=True)
class FactorSpace:
    """The grid of K factors; point number i by mixed radix, the last factor fastest.

    Attributes:
        names: K names.
        values: per factor its values, in order.
    """

    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of each factor."""
        return tuple(len(column) for column in self.values)

    @property
    def count(self) -> int:
        """Number of points of the grid."""
        return math.prod(self.sizes)

    def factors(self, indices: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """(n,) point numbers -> (n, K) int64 value indices. ValueError outside the grid."""
        return np.stack(np.unravel_index(indices, self.sizes), axis=-1).astype(np.int64)

    def indices(self, factors: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """(n, K) value indices -> (n,) int64 point numbers. ValueError outside the grid."""
        return np.asarray(np.ravel_multi_index(tuple(np.asarray(factors).T), self.sizes), np.int64)


@dataclass(frozen=True)
class LabelsConfig:
    """Which images are labelled with which factors.

    Attributes:
        count: how many labelled images to draw; None for all.
        factors: names of the factors to use; None for all that vary.
        seed: of the draw.
        path: a Parquet or CSV file of labels; None to draw from a dataset that knows its factors.
        bins: into how many quantile bins a continuous column of the file is cut.
    """

    count: int | None = None
    factors: tuple[str, ...] | None = None
    seed: int = 0
    path: str | None = None
    bins: int = 10


@dataclass(frozen=True)
class WeakLabels:
    """Some images with what is known of their factors.

    Attributes:
        names: K names.
        indices: (n,) int64, different images of a store.
        factors: (n, K) int64 value indices, -1 where unknown.
    """

    names: tuple[str, ...]
    indices: npt.NDArray[np.int64]
    factors: npt.NDArray[np.int64]

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of names, indices and factors."""
        digest = hashlib.sha256(json.dumps(self.names).encode())
        digest.update(np.ascontiguousarray(self.indices).data)
        digest.update(np.ascontiguousarray(self.factors).data)
        return digest.hexdigest()


def draw_labels(store: ImageStore, config: LabelsConfig) -> WeakLabels:
    """Labels for a random subset of a store that knows its factors; a larger `count` with the same seed adds to it.

    Raises:
        InputError: the store knows no factors, an unknown factor, more labels than images.
    """
    names = config.factors or store.factor_names
    positions = [store.factor_names.index(name) for name in names]
    if config.count is not None and config.count > store.count:
        raise InputError(f"labels.count: {config.count} is more than the {store.count} images of {store.name}")
    chosen = generator(config.seed, "labels").permutation(store.count)[: config.count]
    return WeakLabels(tuple(names), chosen, store.factors(chosen)[:, positions])
