"""The grid of the factors of variation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class FactorSpace:
    """The grid of K factors; points are numbered by mixed radix, the last factor fastest.

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

    @property
    def varying(self) -> FactorSpace:
        """The same grid without the factors of one value: its points keep their numbers."""
        kept = [(name, column) for name, column in zip(self.names, self.values, strict=True) if len(column) > 1]
        return FactorSpace(tuple(name for name, _ in kept), tuple(column for _, column in kept))

    def factors(self, indices: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """Point numbers (n,) -> value indices (n, K) int64. ValueError outside the grid."""
        return np.stack(np.unravel_index(indices, self.sizes), axis=-1).astype(np.int64)

    def indices(self, factors: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """Value indices (n, K) -> point numbers (n,) int64. ValueError outside the grid."""
        return np.asarray(np.ravel_multi_index(tuple(np.asarray(factors).T), self.sizes), np.int64)
