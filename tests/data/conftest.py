from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bvae_tune.data import ImageStore
from bvae_tune.data.image_store import write_store
from bvae_tune.data.shapes import SPACE, build_shapes


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ImageStore, float, list[tuple[int, int]]]]:
    """The full set of 2D shapes, drawn once for the folder: the store, the processor's seconds, the progress."""
    progress: list[tuple[int, int]] = []
    start = time.process_time()
    store = build_shapes(tmp_path_factory.mktemp("shapes") / "shapes.arrow", lambda *done: progress.append(done))
    yield store, time.process_time() - start, progress
    store.path.unlink()  # pytest keeps the folders of its last runs: not 385 MB each


@pytest.fixture(scope="session")
def shapes(build: tuple[ImageStore, float, list[tuple[int, int]]]) -> ImageStore:
    return build[0]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the test's own."""
    monkeypatch.setenv("BVAE_TUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """600 images of 2 x 4 random bits (seed 0) that pretend to have the shapes' factors, every third one unknown."""
    rng = np.random.default_rng(0)
    factors = SPACE.factors(rng.choice(SPACE.count, 600, replace=False))
    factors[::3, 1] = -1
    factors[::100] = -1
    return write_store(
        tmp_path_factory.mktemp("small") / "small.arrow",
        rng.integers(0, 256, (600, 1), dtype=np.uint8),
        name="small",
        size=(1, 2, 4),
        bits=1,
        factors=factors,
        factor_space=SPACE,
    )
