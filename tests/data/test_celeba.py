"""CelebA as published, in small. Seed: 0, of the images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import SmallSet, make_celeba

from bvae_tune.data import DatasetConfig, LabelsConfig, draw_labels, load_labels, open_dataset
from bvae_tune.errors import InputError


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> SmallSet:
    return make_celeba(tmp_path_factory.mktemp("celeba"), count=40)


@pytest.fixture
def copied(celeba: SmallSet, tmp_path: Path) -> Path:
    """The folder, to be changed."""
    return Path(shutil.copytree(celeba.path, tmp_path / "celeba"))


def test_images_are_cropped_and_scaled_and_attributes_are_factors(cache: Path, celeba: SmallSet) -> None:
    store = open_dataset(DatasetConfig("celeba", str(celeba.path), size=64))
    assert (store.name, store.count, store.channels, store.height, store.width) == ("celeba", 40, 3, 64, 64)
    assert store.files == tuple(celeba.files)
    read = np.asarray(store.gather(np.arange(40))).reshape(40, 3, 64, 64) * 255
    for image, original in zip(np.moveaxis(read, 1, 3), celeba.images, strict=True):
        square = Image.fromarray(original[35:183, 15:163])
        expected = np.asarray(square.resize((64, 64), Image.Resampling.BILINEAR)).astype(float)
        assert abs(image - expected).mean() < 2, "a JPEG is near, not equal"
        assert abs(image - expected).max() < 32
    assert store.factor_names == tuple(celeba.names)
    np.testing.assert_array_equal(store.factors(np.arange(40)), (celeba.factors + 1) // 2)
    labels = draw_labels(store, LabelsConfig(count=20, factors=("Smiling", "Male"), seed=0))
    np.testing.assert_array_equal(labels.factors, (celeba.factors[labels.indices][:, [0, 4]] + 1) // 2)


def test_without_a_size_they_are_as_they_are(cache: Path, celeba: SmallSet) -> None:
    store = open_dataset(DatasetConfig("celeba", str(celeba.path), channels=1))
    assert (store.channels, store.height, store.width) == (1, 218, 178)


def test_the_order_is_the_lists(cache: Path, celeba: SmallSet, copied: Path) -> None:
    config = DatasetConfig("celeba", str(copied), size=16)
    before = open_dataset(config)
    path = copied / "list_attr_celeba.txt"
    head, *rows = path.read_text().splitlines(keepends=True)[1:]
    path.write_text("".join(["40\n", head, *rows[::-1], "\n"]))
    after = open_dataset(config)
    assert after.files == before.files[::-1]
    np.testing.assert_array_equal(after.packed, before.packed[::-1])
    np.testing.assert_array_equal(after.factors(np.arange(40)), before.factors(np.arange(40))[::-1])


def test_labels_by_file(cache: Path, celeba: SmallSet, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,mood\n000007.jpg,glad\n000002.jpg,sad\n")
    store = open_dataset(DatasetConfig("celeba", str(celeba.path), size=16))
    labels = load_labels(LabelsConfig(path=str(tmp_path / "labels.csv")), store)
    assert sorted(zip(labels.indices.tolist(), labels.factors[:, 0].tolist(), strict=True)) == [(1, 1), (6, 0)]


def test_a_missing_part_says_where_to_get_it(cache: Path, copied: Path) -> None:
    config = DatasetConfig("celeba", str(copied))
    source = r".*https://mmlab\.ie\.cuhk\.edu\.hk.*img_align_celeba/.*list_attr_celeba\.txt"
    (copied / "list_attr_celeba.txt").rename(copied / "list.txt")
    with pytest.raises(InputError, match=r"holds no list_attr_celeba\.txt;" + source):
        open_dataset(config)
    (copied / "list.txt").rename(copied / "list_attr_celeba.txt")
    (copied / "img_align_celeba").rename(copied / "images")
    with pytest.raises(InputError, match="holds no img_align_celeba;" + source):
        open_dataset(config)
    (copied / "img_align_celeba").mkdir()
    with pytest.raises(InputError, match="no images in it;.*" + source):
        open_dataset(config)
    with pytest.raises(InputError, match="no such folder;" + source):
        open_dataset(DatasetConfig("celeba", str(copied / "none")))
    assert not cache.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("40\n", "41\n", "line 1: '41'; expected the number of images, and 40 lines follow"),
        ("40\n", "many\n", "line 1: 'many'; expected the number"),
        ("Smiling Bangs", "Smiling Smiling", "line 2: expected the attributes' names, all different"),
        ("000003.jpg  ", "000003.jpg  2 ", r"line 5: '000003\.jpg 2 .*'; expected a file and 7 values, each -1 or 1"),
        ("000003.jpg  ", "000003.jpg  1 ", "line 5: .*expected a file and 7 values"),
        ("000003.jpg", "000300.jpg", r"line 5: there is no 000300\.jpg in .*img_align_celeba"),
        ("000003.jpg", "000002.jpg", r"line 5: 000002\.jpg is there twice, first in line 4"),
    ],
)
def test_a_list_that_does_not_fit(cache: Path, copied: Path, old: str, new: str, message: str) -> None:
    path = copied / "list_attr_celeba.txt"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=r"list_attr_celeba\.txt, " + message):
        open_dataset(DatasetConfig("celeba", str(copied), size=16))
    assert not cache.exists()


def test_an_image_without_a_line(cache: Path, copied: Path) -> None:
    shutil.copy(copied / "img_align_celeba" / "000001.jpg", copied / "img_align_celeba" / "000041.jpg")
    with pytest.raises(InputError, match=r"has no line for 000041\.jpg, which is in .*img_align_celeba"):
        open_dataset(DatasetConfig("celeba", str(copied), size=16))
