"""The arrays of an .npz file, images a block at a time: a file whose arrays do not fit into memory can be imported."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from bvae_tune.data.arrays import Packed, layout, pack_blocks, pack_images
from bvae_tune.data.shapes import Progress
from bvae_tune.errors import InputError

# What an .npz file may call its arrays, ours first.
IMAGES: Final = ("images", "imgs")
_FACTORS: Final = ("factors", "latents_classes")
_NAMES: Final = "factor_names"
# dSprites names the columns of latents_classes in its pickled metadata alone, which is never read.
_DSPRITES: Final = ("color", "shape", "scale", "rotation", "position_x", "position_y")
_BLOCK_BYTES: Final = 2**22
_HEADERS: Final = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_BROKEN: Final = (OSError, EOFError, ValueError, TypeError, KeyError, NotImplementedError, RuntimeError, zlib.error)


@dataclass(frozen=True)
class NpzFile:
    """An .npz file with images.

    Attributes:
        path: the file.
        images: name of the array that holds them.
        shape, dtype, fortran_order: of that array.
        factors: (n, K), as the file has them; None where it has none.
        names: of the K factors; None where the file gives none.
    """

    path: Path
    images: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    factors: npt.NDArray[Any] | None
    names: list[str] | None


def look_into(path: Path) -> NpzFile:
    """Read all of an .npz file but its images: `factors` (or `latents_classes`) and `factor_names`, where it has them.

    dSprites' `latents_classes` of six columns get the names that we have for its factors.

    Raises:
        InputError: no .npz file, one without images, or an array that holds objects; images of another shape or type.
    """
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: no .npz file")
    with _plain_arrays(path), zipfile.ZipFile(path) as archive:
        there = [name.removesuffix(".npy") for name in archive.namelist()]
        images = next((key for key in IMAGES if key in there), None)
        if images is None:
            raise InputError(f"{path}: no array named {' or '.join(IMAGES)}; found {', '.join(there)}")
        with archive.open(f"{images}.npy") as stream:
            shape, fortran_order, dtype = _read_header(stream)
        layout(shape, dtype, f"{path}: images")
        key = next((key for key in _FACTORS if key in there), None)
        factors = None if key is None else _read_array(archive, key)
        names = _read_array(archive, _NAMES).astype(str).ravel().tolist() if _NAMES in there else None
    if names is None and key == _FACTORS[1] and factors is not None and factors.shape[1:] == (len(_DSPRITES),):
        names = list(_DSPRITES)
    return NpzFile(path, images, shape, dtype, fortran_order, factors, names)


def pack_npz(file: NpzFile, progress: Progress | None = None) -> Packed:
    """Pack the images of an .npz file; beside the packed rows, 4 MB of them are in memory at a time.

    An array in Fortran's order, where images do not lie one after the other, is read whole.

    Args:
        file: as `look_into` gives it.
        progress: called with (images packed, images in all).

    Returns, raises: as `arrays.pack_images`; InputError for a truncated or damaged file too.
    """
    where = f"{file.path}: images"
    with _plain_arrays(file.path), zipfile.ZipFile(file.path) as archive:
        if file.fortran_order:
            return pack_images(_read_array(archive, file.images), where)
        with archive.open(f"{file.images}.npy") as stream:
            _read_header(stream)
            return pack_blocks(_blocks(stream, file.shape, file.dtype), file.shape, file.dtype, where, progress)


@contextmanager
def _plain_arrays(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (*_BROKEN, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no .npz file of plain arrays ({error})") from None


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, dtype."""
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"an array of format {version}")
    shape, fortran_order, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    return shape, fortran_order, dtype


def _read_array(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    with archive.open(f"{name}.npy") as stream:
        array: npt.NDArray[Any] = npy.read_array(stream, allow_pickle=False)
        return array


def _blocks(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    each = math.prod(shape[1:]) * dtype.itemsize
    most = max(1, _BLOCK_BYTES // each)
    for start in range(0, shape[0], most):
        count = min(most, shape[0] - start)
        content = stream.read(count * each)
        if len(content) < count * each:
            raise EOFError(f"it ends in image {start + len(content) // each}")
        yield np.frombuffer(content, dtype).reshape(count, *shape[1:])
