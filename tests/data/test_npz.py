"""Archives of arrays: dSprites as published, and files larger than the memory that reading them may take. Seed: 0."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bvae_tune.data import DatasetConfig, LabelsConfig, draw_labels, open_dataset
from bvae_tune.data.npz import look_into, pack_npz
from bvae_tune.errors import InputError

SIZES = (1, 3, 2, 4, 3, 2)


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def write_dsprites(path: Path, trap: Path) -> np.ndarray:
    """The published arrays at a 5,120th of their number; the images, (144, 64, 64) of 0 and 1."""
    classes = np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), axis=1)
    images = (np.random.default_rng(0).random((len(classes), 64, 64)) < 0.1).astype(np.uint8)
    metadata = np.array({"latents_names": ("color", "shape"), "trap": Trap(trap)}, object)
    np.savez_compressed(
        path,
        metadata=metadata,
        imgs=images,
        latents_classes=classes,
        latents_values=classes / 7,
    )
    return images


def test_dsprites_as_published(cache: Path, tmp_path: Path) -> None:
    images = write_dsprites(tmp_path / "dsprites.npz", tmp_path / "trap")
    store = open_dataset(DatasetConfig("npz", str(tmp_path / "dsprites.npz")))
    assert (store.bits, store.count, store.height) == (1, 144, 64)
    np.testing.assert_array_equal(store.gather(np.arange(144)), images.reshape(144, -1))
    assert store.factor_names == ("color", "shape", "scale", "rotation", "position_x", "position_y")
    assert store.factor_space is not None
    assert store.factor_space.sizes == SIZES
    assert store.varying_factors == store.factor_names[1:]
    assert draw_labels(store, LabelsConfig()).names == store.factor_names[1:], "the colour is always the same"
    assert not (tmp_path / "trap").exists(), "nothing pickled is read"


def test_names_of_the_file_come_first(cache: Path, tmp_path: Path) -> None:
    classes = np.arange(18).reshape(3, 6)
    np.savez(tmp_path / "a.npz", imgs=np.eye(3)[:, None], latents_classes=classes, factor_names=list("abcdef"))
    assert open_dataset(DatasetConfig("npz", str(tmp_path / "a.npz"))).factor_names == tuple("abcdef")
    np.savez(tmp_path / "b.npz", imgs=np.eye(3)[:, None], latents_classes=classes[:, :2])
    assert open_dataset(DatasetConfig("npz", str(tmp_path / "b.npz"))).factor_names == ("factor_0", "factor_1")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.dtype(">f8"), bool])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(120, 200, 200), (40, 200, 200, 3), (40, 3, 200, 200)])
def test_blocks_of_images_are_joined(tmp_path: Path, dtype: np.dtype, order: str, shape: tuple[int, ...]) -> None:
    levels = np.random.default_rng(0).integers(0, 2 if dtype is bool else 256, shape[-2:], dtype=np.uint8)
    images = np.broadcast_to(levels, shape).copy()
    images[: shape[0] // 2] //= 128  # black and white at first
    images[: shape[0] // 2] *= 255
    expected = images if len(shape) == 3 or shape[1] == 3 else np.moveaxis(images, 3, 1)
    values = images / 255 if np.dtype(dtype).kind == "f" else images
    np.savez(tmp_path / "a.npz", images=np.asarray(values, dtype, order=order))
    packed, size, bits = pack_npz(look_into(tmp_path / "a.npz"))
    flat = expected.reshape(len(images), -1)
    assert size == ((1, 200, 200) if len(shape) == 3 else (3, 200, 200))
    if dtype is bool:
        assert bits == 1
        np.testing.assert_array_equal(packed, np.packbits(flat != 0, axis=1))
    else:
        assert bits == 8
        np.testing.assert_array_equal(packed, flat)


@pytest.mark.parametrize("white", [1, 255])
def test_white_may_come_late(tmp_path: Path, white: int) -> None:
    images = np.zeros((220, 200, 200), np.uint8)
    images[-1, 3, 4] = white
    np.savez_compressed(tmp_path / "a.npz", images=images)
    file = look_into(tmp_path / "a.npz")
    packed, _, bits = pack_npz(file)
    assert (bits, np.unpackbits(packed).sum()) == (1, 1)
    images[-1, 3, 5] = 77
    np.savez_compressed(tmp_path / "a.npz", images=images)
    packed, _, bits = pack_npz(look_into(tmp_path / "a.npz"))
    assert bits == 8
    np.testing.assert_array_equal(packed, images.reshape(220, -1))


READER = """
import resource, sys
from bvae_tune.data import DatasetConfig, open_dataset
import numpy.lib.format, pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store = open_dataset(DatasetConfig("npz", sys.argv[1]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, store.packed.nbytes // 1024)
"""


def test_reading_takes_little_more_memory_than_the_packed_images(cache: Path, tmp_path: Path) -> None:
    count = 73_728  # a tenth of dSprites: 302 MB of pixels, 38 MB packed
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("imgs.npy", "w", force_zip64=True) as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, 64, 64)}
            np.lib.format.write_array_header_1_0(stream, header)
            for _ in range(count // 4096):
                stream.write(b"\0\1\1\0" * (4096 * 1024))
        with archive.open("latents_classes.npy", "w") as stream:
            np.lib.format.write_array(stream, np.arange(6 * count).reshape(count, 6) % 5)
    done = subprocess.run([sys.executable, "-c", READER, tmp_path / "a.npz"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    more, packed = map(int, done.stdout.split())
    assert packed == count * 512 // 1024
    # The array, its mapped file once more, a block as it comes, as bits and in between, and the factors.
    assert more < 2 * packed + 130_000, f"{more} kB of memory for {packed} kB of images"


def test_a_refused_file_leaves_nothing_in_the_cache(cache: Path, tmp_path: Path) -> None:
    images = np.eye(4)[:, None]
    for arrays, message in [
        ({"pictures": images}, "no array named images or imgs; found pictures"),
        ({"images": images[0]}, r"images: float64 \(1, 4\); expected images"),
        ({"images": images.astype(int)}, "expected bool, uint8"),
        ({"images": images, "factors": np.zeros((3, 2))}, r"a: factors: float64 \(3, 2\); expected numbers, \(4, K\)"),
        ({"images": images, "factor_names": ["a"]}, "factor_names without factors"),
        ({"images": images, "factors": np.array([[{}]] * 4, object)}, r"no \.npz file of plain arrays"),
    ]:
        np.savez(tmp_path / "a.npz", **arrays, allow_pickle=True)
        with pytest.raises(InputError, match=message):
            open_dataset(DatasetConfig("npz", str(tmp_path / "a.npz")))
    assert not cache.exists()


def test_a_value_out_of_range_is_named_by_its_image(cache: Path, tmp_path: Path) -> None:
    images = np.zeros((60, 200, 200))
    images[55, 3, 4] = 1.5
    np.savez_compressed(tmp_path / "a.npz", images=images)
    with pytest.raises(InputError, match=r"a\.npz: images, image 55: 1\.5; expected values in \[0, 1\]"):
        open_dataset(DatasetConfig("npz", str(tmp_path / "a.npz")))


def test_a_file_damaged_inside_is_refused(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.random.default_rng(0).integers(0, 256, (100, 50, 50), dtype=np.uint8))
    content = bytearray(path.read_bytes())
    content[100_000] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"no \.npz file of plain arrays .*CRC"):
        open_dataset(DatasetConfig("npz", str(path)))
    with zipfile.ZipFile(path, "w") as archive, archive.open("images.npy", "w") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (100, 50, 50)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(bytes(30 * 2500 + 7))
    with pytest.raises(InputError, match="it ends in image 30"):
        open_dataset(DatasetConfig("npz", str(path)))
