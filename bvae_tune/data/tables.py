"""Tables (Parquet, Arrow, Feather) with a column of images, and factors beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from bvae_tune.data.arrays import MOST_VALUES, Packed, pack_blocks
from bvae_tune.data.image_store import STORE
from bvae_tune.data.pictures import Framing, Picture, pack_pictures
from bvae_tune.data.shapes import Progress
from bvae_tune.errors import InputError

IMAGE: Final = "image"
SUFFIXES: Final = (".parquet", ".arrow", ".feather")
_ROWS: Final = 256  # read at a time


@dataclass(frozen=True)
class ImageTable:
    """A table with images.

    Attributes:
        path: the file.
        count: rows.
        kind: Arrow's type of the column `image`.
        factors: (count, K) float64, NaN where unknown; None for K = 0.
        names: of the K factors.
    """

    path: Path
    count: int
    kind: pa.DataType
    factors: npt.NDArray[np.float64] | None
    names: list[str]


def read_table(path: Path) -> ImageTable:
    """Read all of a table but its images: every column of numbers or truth values is a factor.

    Other columns, of texts say, are not looked at, nor one that numbers the images: whole numbers, all different, and
    more of them than a factor can have values. An empty cell, or NaN, is an unknown value.

    Args:
        path: a Parquet file, or an Arrow (Feather) file or stream.

    Raises:
        InputError: no such table, or one without rows or without a column `image`.
    """
    with _readable(path):
        schema = _schema(path)
        if IMAGE not in schema.names:
            raise InputError(f"{path}: no column {IMAGE!r}; found {', '.join(schema.names)}")
        names = [field.name for field in schema if field.name != IMAGE and _is_number(field.type)]
        if len({IMAGE, *names}) < len([name for name in schema.names if name in {IMAGE, *names}]):
            raise InputError(f"{path}: two columns of one name among {', '.join(schema.names)}")
        count = _count(path)
        parts = [_factors(batch, names) for batch in _batches(path, names)] if names else []
    if not count:
        raise InputError(f"{path}: no rows")
    columns = dict(zip(names, np.concatenate(parts).T, strict=True)) if parts else {}
    factors = {name: column for name, column in columns.items() if not _numbers_images(column)}
    values = np.stack(list(factors.values()), axis=1) if factors else None
    return ImageTable(path, count, schema.field(IMAGE).type, values, list(factors))


def pack_table(table: ImageTable, framing: Framing, progress: Progress | None = None) -> Packed:
    """Pack the images of a table, some hundred rows at a time.

    The column `image` holds image files (binary, or a struct with a binary field `bytes`, as Hugging Face's datasets
    have it), or pixels: a list of uint8, row by row, in each row pixel by pixel, of each pixel its channels. Pixels do
    not say what size they have; `framing.size` does, and they are not scaled.

    Args:
        table: as `read_table` gives it.
        framing: what the images are brought to.
        progress: called with (images packed, images in all).

    Returns, raises: as `pictures.pack_pictures`; InputError for a column of another type, an empty cell, and pixels
        whose number does not fit.
    """
    kind = table.kind
    with _readable(table.path):
        if _is_binary(kind) or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
            return pack_pictures(_pictures(table), table.count, framing, str(table.path), progress)
        if not _is_pixels(kind):
            raise InputError(
                f"{table.path}, column {IMAGE!r}: {kind}; expected image files (binary, or a struct with a field"
                " 'bytes'), or pixels (a list of uint8)"
            )
        shape = _pixel_shape(table, framing)
        return pack_blocks(_pixels(table, shape), shape, np.dtype(np.uint8), str(table.path), progress)


def holds_table(path: Path) -> bool:
    """Whether an Arrow file holds a table like these, and no image store of ours."""
    try:
        return path.is_file() and STORE not in (_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _numbers_images(column: npt.NDArray[np.float64]) -> bool:
    if len(column) <= MOST_VALUES or not np.isfinite(column).all():
        return False
    return bool((column % 1 == 0).all()) and len(np.unique(column)) == len(column)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_pixels(kind: pa.DataType) -> bool:
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and pa.types.is_uint8(kind.value_type))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: no readable table ({error}); expected {', '.join(SUFFIXES)}") from None


def _open(path: Path) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    """An Arrow file, or the stream that Hugging Face's datasets keep under the same ending."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except pa.ArrowInvalid:
        return pa.ipc.open_stream(pa.memory_map(str(path)))


def _schema(path: Path) -> pa.Schema:
    return pa.parquet.read_schema(path) if path.suffix.lower() == ".parquet" else _open(path).schema


def _arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    reader = _open(path)
    if isinstance(reader, pa.RecordBatchFileReader):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _batches(path: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of some columns, in order, some hundreds at a time."""
    if path.suffix.lower() == ".parquet":
        with pa.parquet.ParquetFile(path) as file:
            yield from file.iter_batches(_ROWS, columns=columns)
        return
    for batch in _arrow_batches(path):
        chosen = batch.select(columns)
        for start in range(0, chosen.num_rows, _ROWS):
            yield chosen.slice(start, _ROWS)


def _count(path: Path) -> int:
    if path.suffix.lower() == ".parquet":
        return int(pa.parquet.read_metadata(path).num_rows)
    return sum(batch.num_rows for batch in _arrow_batches(path))


def _factors(batch: pa.RecordBatch, names: list[str]) -> npt.NDArray[np.float64]:
    """(b, K), NaN where empty."""
    return np.stack([_numbers(batch.column(name)) for name in names], axis=1)


def _numbers(column: pa.Array) -> npt.NDArray[np.float64]:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return np.array(column.cast(pa.float64(), safe=False).to_pylist(), np.float64)


def _pictures(table: ImageTable) -> Iterator[Picture]:
    row = 0
    for batch in _batches(table.path, [IMAGE]):
        column = batch.column(IMAGE)
        for content in (column if _is_binary(table.kind) else column.field("bytes")).to_pylist():
            row += 1
            if not isinstance(content, bytes):
                raise InputError(f"{table.path}, row {row}, column {IMAGE!r}: empty; expected an image file's bytes")
            yield f"{table.path}, row {row}", content


def _pixel_shape(table: ImageTable, framing: Framing) -> tuple[int, int, int, int]:
    """(n, H, W, C), from the size that is given and the length of the first list."""
    if framing.size is None:
        raise InputError(
            f"{table.path}, column {IMAGE!r}: {table.kind}; give dataset.size, the height and width of these pixels"
        )
    found = next(_batches(table.path, [IMAGE])).column(IMAGE).value_lengths()[0].as_py()
    channels = framing.channels or (3 if found == 3 * framing.size**2 else 1)
    return table.count, framing.size, framing.size, channels


def _pixels(table: ImageTable, shape: tuple[int, int, int, int]) -> Iterator[npt.NDArray[np.uint8]]:
    """(b, H, W, C)."""
    each, row = shape[1] * shape[2] * shape[3], 0
    for batch in _batches(table.path, [IMAGE]):
        column = batch.column(IMAGE)
        for length in column.value_lengths().to_pylist():
            row += 1
            if length != each:
                raise InputError(
                    f"{table.path}, row {row}, column {IMAGE!r}: {length or 'no'} values; expected {each},"
                    f" {shape[1]} x {shape[2]} pixels (dataset.size) of {shape[3]} (dataset.channels)"
                )
        yield column.flatten().to_numpy().reshape(batch.num_rows, *shape[1:])
