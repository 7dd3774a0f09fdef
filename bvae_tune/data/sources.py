"""Where images and labels come from: the built-in 2D shapes, arrays from Python, .npz files, image stores."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import platformdirs

from bvae_tune.data.arrays import factor_columns, pack_images
from bvae_tune.data.factors import FactorSpace
from bvae_tune.data.image_store import ImageStore, content_fingerprint, open_store, store_lock, write_store
from bvae_tune.data.labels import LabelsConfig, WeakLabels, draw_labels
from bvae_tune.data.labels_file import read_labels
from bvae_tune.data.shapes import RENDERING, Progress, build_shapes
from bvae_tune.errors import InputError

# What an .npz file may call its arrays, ours first.
_KEYS: Final = {
    "images": ("images", "imgs"),
    "factors": ("factors", "latents_classes"),
    "factor_names": ("factor_names",),
}


@dataclass(frozen=True)
class DatasetConfig:
    """Which images to learn from.

    Attributes:
        source: "shapes" (the 2D shapes of Sec. 4.2), "npz" or "arrow" (an image store).
        path: the file, where the source needs one.
    """

    source: Literal["shapes", "npz", "arrow"] = "shapes"
    path: str | None = None


def cache_folder() -> Path:
    """Where built and imported stores are kept: BVAE_TUNE_CACHE, or the user's cache folder."""
    chosen = os.environ.get("BVAE_TUNE_CACHE")
    return Path(chosen).absolute() if chosen else Path(platformdirs.user_cache_dir("bvae-tune"))


def open_dataset(config: DatasetConfig, progress: Progress | None = None) -> ImageStore:
    """Open a dataset's store. One that is built or imported is cached, and made anew where missing or damaged.

    An `.npz` file holds `images` (or `imgs`), and may hold `factors` (or `latents_classes`) and `factor_names`; see
    `import_arrays` for what they may be. Nothing pickled is read.

    Args:
        config: which.
        progress: called with (images done, images in all) while 2D shapes are drawn.

    Raises:
        InputError: a path is missing or not wanted, or its file is missing or not what it should be.
        RunError: the cache cannot be written.
    """
    if config.source == "shapes":
        if config.path is not None:
            raise InputError(f"dataset.path: {config.path}; the source shapes is built in and has no path")
        path = cache_folder() / f"shapes-{RENDERING}.arrow"
        return open_or_make(path, lambda: build_shapes(path, progress))
    if config.path is None:
        raise InputError(f"dataset.path: missing; the source {config.source} needs a file")
    if config.source == "arrow":
        return open_store(config.path)
    if config.source == "npz":
        return _open_npz(Path(config.path).absolute())
    raise InputError(f"dataset.source: {config.source!r}; expected shapes, npz or arrow")


def load_labels(config: LabelsConfig, store: ImageStore) -> WeakLabels:
    """The labels that the configuration asks for: from its file if it names one, else drawn from the store.

    Raises:
        InputError: see `read_labels` and `draw_labels`.
    """
    return draw_labels(store, config) if config.path is None else read_labels(config.path, store, config)


def import_arrays(
    images: npt.ArrayLike,
    *,
    name: str = "arrays",
    factors: npt.ArrayLike | None = None,
    factor_names: Sequence[str] | None = None,
    path: str | Path | None = None,
) -> ImageStore:
    """Make an image store of arrays, or open the one that was made of the same arrays before.

    Args:
        images: (n, H, W), (n, C, H, W) or (n, H, W, C) with 1 or 3 channels; bool, uint8, or floating-point in [0, 1]
            (of which 256 levels are kept). Where all are black or white, one bit a value is stored, else eight.
        name: what the images are, for people.
        factors: (n, K) numbers if known: the distinct values of each column become its indices; unknown: NaN, or -1
            in an array of integers.
        factor_names: K names; None for factor_0, factor_1, ...
        path: the store's file; None for one in the cache named by its content.

    Raises:
        InputError: arrays of another shape or type or with other values; the message says which.
        RunError: the store cannot be written.
    """
    packed, size, bits = pack_images(images, f"{name}: images")
    numbers, space = None, None
    if factors is not None:
        numbers, space = factor_columns(factors, factor_names, len(packed), f"{name}: factors")
    elif factor_names is not None:
        raise InputError(f"{name}: factor_names without factors")

    def write(target: Path) -> ImageStore:
        return write_store(target, packed, name=name, size=size, bits=bits, factors=numbers, factor_space=space)

    if path is not None:
        return write(Path(path))
    cached = _cache_file(name, content_fingerprint(packed, size, bits, numbers, space or FactorSpace((), ())))
    return open_or_make(cached, lambda: write(cached))


def _open_npz(path: Path) -> ImageStore:
    try:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"dataset.path: {path}: cannot be read ({error.strerror})") from None
    cached = _cache_file(path.stem, content)

    def convert() -> ImageStore:
        arrays = _load_npz(path)
        names = arrays.get("factor_names")
        return import_arrays(
            arrays["images"],
            name=path.stem,
            factors=arrays.get("factors"),
            factor_names=None if names is None else names.astype(str).ravel().tolist(),
            path=cached,
        )

    return open_or_make(cached, convert)


def _load_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of the file by `import_arrays`' names."""
    found: dict[str, npt.NDArray[Any]] = {}
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: no .npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            known = ", ".join(file)
            for name, keys in _KEYS.items():
                key = next((key for key in keys if key in file), None)
                if key is not None:
                    found[name] = file[key]
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: no .npz file of plain arrays ({error})") from None
    if "images" not in found:
        raise InputError(f"{path}: no array named {' or '.join(_KEYS['images'])}; found {known}")
    return found


def _cache_file(name: str, content: str) -> Path:
    return cache_folder() / f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-') or 'images'}-{content[:16]}.arrow"


def open_or_make(path: Path, make: Callable[[], ImageStore]) -> ImageStore:
    """Open the cached store; where it is missing, damaged or of an older format, the first to come makes it."""
    try:
        return open_store(path)
    except InputError:
        pass
    with store_lock(path):
        try:
            return open_store(path)
        except InputError:
            return make()
