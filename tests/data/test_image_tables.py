"""Tables with a column of images: Parquet, Arrow files and streams, Feather. Seed: 0."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from PIL import Image

from bvae_tune.data import DatasetConfig, ImageStore, open_dataset
from bvae_tune.data.tables import holds_table
from bvae_tune.errors import InputError

COUNT = 300  # more than is read at a time
COLOUR = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 6, 3), dtype=np.uint8)


def encoded(images: np.ndarray) -> list[bytes]:
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files.append(file.getvalue())
    return files


def write_file(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=70)


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=70)


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    "a.parquet": pa.parquet.write_table,
    "a.arrow": write_file,
    "b.arrow": write_stream,
    "a.feather": pa.feather.write_feather,
}
IMAGES = {
    "binary": lambda images: pa.array(encoded(images), pa.binary()),
    "large binary": lambda images: pa.array(encoded(images), pa.large_binary()),
    "Hugging Face": lambda images: pa.array([{"bytes": file, "path": None} for file in encoded(images)]),
    "fixed list": lambda images: pa.FixedSizeListArray.from_arrays(images.reshape(-1), images[0].size),
    "list": lambda images: pa.array(images.reshape(len(images), -1).tolist(), pa.list_(pa.uint8())),
}


def open_table(path: Path, **keys: object) -> ImageStore:
    return open_dataset(DatasetConfig("table", str(path), **keys))  # type: ignore[arg-type]


@pytest.mark.parametrize("file", WRITERS)
@pytest.mark.parametrize("kind", IMAGES)
def test_each_kind_of_table_and_image(cache: Path, tmp_path: Path, file: str, kind: str) -> None:
    table = pa.table({"image": IMAGES[kind](COLOUR), "label": pa.array(np.arange(COUNT) % 7)})
    WRITERS[file](table, tmp_path / file)
    store = open_table(tmp_path / file, size=6)
    assert (store.count, store.channels, store.height, store.width, store.bits) == (COUNT, 3, 6, 6, 8)
    np.testing.assert_array_equal(store.packed, np.moveaxis(COLOUR, 3, 1).reshape(COUNT, -1))
    assert store.factor_names == ("label",)
    np.testing.assert_array_equal(store.columns[0], np.arange(COUNT) % 7)
    assert holds_table(tmp_path / file)
    assert not holds_table(store.path)


def test_factors_are_the_columns_of_numbers(cache: Path, tmp_path: Path) -> None:
    grey = COLOUR[:4, ..., 0]
    table = pa.table(
        {
            "size": pa.array([0.5, None, 0.25, float("nan")]),
            "image": IMAGES["binary"](grey),
            "words": ["a", "b", "c", "d"],
            "hat": [True, None, False, True],
            "side": pa.array([-1, 1, 1, -1], pa.int8()),
        }
    )
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    store = open_table(tmp_path / "a.parquet")
    assert store.factor_names == ("size", "hat", "side")
    np.testing.assert_array_equal(store.factors(np.arange(4)).T, [[1, -1, 0, -1], [1, -1, 0, 1], [0, 1, 1, 0]])
    assert (store.name, store.channels, store.files) == ("a", 1, ())


def test_what_numbers_the_images_is_no_factor(cache: Path, tmp_path: Path) -> None:
    count = 2**15  # more than a factor can have values
    images, numbers = IMAGES["fixed list"](np.zeros((count, 4), np.uint8)), np.arange(count) + 7

    def opened(file: str, **columns: np.ndarray) -> ImageStore:
        pa.parquet.write_table(pa.table({"image": images, **columns}), tmp_path / file)
        return open_table(tmp_path / file, size=2)

    assert opened("numbered.parquet", id=numbers, label=numbers % 7).factor_names == ("label",)
    assert opened("only.parquet", id=numbers).factor_names == ()
    assert opened("shared.parquet", id=np.minimum(numbers, count + 5)).factor_names == ("id",)  # by two images
    for file, column in {"halves": numbers / 2, "infinite": np.where(numbers == 7, np.inf, numbers)}.items():
        with pytest.raises(InputError, match=r"factor 'id': 32768 different values .* expected at most 32767"):
            opened(f"{file}.parquet", id=column)


def test_images_are_brought_to_a_size(cache: Path, tmp_path: Path) -> None:
    files = encoded(COLOUR[:1]) + encoded(COLOUR[1:2, :, :4, 0])
    pa.parquet.write_table(pa.table({"image": files}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet, row 1 has 6 x 6 pixels, .*row 2 has 4 x 6.*give dataset\.size"):
        open_table(tmp_path / "a.parquet")
    store = open_table(tmp_path / "a.parquet", size=4, channels=1)
    assert (store.count, store.channels, store.height) == (2, 1, 4)
    np.testing.assert_array_equal(store.packed[1].reshape(4, 4), COLOUR[1, 1:5, :4, 0])


def test_a_table_without_factors(cache: Path, tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"image": encoded(COLOUR)}), tmp_path / "a.parquet")
    assert open_table(tmp_path / "a.parquet").factor_names == ()


@pytest.mark.parametrize(
    ("columns", "keys", "message"),
    [
        ({"picture": encoded(COLOUR[:2])}, {}, r"a\.parquet: no column 'image'; found picture"),
        ({"image": pa.array([], pa.binary())}, {}, "no rows"),
        ({"image": [1, 2]}, {}, r"column 'image': int64; expected image files \(binary.*or pixels"),
        ({"image": ["a.png"]}, {}, "column 'image': string; expected"),
        ({"image": [{"path": "a.png"}]}, {}, "column 'image': struct"),
        ({"image": [*encoded(COLOUR[:1]), None]}, {}, "row 2, column 'image': empty; expected an image file's bytes"),
        ({"image": [*encoded(COLOUR[:1]), b"no image"]}, {}, "row 2: cannot be read as an image"),
        ({"image": IMAGES["list"](COLOUR)}, {}, r"list<.*uint8>; give dataset\.size, the height and width"),
        ({"image": IMAGES["list"](COLOUR)}, {"size": 5}, "row 1, column 'image': 108 values; expected 25, 5 x 5"),
        ({"image": IMAGES["list"](COLOUR)}, {"size": 6, "channels": 1}, "row 1, .*108 values; expected 36, 6 x 6"),
        ({"image": pa.array([[1] * 4, None], pa.list_(pa.uint8()))}, {"size": 2}, "row 2, .*no values; expected 4"),
        ({"image": encoded(COLOUR[:2]), "a": [float("inf"), 0]}, {}, "factor 'a': 2 different values from 0.0 to inf"),
    ],
)
def test_tables_with_mistakes(
    cache: Path, tmp_path: Path, columns: dict[str, object], keys: dict[str, object], message: str
) -> None:
    pa.parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        open_table(tmp_path / "a.parquet", **keys)


@pytest.mark.parametrize("file", WRITERS)
def test_files_that_are_no_tables(cache: Path, tmp_path: Path, file: str) -> None:
    with pytest.raises(InputError, match=r"dataset\.path: .*cannot be read \(No such file"):
        open_table(tmp_path / file)
    WRITERS[file](pa.table({"image": encoded(COLOUR)}), tmp_path / file)
    content = (tmp_path / file).read_bytes()
    for broken in (b"", b"no table", content[: len(content) // 2]):
        (tmp_path / file).write_bytes(broken)
        with pytest.raises(InputError, match=r"no readable table"):
            open_table(tmp_path / file)
    assert not list(cache.glob("*.arrow"))
