"""Folders of image files: what is read, to what size, with which factors, and what is said of a mistake. Seed: 0."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import SmallSet, make_chairs

from bvae_tune.data import DatasetConfig, ImageStore, LabelsConfig, draw_labels, load_labels, open_dataset
from bvae_tune.data.folders import factors_of_names
from bvae_tune.data.pictures import Framing, pack_pictures, read_picture
from bvae_tune.errors import InputError

CHAIRS = r"(?P<chair>[^/]+)/renders/image_\d+_p(?P<elevation>\d+)_t(?P<azimuth>\d+)"


@pytest.fixture(scope="module")
def chairs(tmp_path_factory: pytest.TempPathFactory) -> SmallSet:
    return make_chairs(tmp_path_factory.mktemp("chairs"))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def save(folder: Path, **images: np.ndarray) -> Path:
    """Saves each as a PNG file of its name, "__" for a folder."""
    for name, image in images.items():
        path = folder / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def open_folder(path: Path, **keys: object) -> ImageStore:
    return open_dataset(DatasetConfig("folder", str(path), **keys))  # type: ignore[arg-type]


def pixels(store: ImageStore) -> np.ndarray:
    """(n, H, W) or (n, H, W, 3) uint8."""
    values = np.rint(np.asarray(store.gather(np.arange(store.count))) * 255).astype(np.uint8)
    images = values.reshape(-1, store.channels, store.height, store.width)
    return images[:, 0] if store.channels == 1 else np.moveaxis(images, 1, 3)


def test_chairs_as_published(cache: Path, chairs: SmallSet) -> None:
    store = open_folder(chairs.path, size=64, channels=1, pattern=CHAIRS)
    np.testing.assert_array_equal(pixels(store), chairs.images)
    assert store.files == tuple(chairs.files)
    assert store.factor_names == ("chair", "elevation", "azimuth")
    levels = [np.unique(column, return_inverse=True)[1] for column in chairs.factors.T]
    np.testing.assert_array_equal(store.factors(np.arange(store.count)), np.stack(levels, axis=1))
    assert (store.name, store.bits, store.count) == ("rendered_chairs", 8, 256)
    store.verify()


def test_files_are_read_at_any_depth_in_order_of_their_paths(cache: Path, tmp_path: Path) -> None:
    images = noise(4, 6, 5)
    folder = save(tmp_path / "set", b__c__z=images[2], a=images[0], b__b=images[1], z=images[3])
    (folder / "notes.txt").write_text("no image")
    save(folder, **{".hidden": images[0], ".cache__a": images[0]})
    store = open_folder(folder)
    assert store.files == ("a.png", "b/b.png", "b/c/z.png", "z.png")
    np.testing.assert_array_equal(pixels(store), images)
    assert (store.height, store.width) == (6, 5)


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "webp", "jpg", "JPEG"])
@pytest.mark.parametrize("colour", [False, True])
def test_every_kind_of_file(cache: Path, tmp_path: Path, ending: str, colour: bool) -> None:
    y, x = np.mgrid[:24, :32]
    image = np.stack([8 * x, 10 * y, 4 * (x + y)], axis=-1).astype(np.uint8) if colour else (8 * x).astype(np.uint8)
    saved = Image.fromarray(image)
    saved.save(tmp_path / f"a.{ending}", **{"webp": {"lossless": True}, "jpg": {"quality": 95}}.get(ending, {}))
    # A GIF has 256 colours, and a JPEG is near only.
    tolerance = {"gif": 40 if colour else 0, "jpg": 12, "JPEG": 24}.get(ending, 0)
    read = pixels(open_folder(tmp_path, channels=3 if colour else 1))[0]
    assert abs(read.astype(int) - image).max() <= tolerance
    assert abs(read.astype(int) - image).mean() <= tolerance / 4


def test_black_and_white_takes_a_bit_a_pixel(cache: Path, tmp_path: Path) -> None:
    black_white = np.where(noise(40, 9, 7) < 128, 0, 255).astype(np.uint8)
    folder = save(tmp_path / "set", **{f"a{number:02d}": image for number, image in enumerate(black_white)})
    store = open_folder(folder)
    assert (store.bits, store.packed.shape) == (1, (40, 8))
    np.testing.assert_array_equal(pixels(store), black_white)
    grey = noise(9, 7)
    store = open_folder(save(folder, z=grey))
    assert store.bits == 8
    np.testing.assert_array_equal(pixels(store), [*black_white, grey])


def test_modes_become_one_or_three_channels(tmp_path: Path) -> None:
    colour, grey = noise(5, 6, 3), noise(5, 6)
    modes = {
        "RGBA": (Image.fromarray(colour).convert("RGBA"), 3),
        "P": (Image.fromarray(grey).convert("P"), 3),
        "LA": (Image.fromarray(grey).convert("LA"), 1),
        "1": (Image.fromarray(grey).convert("1"), 1),
    }
    for mode, (image, channels) in modes.items():
        image.save(tmp_path / f"{mode}.png")
        assert read_picture(mode, tmp_path / f"{mode}.png", Framing()).shape == (channels, 5, 6)
    clear = np.dstack([colour, np.zeros((5, 6), np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    np.testing.assert_array_equal(
        read_picture("clear", tmp_path / "clear.png", Framing()), np.moveaxis(colour, 2, 0), "colour beneath counts"
    )


def test_grey_is_luma(tmp_path: Path) -> None:
    colour = noise(8, 8, 3)
    Image.fromarray(colour).save(tmp_path / "a.png")
    read = read_picture("a", tmp_path / "a.png", Framing(channels=1))
    assert abs(read[0] - colour @ [0.299, 0.587, 0.114]).max() <= 1
    Image.fromarray(colour[..., 0]).save(tmp_path / "b.png")
    read = read_picture("b", tmp_path / "b.png", Framing(channels=3))
    np.testing.assert_array_equal(read, np.broadcast_to(colour[..., 0], (3, 8, 8)))


@pytest.mark.parametrize("turned", [False, True])
def test_the_square_in_the_middle_is_scaled(tmp_path: Path, turned: bool) -> None:
    image = np.full((8, 16), 9, np.uint8)
    blocks = noise(4, 4)
    image[:, 4:12] = blocks.repeat(2, axis=0).repeat(2, axis=1)
    Image.fromarray(image.T if turned else image).save(tmp_path / "a.png")
    same = read_picture("a", tmp_path / "a.png", Framing(size=8))[0]
    expected = image[:, 4:12]
    np.testing.assert_array_equal(same, expected.T if turned else expected)
    half = read_picture("a", tmp_path / "a.png", Framing(size=4))[0].astype(float)
    # A bilinear filter over four pixels: an eighth, three eighths, three eighths, an eighth; at edges renormalised.
    weights = np.zeros((4, 8))
    for row in range(4):
        for column, weight in zip(range(2 * row - 1, 2 * row + 3), (1, 3, 3, 1), strict=True):
            if 0 <= column < 8:
                weights[row, column] = weight
    weights /= weights.sum(axis=1, keepdims=True)
    scaled = weights @ expected @ weights.T
    assert abs(half - (scaled.T if turned else scaled)).max() <= 1.5


def test_images_of_several_sizes(cache: Path, tmp_path: Path) -> None:
    folder = save(tmp_path / "set", a=noise(6, 5), b__c=noise(7, 9))
    with pytest.raises(InputError, match=r"a\.png has 5 x 6 pixels, .*b/c\.png has 9 x 7: .*give dataset\.size"):
        open_folder(folder)
    assert pixels(open_folder(folder, size=4)).shape == (2, 4, 4)
    folder = save(tmp_path / "mixed", a=noise(6, 5, 3), b=noise(6, 5))
    with pytest.raises(InputError, match=r"a\.png is in colour, .*b\.png is grey: .*give dataset\.channels"):
        open_folder(folder)
    assert pixels(open_folder(folder, channels=1)).shape == (2, 6, 5)


def test_progress_is_told_in_order(tmp_path: Path) -> None:
    folder = save(tmp_path, **{f"a{number:02d}": image for number, image in enumerate(noise(50, 4, 4))})
    told: list[tuple[int, int]] = []
    pictures = [(path.name, path) for path in sorted(folder.iterdir())]
    rows, size, bits = pack_pictures(pictures, 50, Framing(), "images", lambda *done: told.append(done))
    assert (rows.shape, size, bits) == ((50, 16), (1, 4, 4), 8)
    assert told == [(16, 50), (32, 50), (48, 50), (50, 50)]


def test_what_cannot_be_read_is_named(cache: Path, tmp_path: Path) -> None:
    good = noise(20, 20)
    folder = save(tmp_path / "set", a=good)
    whole = (folder / "a.png").read_bytes()
    broken = {"b.png": b"no image", "c.png": whole[: len(whole) // 2], "d.gif": b"", "e.jpg": whole[:8]}
    for name, content in broken.items():
        (folder / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: cannot be read as an image"):
            open_folder(folder)
        (folder / name).unlink()
    frames = [Image.fromarray(image) for image in noise(2, 20, 20)]
    frames[0].save(folder / "f.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"f\.gif: a moving image; expected a single one"):
        open_folder(folder)
    (folder / "f.gif").unlink()
    Image.fromarray(good.astype(np.uint16) * 257).save(folder / "g.png")
    with pytest.raises(InputError, match=r"g\.png: pixels of kind 'I(;16)?'; expected eight bits"):
        open_folder(folder)


@pytest.mark.parametrize(
    ("origin", "told"), [(None, "expected a folder of pictures.*"), ("get it there", "get it there")]
)
def test_folders_without_images(cache: Path, tmp_path: Path, origin: str | None, told: str) -> None:
    hint = f"; {told}$"
    with pytest.raises(InputError, match=r"dataset\.path: .*none: no such folder" + hint):
        open_folder(tmp_path / "none", origin=origin)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"no images in it; expected files \.png, .*\.webp" + hint):
        open_folder(tmp_path, origin=origin)
    with pytest.raises(InputError, match=r"dataset\.path: missing; the source folder needs a folder" + hint):
        open_dataset(DatasetConfig("folder", origin=origin))
    assert not cache.exists()


def test_a_name_that_is_no_text_is_refused(cache: Path, tmp_path: Path) -> None:
    path = save(tmp_path, a=noise(4, 4)) / "a.png"
    path.rename(os.fsdecode(os.fsencode(tmp_path) + b"/gr\xfcn.png"))
    with pytest.raises(InputError, match=r"'gr\\udcfcn\.png': rename this file"):
        open_folder(tmp_path)


def test_a_folder_is_read_once_until_it_changes(cache: Path, tmp_path: Path) -> None:
    folder = save(tmp_path / "set", a=noise(6, 5), b=255 - noise(6, 5))
    first = open_folder(folder)
    written = first.path.stat().st_mtime_ns
    assert (open_folder(folder).path, first.path.stat().st_mtime_ns) == (first.path, written)
    assert open_folder(folder, channels=3).path != first.path
    os.utime(folder / "b.png", ns=(0, 0))
    touched = open_folder(folder)
    assert touched.path != first.path
    assert touched.fingerprint == first.fingerprint, "of the same images, wherever they lie"
    (folder / "b.png").rename(folder / "c.png")
    assert open_folder(folder).fingerprint != first.fingerprint


def test_names_give_numbers_or_words() -> None:
    files = ["red_-3_x.png", "green_10_.png", "red_2.5_y.png"]
    factors, names = factors_of_names(files, r"(?P<colour>[a-z]+)_(?P<angle>-?[\d.]+?)_(?P<mark>[a-z])?", Path("set"))
    assert names == ["colour", "angle", "mark"]
    np.testing.assert_array_equal(factors, [[1, -3, 0], [0, 10, np.nan], [1, 2.5, 1]])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a_(?P<x>[0-9]+)", r"dataset\.pattern: .* is not found in 'b\.png', a file of"),
        ("(?P<file>.)", r"dataset\.pattern: factors: names \['file'\].*none empty, 'image' or 'file'"),
        ("(", r"dataset\.pattern: '\(' is no regular expression"),
        ("a|b", r"dataset\.pattern: 'a\|b' has no named group"),
    ],
)
def test_patterns_that_do_not_fit(cache: Path, tmp_path: Path, pattern: str, message: str) -> None:
    folder = save(tmp_path / "set", a_1=noise(4, 4), b=noise(4, 4))
    with pytest.raises(InputError, match=message):
        open_folder(folder, pattern=pattern)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("jpeg",), r"dataset\.source: 'jpeg' is not one of shapes, npz, arrow, folder, celeba, table"),
        (("folder", "a", 0), r"dataset\.size: 0 must be a whole number from 1 to 1,024"),
        (("table", "a", None, 2), r"dataset\.channels: 2 must be 1 \(grey\) or 3"),
        (("npz", "a", 64), r"dataset\.size: 64; the source npz takes no size \(folder, celeba, table do\)"),
        (("celeba", "a", None, None, "(?P<a>.)"), r"dataset\.pattern: .*the source celeba takes no pattern"),
    ],
)
def test_keys_that_do_not_fit(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DatasetConfig(*arguments)  # type: ignore[arg-type]


def test_too_little_memory_is_told(cache: Path, tmp_path: Path) -> None:
    path = save(tmp_path, a=noise(4, 4)) / "a.png"
    with pytest.raises(InputError, match=r"images: 1000000000000000 images of 1 x 4 x 4 take 2000000\.0 GB of memory"):
        pack_pictures([("a", path)], 10**15, Framing(), "images")


def test_labels_by_file(cache: Path, chairs: SmallSet, tmp_path: Path) -> None:
    store = open_folder(chairs.path, size=64, channels=1)
    path = tmp_path / "labels.csv"
    chosen = [200, 3, 77]
    path.write_text("file,legs\n" + "".join(f"{chairs.files[image]},{image}\n" for image in chosen))
    labels = load_labels(LabelsConfig(path=str(path)), store)
    assert dict(zip(labels.indices.tolist(), labels.factors[:, 0].tolist(), strict=True)) == {3: 0, 77: 1, 200: 2}
    assert labels.names == ("legs",)
    with pytest.raises(InputError, match="knows no factors to draw labels from"):
        draw_labels(store, LabelsConfig())


def test_mistakes_in_labels_by_file(cache: Path, chairs: SmallSet, small: ImageStore, tmp_path: Path) -> None:
    store = open_folder(chairs.path, size=64, channels=1)
    path, file = tmp_path / "labels.csv", chairs.files[0]
    for text, images, message in [
        (
            f"file,a\n{file},1\nnone.png,2\n",
            store,
            r"row 2 below the names, column 'file': there is no 'none\.png' in rendered_chairs; .* such as '0.*png'",
        ),
        (f"file,a\n{file},1\n,2\n", store, "row 2 below the names, column 'file': empty; expected the path"),
        (
            f"file,a\n{file},1\n{file},2\n",
            store,
            r"row 2 below the names, column 'file': '.*png' is there twice, first in row 1",
        ),
        (f"index,file,a\n0,{file},1\n", store, "columns 'index' and 'file' both say which image it is"),
        ("file\na.png\n", store, "no column besides 'file'"),
        ("filename,a\na.png,1\n", store, r"nor 'file' with their paths; found filename, a; rename 'filename'\?"),
        ("file,a\na.png,1\n", small, r"column 'file': small \(.*\) was not read from image files; .*'index'"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            load_labels(LabelsConfig(path=str(path)), images)
