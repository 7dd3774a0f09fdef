"""Labels from files: what is read, and what is said of a mistake. Seeds: hypothesis's own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bvae_tune.data import ImageStore, LabelsConfig, WeakLabels, load_labels
from bvae_tune.errors import InputError


def save(folder: Path, kind: str, columns: dict[str, list[object]]) -> str:
    path = folder / f"labels.{kind}"
    {"csv": pa.csv.write_csv, "parquet": pa.parquet.write_table}[kind](pa.table(columns), path)
    return str(path)


def read(small: ImageStore, path: str, **config: object) -> WeakLabels:
    """The labels in the order of their images."""
    labels = load_labels(LabelsConfig(path=path, **config), small)
    order = np.argsort(labels.indices)
    return WeakLabels(labels.names, labels.indices[order], labels.factors[order])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_each_kind_of_column(small: ImageStore, tmp_path: Path, kind: str) -> None:
    columns: dict[str, list[object]] = {
        "index": [0, 5, 7, 599],
        "age": [30, 4, None, 30],
        "hat": [True, False, None, True],
        "mood": ["sad", None, "glad", "sad"],
        "width": [0.5, None, 0.25, 0.5],
        "nothing": [None, None, None, None],
    }
    labels = read(small, save(tmp_path, kind, columns))
    assert labels.names == ("age", "hat", "mood", "width", "nothing")
    assert labels.indices.tolist() == [0, 5, 7, 599]
    expected = [[1, 0, -1, 1], [1, 0, -1, 1], [1, -1, 0, 1], [1, -1, 0, 1], [-1] * 4]
    np.testing.assert_array_equal(labels.factors.T, expected)
    assert labels.factors.dtype == labels.indices.dtype == np.int64


known = st.floats(-1e6, 1e6, allow_nan=False)


@settings(deadline=None)
@given(values=st.lists(st.one_of(st.none(), known), min_size=1, max_size=200), bins=st.integers(2, 12))
def test_continuous_columns_are_cut_by_quantile(
    small: ImageStore, tmp_path_factory: pytest.TempPathFactory, values: list[float | None], bins: int
) -> None:
    columns = {"index": list(range(len(values) + 1)), "angle": [*values, 0.5]}
    path = save(tmp_path_factory.mktemp("bins"), "parquet", columns)
    codes = read(small, path, bins=bins).factors[:, 0]
    numbers = np.array([math.nan if value is None else value for value in columns["angle"]])
    np.testing.assert_array_equal(codes == -1, np.isnan(numbers))
    codes, numbers = codes[codes >= 0], numbers[~np.isnan(numbers)]
    order = np.argsort(numbers, kind="stable")
    steps = np.diff(codes[order])
    assert set(steps.tolist()) <= {0, 1}, "bins follow the values and none is empty"
    assert codes.min() == 0
    assert len({*zip(numbers.tolist(), codes.tolist(), strict=True)}) == len(np.unique(numbers)), "equals share a bin"
    different = len(np.unique(numbers))
    assert codes.max() + 1 == different if different <= bins else codes.max() + 1 <= bins


def test_bins_hold_about_equally_many(small: ImageStore, tmp_path: Path) -> None:
    path = save(tmp_path, "csv", {"index": list(range(500)), "size": [math.exp(i / 70) for i in range(500)]})
    assert np.bincount(read(small, path, bins=10).factors[:, 0]).tolist() == [50] * 10


def test_whole_numbers_stay_apart_however_many(small: ImageStore, tmp_path: Path) -> None:
    path = save(tmp_path, "csv", {"index": list(range(64)), "x": [i // 2 for i in range(64)]})
    assert read(small, path, bins=10).factors[:, 0].tolist() == [i // 2 for i in range(64)]


def test_numbers_among_gaps_are_still_whole(small: ImageStore, tmp_path: Path) -> None:
    """As pandas writes a column of whole numbers with gaps; spaces do no harm."""
    (tmp_path / "labels.csv").write_text("index, x\n0,3.0\n1,\n2, 12.0\n3,nan\n")
    labels = read(small, str(tmp_path / "labels.csv"))
    assert labels.names == ("x",)
    assert labels.factors[:, 0].tolist() == [0, -1, 1, -1]


def test_a_part_of_the_file(small: ImageStore, tmp_path: Path) -> None:
    path = save(tmp_path, "parquet", {"index": list(range(100, 200)), "a": list(range(100)), "b": list(range(100))})
    labels = read(small, path, count=30, factors=("b",), seed=0)
    assert labels.names == ("b",)
    assert len(labels.indices) == 30
    np.testing.assert_array_equal(labels.factors[:, 0], labels.indices - 100)
    assert read(small, path, count=30, seed=0).indices.tolist() == labels.indices.tolist()
    assert read(small, path, count=30, seed=1).indices.tolist() != labels.indices.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "index,x\n0,1\n600,2\n",
            r"labels\.csv, row 2 below the names, column 'index': there is no image 600 in small, which has 600",
        ),
        ("index,x\n0,1\n-1,2\n", r"row 2 below the names, column 'index': there is no image -1"),
        ("index,x\n4,1\n3,2\n4,1\n", r"row 3 below the names, column 'index': image 4 is there twice, first in row 1"),
        ("index,x\n0,1\n,2\n", r"row 2 below the names, column 'index': empty; expected the number of an image"),
        ("index,x\n0,1\n1.5,2\n", r"row 2 below the names, column 'index': 1\.5;"),
        ("index,x\n0,1\none,2\n", r"row 2 below the names, column 'index': 'one'; expected the number"),
        ("index,x\ntrue,1\n", r"row 1 below the names, column 'index': True;"),
        ("index,x\n", "no rows"),
        (
            "Index,x\n0,1\n",
            r"no column 'index' with the images' numbers, nor 'file' .*; found Index, x; rename 'Index'\?",
        ),
        ("image;x\n0;1\n", "no column 'index' with the images' numbers, nor 'file' with their paths; found image;x$"),
        ("index\n0\n", "no column besides 'index'"),
        ("index,x,x\n0,1,1\n", "every column needs a name of its own"),
        ("index,x\n0,\n1,\n", "nothing usable: every cell of x is empty"),
        ("index,x\n0,1\n1,2\n2,o.5\n", r"row 3 below the names, column 'x': 'o\.5' is no number, as 2 others are"),
        ("index,x\n0,1\n1,inf\n", r"row 2 below the names, column 'x': inf; expected a number"),
        ("index,x\n0,1\n1\n", "cannot be read: .*Row #3"),
        ("", "cannot be read: "),
    ],
)
def test_a_mistake_is_named_with_its_place(small: ImageStore, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_labels(LabelsConfig(path=str(path)), small)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"factors": ("hight",)},
            r"no factor 'hight' among those in .*\.csv: height, width; did you mean 'height'\?",
        ),
        ({"count": 3}, r"labels\.count: 3; there are 2 labels in .*labels\.csv"),
        ({"bins": 1}, r"labels\.bins: 1 must be at least 2"),
    ],
)
def test_a_setting_that_does_not_fit_the_file(
    small: ImageStore, tmp_path: Path, config: dict[str, object], message: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("index,height,width\n0,1,1\n1,2,1\n")
    with pytest.raises(InputError, match=message):
        load_labels(LabelsConfig(path=str(path), **config), small)


def test_files_that_are_no_tables(small: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "labels.parquet").write_text("index,x\n0,1\n")
    (tmp_path / "labels.xlsx").write_text("")
    (tmp_path / "latin.csv").write_bytes("index,x\n0,gr\xfcn\n".encode("latin-1"))
    for name, message in [
        ("labels.parquet", "cannot be read"),
        ("labels.xlsx", r"expected a \.parquet or \.csv file"),
        ("none.csv", "no such file"),
        ("latin.csv", r"latin\.csv"),
    ]:
        with pytest.raises(InputError, match=message):
            load_labels(LabelsConfig(path=str(tmp_path / name)), small)


def test_columns_that_hold_no_values_of_their_own_are_refused(small: ImageStore, tmp_path: Path) -> None:
    path = save(tmp_path, "parquet", {"index": [0, 1], "box": [[1, 2], [3, 4]]})
    with pytest.raises(InputError, match="column 'box': list"):
        load_labels(LabelsConfig(path=path), small)
