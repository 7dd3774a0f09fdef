"""Weak labels from a Parquet or CSV file."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.labels import LabelsConfig, WeakLabels, columns_of, subset
from bvae_tune.errors import InputError

INDEX = "index"
FILE = "file"
_ENDINGS = (".parquet", ".csv")


def check_labels_file(path: str | Path | None) -> None:
    """Refuse a file that is not there or of another kind: quick, so asked before images are built. None is no file.

    Raises:
        InputError: the file is missing, cannot be looked at, or has another ending.
    """
    if path is None:
        return
    if Path(path).suffix.lower() not in _ENDINGS:
        raise InputError(f"labels.path: {path}: expected a {' or '.join(_ENDINGS)} file")
    try:
        Path(path).stat()
    except FileNotFoundError:
        raise InputError(f"labels.path: {path}: no such file") from None
    except OSError as error:
        raise InputError(f"labels.path: {path}: cannot be read: {error.strerror}") from None


def read_labels(path: str | Path, store: ImageStore, config: LabelsConfig) -> WeakLabels:
    """Read labels from a file that says for each image which it is, and has one column per factor.

    Which image: by a column `index`, its number in the store, or, where the images were read from image files, by a
    column `file`, its path in their folder.

    An empty cell, or NaN, is an unknown value. Whole numbers, truth values, strings and dates are categories, in
    ascending order; numbers with fractions are continuous and cut into `config.bins` bins of about equally many
    labels, unless they have no more different values than that.

    Args:
        path: a `.parquet` or `.csv` file (comma-separated, UTF-8, names in its first line).
        store: the images that the labels are for.
        config: count, factors, seed and bins; its own path is not looked at.

    Raises:
        InputError: the file is missing or unreadable; it has no column `index` or `file`, or both, no factor, or not
            the one asked for; an image that is not named, not in the store, or there twice; a value that is no number
            among numbers; nothing known; more labels asked for than it has. Rows are counted from 1, without the line
            of names.
    """
    path = Path(path)
    check_labels_file(path)
    table = _read(path)
    names = _factor_names(path, table)
    if config.factors is not None:
        columns_of(config.factors, names, f"in {path}")
        names = config.factors
    key = FILE if FILE in table.column_names else INDEX
    indices = _image_indices(path, table[key], store, key)
    factors = np.stack([_value_indices(path, name, table[name], config.bins) for name in names], axis=1)
    if (factors < 0).all():
        raise InputError(f"{path}: nothing usable: every cell of {', '.join(names)} is empty")
    chosen = subset(config, len(indices), f"labels in {path}")
    return WeakLabels(names, indices[chosen], factors[chosen])


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix.lower() == ".parquet":
            return pa.parquet.read_table(path)
        # Arrow tells the row of a mistake only when it reads with one thread.
        read, convert = pa.csv.ReadOptions(use_threads=False), pa.csv.ConvertOptions(strings_can_be_null=True)
        table = pa.csv.read_csv(path, read_options=read, convert_options=convert)
        return table.rename_columns([name.strip() for name in table.column_names])
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"labels.path: {path}: cannot be read: {error}") from None


def _factor_names(path: Path, table: pa.Table) -> tuple[str, ...]:
    names = table.column_names
    if len(set(names)) < len(names) or "" in names:
        raise InputError(f"{path}: every column needs a name of its own; found {', '.join(map(repr, names))}")
    keys = [key for key in (INDEX, FILE) if key in names]
    if not keys:
        raise InputError(
            f"{path}: no column {INDEX!r} with the images' numbers, nor {FILE!r} with their paths;"
            f" found {', '.join(names)}{_hint(names)}"
        )
    if len(keys) > 1:
        raise InputError(f"{path}: columns {INDEX!r} and {FILE!r} both say which image it is; leave one out")
    if len(names) == 1:
        raise InputError(f"{path}: no column besides {keys[0]!r}; add one column per factor")
    return tuple(name for name in names if name not in keys)


def _hint(names: list[str]) -> str:
    lower = [name.lower() for name in names]
    close = [match for key in (INDEX, FILE) for match in difflib.get_close_matches(key, lower, n=1)]
    return f"; rename {names[lower.index(close[0])]!r}?" if close else ""


def _image_indices(path: Path, column: pa.ChunkedArray, store: ImageStore, key: str) -> npt.NDArray[np.int64]:
    """(n,) int64, each checked to be an image of the store, and there once."""
    values = column.to_pylist()
    if not values:
        raise InputError(f"{path}: no rows")
    read = _by_file(path, values, store) if key == FILE else _by_number(path, values, store)
    indices = np.array(read, np.int64)
    order = np.argsort(indices, kind="stable")
    repeated = np.flatnonzero(np.diff(indices[order]) == 0)
    if len(repeated):
        first, second = sorted((int(order[repeated[0]]) + 1, int(order[repeated[0] + 1]) + 1))
        what = f"{values[second - 1]!r}" if key == FILE else f"image {indices[second - 1]}"
        raise InputError(f"{_cell(path, second, key)}: {what} is there twice, first in row {first}")
    return indices


def _by_number(path: Path, values: list[object], store: ImageStore) -> list[int]:
    numbers = []
    for row, value in enumerate(values, start=1):
        number = _whole_number(value)
        if number is None:
            shown = "empty" if value is None else repr(value)
            raise InputError(f"{_cell(path, row, INDEX)}: {shown}; expected the number of an image")
        if not 0 <= number < store.count:
            raise InputError(
                f"{_cell(path, row, INDEX)}: there is no image {number} in {store.name},"
                f" which has {store.count} (0 to {store.count - 1})"
            )
        numbers.append(number)
    return numbers


def _by_file(path: Path, values: list[object], store: ImageStore) -> list[int]:
    if not store.files:
        raise InputError(
            f"{path}, column {FILE!r}: {store.name} ({store.path}) was not read from image files;"
            f" give a column {INDEX!r} with the images' numbers"
        )
    numbers = {file: number for number, file in enumerate(store.files)}
    for row, value in enumerate(values, start=1):
        if value not in numbers:
            shown = "empty" if value is None else f"there is no {value!r} in {store.name}"
            raise InputError(
                f"{_cell(path, row, FILE)}: {shown}; expected the path of an image in its folder, such as"
                f" {store.files[0]!r}"
            )
    return [numbers[str(value)] for value in values]


def _whole_number(value: object) -> int | None:
    """The number in a cell, which one bad cell of a column has made a string perhaps; None if it is no whole one."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # what float does not take is no number
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


def _value_indices(path: Path, name: str, column: pa.ChunkedArray, bins: int) -> npt.NDArray[np.int64]:
    """(n,) int64 from 0, -1 where the cell is empty."""
    kind = column.type
    if pa.types.is_boolean(kind):
        column, kind = column.cast(pa.int8()), pa.int8()
    if pa.types.is_null(kind):
        return np.full(len(column), -1, np.int64)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _from_numbers(path, name, column.cast(pa.float64(), safe=False).to_numpy(), bins)
    try:
        cells = column.cast(pa.string()).to_pylist()
    except pa.ArrowException:
        raise InputError(f"{path}, column {name!r}: {kind}; expected numbers, truth values or strings") from None
    return _from_strings(path, name, [(cell or "").strip() for cell in cells], bins)


def _from_strings(path: Path, name: str, cells: list[str], bins: int) -> npt.NDArray[np.int64]:
    levels = sorted(set(cells) - {""})
    numbers = {level for level in levels if _is_number(level)}
    # A slip of the pen makes strings of a whole column of numbers: name the slip instead.
    words = [row for row, cell in enumerate(cells, start=1) if cell and cell not in numbers]
    numeric = sum(cell in numbers for cell in cells)
    if not words:
        return _from_numbers(path, name, np.array([float(cell or "nan") for cell in cells]), bins)
    if len(words) < numeric:
        cell = cells[words[0] - 1]
        raise InputError(f"{_cell(path, words[0], name)}: {cell!r} is no number, as {numeric} others are")
    rank = {level: number for number, level in enumerate(levels)}
    return np.array([rank.get(cell, -1) for cell in cells], np.int64)


def _cell(path: Path, row: int, column: str) -> str:
    """`labels.csv, row 3 below the names, column 'scale'`; in a Parquet file the names are no line."""
    below = " below the names" if path.suffix.lower() == ".csv" else ""
    return f"{path}, row {row}{below}, column {column!r}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _from_numbers(path: Path, name: str, values: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.int64]:
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise InputError(f"{_cell(path, infinite[0] + 1, name)}: {values[infinite[0]]}; expected a number")
    known = np.sort(values[~np.isnan(values)])
    levels = np.unique(known)
    if len(levels) > bins and (levels % 1 != 0).any():
        levels = np.unique(known[np.arange(bins) * len(known) // bins])
    # The last level that is not above the value: the value itself, or the start of its bin, which some label has.
    codes = np.searchsorted(levels, values, side="right") - 1
    return np.where(np.isnan(values), -1, codes).astype(np.int64)
