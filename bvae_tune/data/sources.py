"""Where images and labels come from: the built-in 2D shapes, arrays, image files, tables, image stores."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import platformdirs

from bvae_tune.data.arrays import Packed, factor_columns, pack_images
from bvae_tune.data.factors import FactorSpace
from bvae_tune.data.folders import (
    CELEBA_IMAGES,
    CELEBA_LIST,
    CELEBA_ORIGIN,
    factors_of_names,
    list_celeba,
    list_pictures,
    read_attributes,
)
from bvae_tune.data.image_store import ImageStore, content_fingerprint, open_store, store_lock, write_store
from bvae_tune.data.labels import LabelsConfig, WeakLabels, draw_labels
from bvae_tune.data.labels_file import read_labels
from bvae_tune.data.npz import look_into, pack_npz
from bvae_tune.data.pictures import Framing, pack_pictures
from bvae_tune.data.shapes import RENDERING, Progress, build_shapes
from bvae_tune.data.tables import SUFFIXES, holds_table, pack_table, read_table
from bvae_tune.errors import InputError, RunError

Source = Literal["shapes", "npz", "arrow", "folder", "celeba", "table"]
SOURCES: Final[tuple[str, ...]] = get_args(Source)
_LARGEST: Final = 1024  # pixels of a side; beyond, only a slip of the pen, which would take all memory
_FRAMED: Final = ("folder", "celeba", "table")
# Part of the cache's names: images must never meet a store that was read of them in another way.
_READING: Final = 1
# The faces of img_align_celeba (178 x 218 pixels) are aligned by their eyes. Squares of 148 pixels around the middle,
# as many use, hold hair and chin, and little of the background, which no factor explains.
_CELEBA_CROP: Final = 148 / 178

# What a source needs, for whoever lacks it.
_LAYOUTS: Final[dict[Source, str]] = {
    "npz": "expected an .npz file with the array images (n, H, W) or (n, H, W, C), and where they are known factors "
    "(n, K) and factor_names; dSprites as published, dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz of "
    "https://github.com/google-deepmind/dsprites-dataset, is one",
    "arrow": "expected an image store, as import_arrays writes one",
    "table": f"expected a table ({', '.join(SUFFIXES)}) with the column image, of encoded pictures or of lists of "
    "pixels, and a column of numbers for each factor that is known",
    "folder": "expected a folder of pictures, at any depth; what is known of them stands in their paths "
    "(dataset.pattern) or in a CSV or Parquet file with the column file and one for each factor (labels.path)",
    "celeba": CELEBA_ORIGIN,
}

Known = tuple[npt.NDArray[np.int64] | None, FactorSpace | None]  # of the factors: (n, K) and their values


@dataclass(frozen=True)
class DatasetConfig:
    """Which images to learn from.

    Attributes:
        source: "shapes" (the 2D shapes of Sec. 4.2), "npz", "arrow" (an image store), "folder" (of image files),
            "celeba" (a folder of img_align_celeba/ and list_attr_celeba.txt) or "table" (Parquet, Arrow or Feather).
        path: the file or folder, where the source needs one.
        size: pixels of each side that the images of a folder, celeba or table are brought to: the square in the middle
            is cut out, and scaled. Of celeba, that square has 148 pixels of an image's 178. None: as they are, and all
            of one size.
        channels: 1 or 3, to which these are brought: grey, or colour. None: as they are.
        pattern: a regular expression with a named group for each factor, searched for in the paths of a folder's files:
            `p(?P<elevation>\\d+)_t(?P<azimuth>\\d+)`. None: the files' names say nothing.
        origin: where the images come from, for the message that they are missing.

    Raises:
        InputError: a value outside its range, or a key that the source does not take.
    """

    source: Source = "shapes"
    path: str | None = None
    size: int | None = None
    channels: int | None = None
    pattern: str | None = None
    origin: str | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise InputError(f"dataset.source: {self.source!r} is not one of {', '.join(SOURCES)}")
        for key in ("size", "channels", "pattern"):
            takes = ("folder",) if key == "pattern" else _FRAMED
            if getattr(self, key) is not None and self.source not in takes:
                raise InputError(
                    f"dataset.{key}: {getattr(self, key)!r}; the source {self.source} takes no {key}"
                    f" ({', '.join(takes)} do)"
                )
        if self.size is not None and not 1 <= self.size <= _LARGEST:
            raise InputError(f"dataset.size: {self.size} must be a whole number from 1 to {_LARGEST:,}")
        if self.channels not in (None, 1, 3):
            raise InputError(f"dataset.channels: {self.channels} must be 1 (grey) or 3 (colour)")
        if self.pattern is not None:
            try:
                named = re.compile(self.pattern).groupindex
            except re.error as error:
                raise InputError(f"dataset.pattern: {self.pattern!r} is no regular expression: {error}") from None
            if not named:
                raise InputError(
                    f"dataset.pattern: {self.pattern!r} has no named group; write one for each factor, as in"
                    " (?P<azimuth>[0-9]+)"
                )


def dataset_at(
    place: str, size: int | None = None, channels: int | None = None, pattern: str | None = None
) -> DatasetConfig:
    """The dataset at a place: `shapes`, or a path whose ending or content tells its source.

    An .npz file; a .parquet, .feather or .arrow table; an .arrow image store of ours, known by its metadata; a folder
    with img_align_celeba/ or list_attr_celeba.txt in it is celeba, any other a folder of image files.

    Raises:
        InputError: nothing that images are read from; size, channels and pattern as in `DatasetConfig`.
    """
    return DatasetConfig(_source_of(place), None if place == "shapes" else place, size, channels, pattern)


def _source_of(place: str) -> Source:
    path = Path(place)
    if place == "shapes":
        return "shapes"
    if path.is_dir():
        return "celeba" if (path / CELEBA_IMAGES).is_dir() or (path / CELEBA_LIST).is_file() else "folder"
    match path.suffix.lower():
        case ".npz":
            return "npz"
        case ".arrow":
            return "table" if holds_table(path) else "arrow"
        case suffix if suffix in SUFFIXES:
            return "table"
    raise InputError(
        f"{place}: give shapes, a folder of images that exists, an .npz file, a table ({', '.join(SUFFIXES)}) or an"
        " .arrow store"
    )


def cache_folder() -> Path:
    """Where built and imported stores are kept: BVAE_TUNE_CACHE, or the user's cache folder."""
    chosen = os.environ.get("BVAE_TUNE_CACHE")
    return Path(chosen).absolute() if chosen else Path(platformdirs.user_cache_dir("bvae-tune"))


def open_dataset(config: DatasetConfig, progress: Progress | None = None) -> ImageStore:
    """Open a dataset's store. One that is built or imported is cached, and made anew where missing or damaged.

    An `.npz` file holds `images` (or `imgs`), and may hold `factors` (or `latents_classes`) and `factor_names`; see
    `import_arrays` for what they may be. For tables see `tables.pack_table`, for celeba `folders.list_celeba`. Nothing
    pickled is read.

    A cached store is found by what it was made of: of a file, its content; of a folder, the path, size and time of
    change of every image file in it, which is quick and takes an edited file for a new one. The keys count too.

    Args:
        config: which.
        progress: called with (images done, images in all) while images are drawn or read.

    Raises:
        InputError: a path is missing or not wanted, or what lies there is missing or not what it should be.
        RunError: the cache cannot be written.
    """
    try:
        return _open(config, progress)
    except RunError as error:
        raise RunError(f"{error}; the variable BVAE_TUNE_CACHE names another folder for the cache") from error


def _open(config: DatasetConfig, progress: Progress | None) -> ImageStore:
    if config.source == "shapes":
        if config.path is not None:
            raise InputError(f"dataset.path: {config.path}; the source shapes is built in and has no path")
        drawn = cache_folder() / f"shapes-{RENDERING}.arrow"
        return open_or_make(drawn, lambda: build_shapes(drawn, progress))
    if config.path is None:
        what = "folder" if config.source in ("folder", "celeba") else "file"
        raise InputError(f"dataset.path: missing; the source {config.source} needs a {what}; {_wanted(config)}")
    path = Path(config.path).absolute()
    match config.source:
        case "arrow":
            return open_store(path)
        case "npz":
            return _open_npz(path, config, progress)
        case "folder":
            return _open_folder(path, config, progress)
        case "celeba":
            return _open_celeba(path, config, progress)
        case "table":
            return _open_table(path, config, progress)


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
    if factors is None and factor_names is not None:
        raise InputError(f"{name}: factor_names without factors")
    packed, size, bits = pack_images(images, f"{name}: images")
    known = _number(None if factors is None else np.asarray(factors), factor_names, len(packed), name)
    if path is not None:
        return _write(Path(path), name, (packed, size, bits), known)
    numbers, space = known
    cached = _cache_file(name, content_fingerprint(packed, size, bits, numbers, space or FactorSpace((), ())))
    return open_or_make(cached, lambda: _write(cached, name, (packed, size, bits), known))


def _open_npz(path: Path, config: DatasetConfig, progress: Progress | None) -> ImageStore:
    cached = _cache_file(path.stem, _key(_content_of(path, config)))
    store = _open_if_whole(cached)
    if store is not None:
        return store
    file = look_into(path)
    if file.names is not None and file.factors is None:
        raise InputError(f"{path}: factor_names without factors")
    known = _number(file.factors, file.names, file.shape[0], path.stem)
    return open_or_make(cached, lambda: _write(cached, path.stem, pack_npz(file, progress), known))


def _open_folder(path: Path, config: DatasetConfig, progress: Progress | None) -> ImageStore:
    listing = list_pictures(path, _wanted(config))
    cached = _cache_file(path.name, _key(listing.fingerprint, config.size, config.channels, config.pattern))
    store = _open_if_whole(cached)
    if store is not None:
        return store
    factors, names = None, None
    if config.pattern is not None:
        factors, names = factors_of_names(listing.files, config.pattern, path)
    known = _number(factors, names, len(listing.files), "dataset.pattern")
    framing = Framing(config.size, config.channels)
    return open_or_make(cached, lambda: _read(cached, path, path, listing.files, framing, known, progress))


def _open_celeba(path: Path, config: DatasetConfig, progress: Progress | None) -> ImageStore:
    listing = list_celeba(path)
    cached = _cache_file(path.name, _key(listing.fingerprint, config.size, config.channels, _CELEBA_CROP))
    store = _open_if_whole(cached)
    if store is not None:
        return store
    found = read_attributes(path, listing)
    known = _number(found.factors, found.names, len(found.files), str(path / CELEBA_LIST))
    framing = Framing(config.size, config.channels, _CELEBA_CROP)
    return open_or_make(cached, lambda: _read(cached, path, listing.folder, found.files, framing, known, progress))


def _open_table(path: Path, config: DatasetConfig, progress: Progress | None) -> ImageStore:
    cached = _cache_file(path.stem, _key(_content_of(path, config), config.size, config.channels))
    store = _open_if_whole(cached)
    if store is not None:
        return store
    table = read_table(path)
    known = _number(table.factors, table.names, table.count, str(path))
    framing = Framing(config.size, config.channels)
    return open_or_make(cached, lambda: _write(cached, path.stem, pack_table(table, framing, progress), known))


def _number(factors: npt.NDArray[Any] | None, names: Sequence[str] | None, count: int, where: str) -> Known:
    return (None, None) if factors is None else factor_columns(factors, names, count, f"{where}: factors")


def _read(
    target: Path,
    path: Path,
    folder: Path,
    files: Sequence[str],
    framing: Framing,
    known: Known,
    progress: Progress | None,
) -> ImageStore:
    """Make the store of a dataset at `path` whose image files are in `folder`."""
    pictures = ((str(folder / file), folder / file) for file in files)
    packed = pack_pictures(pictures, len(files), framing, str(path), progress)
    return _write(target, path.name, packed, known, files)


def _write(target: Path, name: str, images: Packed, known: Known, files: Sequence[str] = ()) -> ImageStore:
    (packed, size, bits), (factors, space) = images, known
    return write_store(
        target, packed, name=name, size=size, bits=bits, factors=factors, factor_space=space, files=files
    )


def _wanted(config: DatasetConfig) -> str:
    """Where the images come from or what they must look like, for whoever lacks them."""
    return config.origin or _LAYOUTS[config.source]


def _content_of(path: Path, config: DatasetConfig) -> str:
    """Hexadecimal SHA-256 of a dataset's file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        hint = f"; {_wanted(config)}" if isinstance(error, FileNotFoundError) else ""
        raise InputError(f"dataset.path: {path}: cannot be read ({error.strerror}){hint}") from None


def _key(*parts: object) -> str:
    """Hexadecimal digest of what a store is made of."""
    return hashlib.sha256(json.dumps([_READING, *parts]).encode()).hexdigest()


def _cache_file(name: str, content: str) -> Path:
    return cache_folder() / f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-') or 'images'}-{content[:16]}.arrow"


def open_or_make(path: Path, make: Callable[[], ImageStore]) -> ImageStore:
    """Open the cached store; where it is missing, damaged or of an older format, the first to come makes it."""
    store = _open_if_whole(path)
    if store is None:
        with store_lock(path):
            store = _open_if_whole(path) or make()
    return store


def _open_if_whole(path: Path) -> ImageStore | None:
    try:
        return open_store(path)
    except InputError:
        return None
