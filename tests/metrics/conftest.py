"""Factors distributed as those of the 2D shapes, and codes made of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Factors = NDArray[np.int64]

# position_x, position_y, scale, rotation (Sec. 4.2).
SIZES = (32, 32, 6, 40)


@pytest.fixture(scope="session")
def names() -> tuple[str, ...]:
    return ("position_x", "position_y", "scale", "rotation")


@pytest.fixture(scope="session")
def draw_factors() -> Callable[[int, int], Factors]:
    """(images, seed) -> random factors (images, 4) int64."""

    def draw(images: int, seed: int) -> Factors:
        return np.random.default_rng(seed).integers(0, SIZES, size=(images, len(SIZES)))

    return draw


@pytest.fixture(scope="session")
def as_codes() -> Callable[[Factors], NDArray[np.float32]]:
    """Factors (n, K) -> the same scaled to [0, 1], as the codes of one replica (1, n, K) float32."""

    def scale(factors: Factors) -> NDArray[np.float32]:
        return (factors / factors.max(axis=0)).astype(np.float32)[None]

    return scale


@pytest.fixture(scope="session")
def rotation() -> NDArray[np.float32]:
    """The orthogonal matrix (4, 4) of DESIGN's table. Others mix less or more: 48 to 95 at L = 4."""
    matrix, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))
    return matrix.astype(np.float32)
