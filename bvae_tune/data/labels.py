"""Weak labels: some images, with what is known of their factors; drawn from a dataset that knows them all."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bvae_tune.data.image_store import ImageStore
from bvae_tune.errors import InputError
from bvae_tune.randomness import generator


@dataclass(frozen=True)
class LabelsConfig:
    """Which images are labelled, with which factors.

    Attributes:
        count: how many labelled images to draw, from the dataset or from the file; None for all.
        factors: names of the factors to use; None for all that vary.
        seed: of the draw.
        path: a Parquet or CSV file of labels (see `read_labels`); None to draw from a dataset that knows its factors.
        bins: into how many quantile bins a continuous column of the file is cut.

    Raises:
        InputError: a value outside its range.
    """

    count: int | None = None
    factors: tuple[str, ...] | None = None
    seed: int = 0
    path: str | None = None
    bins: int = 10

    def __post_init__(self) -> None:
        for key, least in (("seed", 0), ("bins", 2)):
            if getattr(self, key) < least:
                raise InputError(f"labels.{key}: {getattr(self, key)} must be at least {least}")


@dataclass(frozen=True)
class WeakLabels:
    """Some images with what is known of their factors.

    Attributes:
        names: K names.
        indices: (n,) int64, different images of a store, in random order.
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
    """Labels for a random subset of a store that knows its factors.

    With the same seed, more labels are the fewer ones and some more.

    Raises:
        InputError: the store knows no factors, or not the one asked for; more labels asked for than it has images
            with a known factor; a count below 1.
    """
    if not store.factor_names:
        raise InputError(
            f"labels: {store.name} ({store.path}) knows no factors to draw labels from;"
            " give labels.path, a Parquet or CSV file with a column index (or file) and one column per factor"
        )
    names = config.factors
    if names is None:
        names = tuple(n for n, column in zip(store.factor_names, store.columns, strict=True) if _varies(column))
        if not names:
            raise InputError(f"labels: no factor of {store.name} takes more than one value")
    positions = columns_of(names, store.factor_names, f"of {store.name}")
    known = np.logical_or.reduce([store.columns[position] >= 0 for position in positions])
    usable = np.flatnonzero(known)
    chosen = usable[subset(config, len(usable), f"images of {store.name} with a known factor")]
    return WeakLabels(names, chosen, store.factors(chosen)[:, positions])


def _varies(column: npt.NDArray[np.int16]) -> bool:
    known = column[column >= 0]
    return len(known) > 0 and bool(known.min() < known.max())


def subset(config: LabelsConfig, available: int, what: str) -> npt.NDArray[np.int64]:
    """`config.count` of `available` things, (count,) int64, in random order; `what` they are, for the error."""
    if config.count is not None and not 1 <= config.count <= available:
        raise InputError(f"labels.count: {config.count}; there are {available} {what}")
    return generator(config.seed, "labels").permutation(available)[: config.count]


def columns_of(names: Sequence[str], known: Sequence[str], where: str) -> list[int]:
    """The position of each name of `labels.factors` among the names known `where`."""
    if len(set(names)) < len(names) or not names:
        raise InputError(f"labels.factors: {list(names)}; name each factor once, and at least one")
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise InputError(f"labels.factors: no factor {name!r} among those {where}: {', '.join(known)}{hint}")
    return [list(known).index(name) for name in names]
