"""Datasets: built, imported, cached, made anew when damaged, by one process at a time. Seed 0."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bvae_tune.data import DatasetConfig, LabelsConfig, draw_labels, import_arrays, open_dataset
from bvae_tune.errors import InputError

RNG = np.random.default_rng(0)
BINARY = RNG.random((7, 5, 6)) < 0.5
GREY = RNG.integers(2, 255, (7, 5, 6), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (7, 3, 5, 6), dtype=np.uint8)


@pytest.mark.parametrize(
    ("images", "bits", "size"),
    [
        (BINARY, 1, (1, 5, 6)),
        (BINARY.astype(np.uint8), 1, (1, 5, 6)),
        (BINARY * np.uint8(255), 1, (1, 5, 6)),
        (BINARY.astype(np.float32), 1, (1, 5, 6)),
        (BINARY[:, None], 1, (1, 5, 6)),
        (BINARY[..., None], 1, (1, 5, 6)),
        (GREY, 8, (1, 5, 6)),
        (GREY / 255, 8, (1, 5, 6)),
        (COLOUR, 8, (3, 5, 6)),
        (np.moveaxis(COLOUR, 1, 3), 8, (3, 5, 6)),
        (torch.tensor(COLOUR / 255, dtype=torch.float32), 8, (3, 5, 6)),
    ],
    ids=lambda value: f"{value.dtype}{tuple(value.shape)}" if hasattr(value, "dtype") else None,
)
def test_arrays_of_every_accepted_kind(cache: Path, images: np.ndarray, bits: int, size: tuple[int, int, int]) -> None:
    store = import_arrays(images)
    assert (store.bits, (store.channels, store.height, store.width), store.count) == (bits, size, 7)
    source = {1: BINARY[:, None], 8: GREY[:, None] / 255 if size[0] == 1 else COLOUR / 255}[bits]
    np.testing.assert_allclose(store.gather(np.arange(7)), source.reshape(7, -1), rtol=1e-6)
    assert store.path.parent == cache
    assert store.factor_names == ()


def test_floats_keep_256_levels(cache: Path) -> None:
    images = RNG.random((3, 8, 8))
    np.testing.assert_allclose(import_arrays(images).gather(np.arange(3)), images.reshape(3, -1), atol=0.5 / 255)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((4, 5)), r"arrays: images: float64 \(4, 5\); expected images \(n, H, W\)"),
        (np.zeros((0, 5, 5)), "no images"),
        (np.zeros((4, 5, 6, 2)), "with 1 or 3 channels"),
        (np.zeros((4, 3, 5, 3)), "which axis holds the channels"),
        (np.zeros((4, 5, 5), np.int64), "int64.*; expected bool, uint8"),
        (np.full((4, 5, 5), "a"), "expected bool, uint8"),
        (np.stack([np.zeros((5, 5)), np.full((5, 5), 1.5)]), r"image 1: 1\.5; expected values in \[0, 1\]"),
        (np.stack([np.zeros((5, 5)), np.full((5, 5), np.nan)]), r"image 1: nan"),
        (-np.ones((1, 5, 5), np.float32), r"image 0: -1\.0"),
    ],
)
def test_other_arrays_are_refused(cache: Path, images: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_arrays(images)


def test_the_same_arrays_are_imported_once(cache: Path) -> None:
    first = import_arrays(BINARY, name="my shapes", factors=np.arange(7)[:, None])
    written = first.path.stat().st_mtime_ns
    again = import_arrays(BINARY.astype(float), name="my shapes", factors=np.arange(7)[:, None])
    assert again.path == first.path
    assert again.path.stat().st_mtime_ns == written
    assert first.path.name.startswith("my-shapes-")
    others = [
        import_arrays(~BINARY, name="my shapes", factors=np.arange(7)[:, None]),
        import_arrays(BINARY, name="my shapes"),
        import_arrays(BINARY, name="my shapes", factors=np.arange(7)[::-1, None]),
        import_arrays(BINARY, name="my shapes", factors=np.arange(7)[:, None], factor_names=["a"]),
    ]
    assert len({first.path, *(store.path for store in others)}) == 5


def test_factors_of_arrays(cache: Path) -> None:
    factors = np.array([[3, 0.5], [1, np.nan], [3, -1], [np.nan, 0.5], [7, 0.5], [1, -1], [1, 0.5]])
    store = import_arrays(BINARY, factors=factors, factor_names=["a", "b"])
    expected = [[1, 1], [0, -1], [1, 0], [-1, 1], [2, 1], [0, 0], [0, 1]]
    np.testing.assert_array_equal(store.factors(np.arange(7)), expected)
    store = import_arrays(BINARY, factors=np.array([[4], [-1], [4], [9], [9], [9], [4]]))
    assert store.factor_names == ("factor_0",)
    assert store.factors(np.arange(7))[:, 0].tolist() == [0, -1, 0, 1, 1, 1, 0]


def test_factors_that_are_a_grid_are_known_as_one(cache: Path) -> None:
    images = RNG.random((6, 4, 4)) < 0.5
    factors = [[k, x] for k in (1, 2) for x in (0.0, 0.5, 1.0)]
    space = import_arrays(images, factors=factors, factor_names=["kind", "x"]).factor_space
    assert space is not None
    assert space.values == ((1.0, 2.0), (0.0, 0.5, 1.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factors": np.zeros(7)}, r"arrays: factors: float64 \(7,\); expected numbers, \(7, K\)"),
        ({"factors": np.zeros((6, 2))}, r"\(6, 2\); expected numbers, \(7, K\)"),
        ({"factors": np.full((7, 1), "a")}, "expected numbers"),
        ({"factors": np.zeros((7, 2)), "factor_names": ["a"]}, r"names \['a'\] for 2 columns"),
        ({"factors": np.zeros((7, 2)), "factor_names": ["a", "a"]}, "all different"),
        ({"factors": np.zeros((7, 1)), "factor_names": ["image"]}, "none empty, 'image' or 'file'"),
        ({"factors": np.full((7, 1), np.inf)}, "factor 'factor_0': 1 different values from inf to inf"),
        ({"factor_names": ["a"]}, "factor_names without factors"),
    ],
)
def test_other_factors_are_refused(cache: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_arrays(BINARY, **arguments)


@pytest.mark.parametrize("keys", [("images", "factors"), ("imgs", "latents_classes")])
def test_npz_files(cache: Path, tmp_path: Path, keys: tuple[str, str]) -> None:
    factors = np.stack([np.zeros(7, int), np.arange(7)], axis=1)
    np.savez_compressed(
        tmp_path / "mine.npz", **dict(zip(keys, (BINARY, factors), strict=True)), factor_names=["a", "b"]
    )
    store = open_dataset(DatasetConfig("npz", str(tmp_path / "mine.npz")))
    np.testing.assert_array_equal(store.gather(np.arange(7)), BINARY.reshape(7, -1))
    assert store.name == "mine"
    assert draw_labels(store, LabelsConfig()).names == ("b",), "a factor that never changes is none"


def test_npz_files_without_factors_give_no_labels(cache: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", images=GREY)
    store = open_dataset(DatasetConfig("npz", str(tmp_path / "mine.npz")))
    assert store.bits == 8
    with pytest.raises(InputError, match=r"knows no factors to draw labels from; give labels\.path"):
        draw_labels(store, LabelsConfig(count=3))


def test_a_changed_npz_file_is_imported_anew(cache: Path, tmp_path: Path) -> None:
    config = DatasetConfig("npz", str(tmp_path / "mine.npz"))
    np.savez(tmp_path / "mine.npz", images=BINARY)
    before = open_dataset(config)
    np.savez(tmp_path / "mine.npz", images=~BINARY)
    assert open_dataset(config).fingerprint != before.fingerprint


def test_npz_files_with_mistakes(cache: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", pictures=BINARY)
    np.savez(tmp_path / "objects.npz", images=np.array([BINARY, None], object), allow_pickle=True)
    np.save(tmp_path / "array.npz", BINARY)
    (tmp_path / "array.npz.npy").rename(tmp_path / "array.npz")
    (tmp_path / "empty.npz").touch()
    np.savez(tmp_path / "torn.npz", images=BINARY)
    torn = (tmp_path / "torn.npz").read_bytes()
    (tmp_path / "torn.npz").write_bytes(torn[: len(torn) // 2])
    for name, message in [
        ("other.npz", r"other\.npz: no array named images or imgs; found pictures"),
        ("objects.npz", "no .npz file of plain arrays"),
        ("array.npz", "no .npz file"),
        ("empty.npz", "no .npz file"),
        ("torn.npz", "no .npz file"),
        (
            "none.npz",
            r"dataset\.path: .*none\.npz: cannot be read \(No such file.*\); expected an \.npz file with .* images",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            open_dataset(DatasetConfig("npz", str(tmp_path / name)))
    assert not cache.exists()


def test_a_damaged_cache_is_made_anew(cache: Path, tmp_path: Path) -> None:
    config = DatasetConfig("npz", str(tmp_path / "mine.npz"))
    np.savez(tmp_path / "mine.npz", images=BINARY)
    path = open_dataset(config).path
    for kept in (0, 100, path.stat().st_size - 3):
        content = path.read_bytes()
        path.write_bytes(content[:kept])
        open_dataset(config).verify()


def test_a_store_is_opened_by_its_path(cache: Path, tmp_path: Path) -> None:
    made = import_arrays(BINARY, path=tmp_path / "mine.arrow")
    assert made.path == tmp_path / "mine.arrow"
    assert open_dataset(DatasetConfig("arrow", str(made.path))).fingerprint == made.fingerprint
    made.path.write_bytes(made.path.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        open_dataset(DatasetConfig("arrow", str(made.path)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DatasetConfig("npz"), r"dataset\.path: missing; the source npz needs a file; .*dsprites_ndarray_\w+\.npz"),
        (DatasetConfig("arrow"), r"dataset\.path: missing; .* an image store"),
        (DatasetConfig("table", "none.parquet"), r"cannot be read \(No such file.*\); .*with the column image"),
        (DatasetConfig("shapes", "shapes.arrow"), "the source shapes is built in and has no path"),
        (DatasetConfig("arrow", "none.arrow"), "no such file"),
        (DatasetConfig("folder", "images"), r"dataset\.path: .*images: no such folder; expected a folder of pictures"),
    ],
)
def test_sources_that_cannot_be_opened(cache: Path, config: DatasetConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_dataset(config)


MAKER = """
import os, sys, time
from pathlib import Path
import numpy as np
from bvae_tune.data.image_store import write_store
from bvae_tune.data.sources import open_or_make

folder = Path(sys.argv[1])

def make():
    with (folder / "made").open("a") as made:
        made.write(f"{os.getpid()}\\n")
    time.sleep(1.0)
    return write_store(folder / "a.arrow", np.full((50, 512), 7, np.uint8), name="a", size=(1, 64, 64), bits=1)

print("ready", flush=True)
sys.stdin.readline()
store = open_or_make(folder / "a.arrow", make)
store.verify()
print(store.fingerprint)
"""


def test_of_two_processes_one_makes_the_store(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAKER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    prints = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert prints[0] == prints[1] != ""
    assert len((tmp_path / "made").read_text().split()) == 1


def test_a_maker_killed_half_way_is_in_nobodys_way(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from bvae_tune.data.image_store import store_lock
path = Path(sys.argv[1]) / "a.arrow"
with store_lock(path):
    path.with_name("a.arrow.partial").write_bytes(b"half a store")
    print("writing", flush=True)
    time.sleep(600)
"""
    maker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert maker.stdout.readline() == "writing\n"
    os.kill(maker.pid, signal.SIGKILL)
    maker.communicate()
    done = subprocess.run([sys.executable, "-c", MAKER, str(tmp_path)], input="\n", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*.partial")) == []
