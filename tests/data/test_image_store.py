"""The Arrow store: what goes in comes out, shared, checked and never half written. Seeds: 0, and hypothesis's own."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bvae_tune.data import DamagedStoreError, FactorSpace, ImageStore, open_store, write_store
from bvae_tune.data.arrays import pack_images
from bvae_tune.data.image_store import unpack
from bvae_tune.errors import InputError, RunError

GRID = FactorSpace(("kind", "size"), ((0.0, 1.0), (0.5, 1.5, 2.5)))


def write(path: Path, seed: int = 0, bits: int = 1) -> ImageStore:
    """Six images of 3 channels, 5 x 7, on a grid of two factors."""
    packed = np.random.default_rng(seed).integers(0, 256, (6, 14 if bits == 1 else 105), dtype=np.uint8)
    factors = GRID.factors(np.arange(6))
    return write_store(path, packed, name="six", size=(3, 5, 7), bits=bits, factors=factors, factor_space=GRID)


@settings(deadline=None)
@given(
    images=hnp.arrays(bool, st.tuples(st.integers(1, 5), st.sampled_from([1, 3]), st.integers(4, 9), st.integers(4, 9)))
)
def test_binary_images_come_back(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    packed, size, bits = pack_images(images, "images")
    store = write_store(tmp_path_factory.mktemp("binary") / "a.arrow", packed, name="a", size=size, bits=bits)
    assert packed.shape == (len(images), -(-images[0].size // 8))
    np.testing.assert_array_equal(store.gather(np.arange(len(images))), images.reshape(len(images), -1))


@settings(deadline=None)
@given(images=hnp.arrays(np.uint8, st.tuples(st.integers(1, 4), st.just(3), st.integers(4, 6), st.integers(4, 6))))
def test_colours_come_back(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    images[0, 0, 0, 0] = 77  # certainly neither black nor white
    packed, size, bits = pack_images(images, "images")
    assert (size, bits) == (images.shape[1:], 8)
    store = write_store(tmp_path_factory.mktemp("colour") / "a.arrow", packed, name="a", size=size, bits=bits)
    expected = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(store.gather(np.arange(len(images))), expected)


@pytest.mark.parametrize("bits", [1, 8])
def test_devices_unpack_what_the_processor_does(tmp_path: Path, bits: int) -> None:
    store = write(tmp_path / "a.arrow", bits=bits)
    on_device = unpack(torch.tensor(store.packed), bits, store.dimensions)
    assert on_device.dtype == torch.float32
    torch.testing.assert_close(on_device, store.gather(np.arange(6)), rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("bits", [1, 8])
def test_gathering_on_a_gpu_waits_for_nothing(tmp_path: Path, bits: int) -> None:
    store = write(tmp_path / "a.arrow", bits=bits)
    indices = torch.tensor([[5, 0], [3, 3]], device="cuda")
    expected = store.gather(indices)
    store.gather(indices, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        images = store.gather(indices, "cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(images.cpu(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 0)])
def test_gather_takes_indices_of_any_shape(shapes: ImageStore, shape: tuple[int, ...]) -> None:
    indices = np.random.default_rng(0).integers(0, shapes.count, shape)
    images = shapes.gather(indices)
    assert images.shape == (*shape, 4096)
    assert images.dtype == torch.float32
    torch.testing.assert_close(shapes.gather(torch.tensor(indices)), images, rtol=0, atol=0)


@pytest.mark.parametrize("index", [-1, 6])
def test_gather_refuses_an_image_that_is_not_there(tmp_path: Path, index: int) -> None:
    with pytest.raises(IndexError, match="between 0 and 5"):
        write(tmp_path / "a.arrow").gather(np.array([0, index]))


def test_opening_and_gathering_are_quick(shapes: ImageStore) -> None:
    rng = np.random.default_rng(0)

    def fastest(what: Callable[[], object], times: int = 50) -> float:
        seconds = []
        for _ in range(times):
            start = time.perf_counter()
            what()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    assert fastest(lambda: open_store(shapes.path)) < 0.05
    assert fastest(lambda: shapes.gather(rng.integers(0, shapes.count, 64))) < 0.001


def test_an_open_store_holds_no_copy_of_its_images(shapes: ImageStore) -> None:
    """Pages that the kernel can drop and share: after reading every byte, none of the mapping is the process's own."""
    maps = Path("/proc/self/smaps")
    if not maps.exists():
        pytest.skip("needs Linux's /proc")
    assert shapes.packed.max() == 255
    blocks = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", maps.read_text())
    mine = [block for block in blocks if str(shapes.path) in block]
    resident = sum(int(kilobytes) for block in mine for kilobytes in re.findall(r"^Rss: +(\d+)", block, re.M))
    own = sum(int(kilobytes) for block in mine for kilobytes in re.findall(r"^Anonymous: +(\d+)", block, re.M))
    assert resident > 300_000
    assert own == 0
    assert not shapes.packed.flags.writeable


def test_a_store_travels_as_its_path(shapes: ImageStore) -> None:
    parcel = pickle.dumps(shapes)
    assert len(parcel) < 1000
    assert pickle.loads(parcel).fingerprint == shapes.fingerprint


def test_factors_and_their_grid_come_back(tmp_path: Path) -> None:
    store = open_store(write(tmp_path / "a.arrow").path)
    assert store.factor_space == GRID
    assert store.factors(np.array([5, 0])).tolist() == [[1, 2], [0, 0]]
    assert store.factors(np.array([5, 0])).dtype == np.int64


def test_a_grid_in_another_order_is_no_factor_space(tmp_path: Path) -> None:
    packed = np.zeros((6, 1), np.uint8)
    factors = GRID.factors(np.arange(6))[::-1]
    store = write_store(
        tmp_path / "a.arrow", packed, name="a", size=(1, 2, 4), bits=1, factors=factors, factor_space=GRID
    )
    assert store.factor_names == GRID.names
    assert store.factor_space is None


def test_fingerprint_knows_images_factors_and_names(tmp_path: Path) -> None:
    packed, factors = np.zeros((6, 1), np.uint8), GRID.factors(np.arange(6))
    renamed = FactorSpace(("kind", "scale"), GRID.values)
    variants = [
        (packed, factors, GRID),
        (packed + 1, factors, GRID),
        (packed, factors[::-1], GRID),
        (packed, factors, renamed),
    ]
    path = tmp_path / "a.arrow"
    prints = [
        write_store(path, images, name="a", size=(1, 2, 4), bits=1, factors=f, factor_space=space).fingerprint
        for images, f, space in variants
    ]
    assert len(set(prints)) == 4
    again = write_store(path, packed, name="b", size=(1, 2, 4), bits=1, factors=factors, factor_space=GRID)
    assert again.fingerprint == prints[0]


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99, 0.9999])
def test_a_truncated_file_is_noticed_when_opened(tmp_path: Path, kept: float) -> None:
    path = write(tmp_path / "a.arrow").path
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DamagedStoreError, match=r"a\.arrow: truncated, damaged"):
        open_store(path)


def test_other_files_are_no_stores(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_store(tmp_path / "none.arrow")
    (tmp_path / "text.arrow").write_text("ARROW1")
    with pytest.raises(DamagedStoreError, match="no image store"):
        open_store(tmp_path / "text.arrow")


def test_verify_finds_a_single_changed_byte(tmp_path: Path) -> None:
    store = write(tmp_path / "a.arrow")
    store.verify()
    content = bytearray(store.path.read_bytes())
    content[content.index(store.packed.tobytes()) + 20] ^= 1
    store.path.write_bytes(content)
    with pytest.raises(DamagedStoreError, match="checksum"):
        open_store(store.path).verify()


def test_who_has_the_old_file_open_keeps_it(tmp_path: Path) -> None:
    old = write(tmp_path / "a.arrow")
    before = old.gather(np.arange(6)).clone()
    new = write(tmp_path / "a.arrow", seed=1)
    torch.testing.assert_close(old.gather(np.arange(6)), before, rtol=0, atol=0)
    assert new.fingerprint != old.fingerprint
    assert [file.name for file in tmp_path.glob("*.partial")] == []


def test_a_disk_that_fills_up_leaves_the_old_store(tmp_path: Path) -> None:
    """The kernel refuses to let a file grow beyond 64 kB, as a full disk would."""
    store = write(tmp_path / "a.arrow")
    code = f"""
import resource, signal, numpy as np
from bvae_tune.data import write_store
from bvae_tune.errors import RunError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    write_store({str(store.path)!r}, np.zeros((1000, 512), np.uint8), name="big", size=(1, 64, 64), bits=1)
except RunError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "a.arrow: cannot be written" in done.stdout
    assert open_store(store.path).fingerprint == store.fingerprint
    assert list(tmp_path.glob("*.partial")) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        write(tmp_path / "file" / "a.arrow")
