"""Arrays from Python as the rows of an image store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from bvae_tune.data.factors import FactorSpace
from bvae_tune.errors import InputError

_COLOURS: Final = (1, 3)
_BLOCK: Final = 4096  # images converted at a time
_MOST_VALUES: Final = 2**15 - 1  # of a factor: its column is int16

Size = tuple[int, int, int]


def pack_images(images: npt.ArrayLike, where: str) -> tuple[npt.NDArray[np.uint8], Size, Literal[1, 8]]:
    """Pack images, one bit a value if all are black or white, else eight.

    Args:
        images: (n, H, W), (n, C, H, W) or (n, H, W, C), C being 1 or 3; bool, or uint8 (black 0, white 255; an array
            of nothing but 0 and 1 is black and white too), or floating-point in [0, 1], of which 256 levels are kept.
        where: what the images are called in errors.

    Returns:
        (n, bytes) uint8, channels first, as in `ImageStore.packed`; (C, H, W); bits a value.

    Raises:
        InputError: another shape or type, no images, a value outside [0, 1] or not finite.
    """
    array = np.asarray(images)
    channels_first = _channels_first(array, where)
    size: Size = channels_first.shape[1:]
    white = _white(channels_first, where)
    if white is None:
        packed = np.empty((len(array), np.prod(size)), np.uint8)
        for part, block in _blocks(channels_first):
            packed[part] = block if block.dtype == np.uint8 else np.rint(block * 255)
        return packed, size, 8
    packed = np.empty((len(array), -(-int(np.prod(size)) // 8)), np.uint8)
    for part, block in _blocks(channels_first):
        packed[part] = np.packbits(block == white, axis=1)
    return packed, size, 1


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
            f"{where}: {_kind(array)}; expected numbers, ({count}, K): per image a row, per factor a column"
        )
    names = tuple(f"factor_{k}" for k in range(array.shape[1])) if names is None else tuple(map(str, names))
    if len(names) != array.shape[1] or len(set(names)) < len(names) or {"", "image"} & set(names):
        raise InputError(
            f"{where}: names {list(names)} for {array.shape[1]} columns; expected as many, all different, none empty or"
            " 'image'"
        )
    unknown = np.isnan(array) if array.dtype.kind == "f" else array == -1
    columns, values = [], []
    for name, column, missing in zip(names, array.T, unknown.T, strict=True):
        levels, numbers = np.unique(column[~missing], return_inverse=True)
        if np.isinf(levels).any() or len(levels) > _MOST_VALUES:
            found = f"{len(levels)} different values from {levels[0]} to {levels[-1]}"
            raise InputError(
                f"{where}, factor {name!r}: {found}; expected at most {_MOST_VALUES}, all finite"
                " (a labels file bins continuous columns)"
            )
        indices = np.full(count, -1, np.int64)
        indices[~missing] = numbers
        columns.append(indices)
        values.append(tuple(levels.astype(float).tolist()))
    return np.stack(columns, axis=1), FactorSpace(names, tuple(values))


def _channels_first(array: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
    """A (n, C, H, W) view."""
    expected = "expected images (n, H, W), (n, C, H, W) or (n, H, W, C) with 1 or 3 channels"
    if 0 in array.shape:
        raise InputError(f"{where}: {_kind(array)}: no images; {expected}")
    if array.ndim == 3:
        return array[:, None]
    if array.ndim != 4:
        raise InputError(f"{where}: {_kind(array)}; {expected}")
    first, last = array.shape[1] in _COLOURS, array.shape[3] in _COLOURS
    if first and last:
        raise InputError(f"{where}: {_kind(array)}: which axis holds the channels? Leave out one of length 1, or pad")
    if not first and not last:
        raise InputError(f"{where}: {_kind(array)}; {expected}")
    return array if first else np.moveaxis(array, 3, 1)


def _white(array: npt.NDArray[Any], where: str) -> int | None:
    """The value that stands for white if there is no other but 0, else None; every value is checked."""
    kind = array.dtype
    if kind == np.bool_:
        return 1
    if kind != np.uint8 and kind.kind != "f":
        raise InputError(f"{where}: {_kind(array)}; expected bool, uint8 (0 to 255) or floating-point in [0, 1]")
    could_be = {1} if kind.kind == "f" else {1, 255}
    for part, block in _blocks(array):
        if kind.kind == "f":
            wrong = ~((block >= 0) & (block <= 1))
            if wrong.any():
                image, pixel = np.argwhere(wrong)[0]
                raise InputError(
                    f"{where}, image {part.start + image}: {block[image, pixel]}; expected values in [0, 1]"
                )
        could_be = {white for white in could_be if ((block == 0) | (block == white)).all()}
        if not could_be and kind == np.uint8:
            return None
    return min(could_be, default=None)


def _blocks(array: npt.NDArray[Any]) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """The images a block at a time, (b, C * H * W)."""
    for start in range(0, len(array), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(array)))
        yield part, array[part].reshape(part.stop - part.start, -1)


def _kind(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
