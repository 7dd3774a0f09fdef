"""Arrays from Python as the rows of an image store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import psutil

from bvae_tune.data.factors import FactorSpace
from bvae_tune.data.shapes import Progress
from bvae_tune.errors import InputError

_COLOURS: Final = (1, 3)
_BLOCK: Final = 4096  # images converted at a time
MOST_VALUES: Final = 2**15 - 1  # of a factor: its column is int16
_RESERVED: Final = ("image", "file")  # columns of a store that hold no factor

Size = tuple[int, int, int]
Packed = tuple[npt.NDArray[np.uint8], Size, Literal[1, 8]]  # (n, bytes), (C, H, W), bits a value


def pack_images(images: npt.ArrayLike, where: str) -> Packed:
    """Pack images, one bit a value if all are black or white, else eight.

    Args:
        images: (n, H, W), (n, C, H, W) or (n, H, W, C), C being 1 or 3; bool, or uint8 (black 0, white 255; an array
            of nothing but 0 and 1 is black and white too), or floating-point in [0, 1], of which 256 levels are kept.
        where: what the images are called in errors.

    Returns:
        (n, bytes) uint8, channels first, as in `ImageStore.packed`; (C, H, W); bits a value.

    Raises:
        InputError: another shape or type, no images, a value outside [0, 1] or not finite, or too little memory.
    """
    array = np.asarray(images)
    return pack_blocks(_blocks(array), array.shape, array.dtype, where)


def pack_blocks(
    blocks: Iterable[npt.NDArray[Any]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    where: str,
    progress: Progress | None = None,
) -> Packed:
    """Pack images that come some at a time, so that no more than these and the packed rows are in memory.

    Args:
        blocks: all images in order, (b, ...), b of any size.
        shape, dtype: of the whole array, see `pack_images` for what they may be.
        where: what the images are called in errors.
        progress: called with (images packed, images in all), where they do not come all at once.

    Returns, raises: as `pack_images`.
    """
    size, channels_last, whites = layout(shape, dtype, where)
    rows = Rows(shape[0], size, whites, where)
    for block in blocks:
        pixels = (np.moveaxis(block, 3, 1) if channels_last else block).reshape(len(block), -1)
        if dtype.kind == "f":
            _check_range(pixels, rows.done, where)
        rows.add(pixels)
        if progress is not None and len(block) < shape[0]:
            progress(rows.done, shape[0])
    return rows.packed()


class Rows:
    """The rows of an image store, filled in order: one bit a value as long as all are black or white.

    When the first grey value comes, the rows so far are widened to eight bits.

    Attributes:
        done: images filled in.
    """

    def __init__(self, count: int, size: Size, whites: Iterable[int], where: str) -> None:
        """Make room for `count` images of `size`.

        Args:
            count: images in all.
            size: (C, H, W).
            whites: values that may stand for white; only one of them may occur in one set of images.
            where: what the images are called in errors.

        Raises:
            InputError: the rows would not fit into the memory that is free.
        """
        self.done = 0
        self._count, self._size, self._where = count, size, where
        self._dimensions = int(np.prod(size))
        self._whites = frozenset(whites)
        self._bits: Literal[1, 8] = 1
        self._rows = self._room(-(-self._dimensions // 8))

    def add(self, block: npt.NDArray[Any]) -> None:
        """Fill in the next images, (b, C * H * W), bool, uint8, or floating-point in [0, 1]."""
        part = slice(self.done, self.done + len(block))
        if self._bits == 1:
            whites = frozenset(white for white in self._whites if ((block == 0) | (block == white)).all())
            if whites:
                self._whites = whites
                self._rows[part] = np.packbits(block != 0, axis=1)
            else:
                self._widen(white=min(self._whites) if block.dtype == np.uint8 else 255)
        if self._bits == 8:
            self._rows[part] = block if block.dtype == np.uint8 else np.rint(block * 255)
        self.done = part.stop

    def packed(self) -> Packed:
        """All rows, (C, H, W), and bits a value."""
        return self._rows, self._size, self._bits

    def _widen(self, white: int) -> None:
        narrow, self._rows, self._bits = self._rows, self._room(self._dimensions), 8
        for start in range(0, self.done, _BLOCK):
            part = slice(start, min(start + _BLOCK, self.done))
            pixels = np.unpackbits(narrow[part], axis=1, count=self._dimensions)
            np.multiply(pixels, np.uint8(white), out=self._rows[part])

    def _room(self, width: int) -> npt.NDArray[np.uint8]:
        needed, free = self._count * width, psutil.virtual_memory().available
        if needed > free:
            channels, height, width = self._size
            raise InputError(
                f"{self._where}: {self._count} images of {channels} x {height} x {width} take {needed / 1e9:.1f} GB of"
                f" memory, and {free / 1e9:.1f} are free; give fewer or smaller ones (of image files: dataset.size,"
                " in pixels)"
            )
        return np.empty((self._count, width), np.uint8)


def factor_columns(
    factors: npt.ArrayLike, names: Sequence[str] | None, count: int, where: str
) -> tuple[npt.NDArray[np.int64], FactorSpace]:
    """Number the values of each factor.

    Args:
        factors: (n, K) numbers; unknown: NaN, or -1 in an array of integers.
        names: K names; None for factor_0, factor_1, ...
        count: n, the number of images.
        where: what the factors are called in errors.

    Returns:
        (n, K) int64, each column's values numbered in ascending order, -1 where unknown; names and values.

    Raises:
        InputError: not n rows of numbers, names that do not fit or are not all different, an infinite value, or more
            than 32,767 different values of one factor.
    """
    array = np.asarray(factors)
    if array.ndim != 2 or len(array) != count or not array.shape[1] or array.dtype.kind not in "biuf":
        raise InputError(
            f"{where}: {array.dtype} {array.shape}; expected numbers, ({count}, K): a row per image, a column for each"
            " factor"
        )
    names = tuple(f"factor_{k}" for k in range(array.shape[1])) if names is None else tuple(map(str, names))
    if len(names) != array.shape[1] or len(set(names)) < len(names) or {"", *_RESERVED} & set(names):
        raise InputError(
            f"{where}: names {list(names)} for {array.shape[1]} columns; expected as many, all different, none empty,"
            f" {' or '.join(map(repr, _RESERVED))}"
        )
    unknown = np.isnan(array) if array.dtype.kind == "f" else array == -1
    columns, values = [], []
    for name, column, missing in zip(names, array.T, unknown.T, strict=True):
        levels, numbers = np.unique(column[~missing], return_inverse=True)
        if np.isinf(levels).any() or len(levels) > MOST_VALUES:
            found = f"{len(levels)} different values from {levels[0]} to {levels[-1]}"
            raise InputError(
                f"{where}, factor {name!r}: {found}; expected at most {MOST_VALUES}, all finite"
                " (leave out what numbers the images; a labels file bins continuous columns)"
            )
        indices = np.full(count, -1, np.int64)
        indices[~missing] = numbers
        columns.append(indices)
        values.append(tuple(levels.astype(float).tolist()))
    return np.stack(columns, axis=1), FactorSpace(names, tuple(values))


def layout(shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> tuple[Size, bool, tuple[int, ...]]:
    """How an array holds images: (C, H, W), whether the channels come last, and the values that may stand for white.

    Raises:
        InputError: see `pack_images`.
    """
    expected = "expected images (n, H, W), (n, C, H, W) or (n, H, W, C) with 1 or 3 channels"
    kind = f"{dtype} {shape}"
    if 0 in shape:
        raise InputError(f"{where}: {kind}: no images; {expected}")
    if len(shape) not in (3, 4):
        raise InputError(f"{where}: {kind}; {expected}")
    inner = shape[1:]
    first, last = inner[0] in _COLOURS, inner[-1] in _COLOURS
    if len(inner) == 2:
        size, last = (1, inner[0], inner[1]), False
    elif first and last:
        raise InputError(f"{where}: {kind}: which axis holds the channels? Leave out one of length 1, or pad")
    elif first:
        size = (inner[0], inner[1], inner[2])
    elif last:
        size = (inner[2], inner[0], inner[1])
    else:
        raise InputError(f"{where}: {kind}; {expected}")
    if dtype == np.uint8:
        return size, last, (1, 255)
    if dtype == np.bool_ or dtype.kind == "f":
        return size, last, (1,)
    raise InputError(f"{where}: {kind}; expected bool, uint8 (0 to 255) or floating-point in [0, 1]")


def _check_range(pixels: npt.NDArray[Any], start: int, where: str) -> None:
    """Raises InputError for a value outside [0, 1]; `start` is the number of the first image."""
    wrong = ~((pixels >= 0) & (pixels <= 1))
    if wrong.any():
        image, pixel = np.argwhere(wrong)[0]
        raise InputError(f"{where}, image {start + image}: {pixels[image, pixel]}; expected values in [0, 1]")


def _blocks(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """The images a block at a time."""
    for start in range(0, len(array), _BLOCK):
        yield array[start : start + _BLOCK]
