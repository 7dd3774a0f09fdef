from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.sources import import_arrays


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """500 binary 64x64 images of one rectangle each (seed 0)."""
    folder: Path = tmp_path_factory.mktemp("images")
    numbers = np.random.default_rng(0)
    images = np.zeros((500, 64, 64), np.uint8)
    for image, (top, left, height, width) in zip(images, numbers.integers(6, 30, size=(500, 4)), strict=True):
        image[top : top + height, left : left + width] = 1
    return import_arrays(images, name="rectangles", path=folder / "rectangles.arrow")
