"""Where images come from: the built-in 2D shapes, arrays from Python, .npz files, image stores."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from bvae_tune.data.image_store import DamagedStoreError, ImageStore, open_store, store_lock
from bvae_tune.data.shapes import RENDERING, Progress, build_shapes
from bvae_tune.errors import InputError


@dataclass(frozen=True)
class DatasetConfig:
    """Which images to learn from.

    Attributes:
        source: "shapes" (2D shapes of Sec. 4.2), "npz" or "arrow" (an image store).
        path: the file, where the source needs one.
    """

    source: Literal["shapes", "npz", "arrow"] = "shapes"
    path: str | None = None


def cache_folder() -> Path:
    """Where built and imported stores are kept: BVAE_TUNE_CACHE, or the user's cache folder."""
    chosen = os.environ.get("BVAE_TUNE_CACHE")
    return Path(chosen).absolute() if chosen else Path(platformdirs.user_cache_dir("bvae-tune"))


def open_dataset(config: DatasetConfig, progress: Progress | None = None) -> ImageStore:
    """Open a dataset's store, building it first where it is missing or damaged.

    Args:
        config: which.
        progress: called with (images done, images in all) while building.

    Raises:
        InputError: the source needs a path, or its file is missing or not what it should be.
        RunError: the cache cannot be written.
    """
    if config.source == "arrow":
        if config.path is None:
            raise InputError("dataset.path: source arrow needs the path of an image store")
        return open_store(config.path)
    path = cache_folder() / f"shapes-{RENDERING}.arrow"
    try:
        return open_store(path)
    except InputError:
        path.parent.mkdir(parents=True, exist_ok=True)
    with store_lock(path):
        try:
            return open_store(path)
        except (DamagedStoreError, InputError):
            return build_shapes(path, progress)
