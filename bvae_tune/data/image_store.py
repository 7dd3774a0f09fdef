"""One memory-mapped Arrow file per dataset and machine: a batch of images is an index gather."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from filelock import FileLock

from bvae_tune.data.factors import FactorSpace
from bvae_tune.errors import InputError, RunError

if TYPE_CHECKING:
    import torch

FORMAT: Final = 1
STORE: Final = b"bvae_tune"  # the key in the schema's metadata by which an image store is known


class DamagedStoreError(InputError):
    """A store's file that is truncated or otherwise not a whole store. A cache is built anew, a given file is not."""


class ImageStore:
    """N images of one size, memory-mapped: processes of a machine share the pages, none holds a copy.

    Made by `open_store` and `write_store`; pickled as its path.

    Attributes:
        path: the Arrow file.
        name: what the images are, for people.
        count: N.
        channels, height, width: of every image.
        bits: 1 (binary, bit-packed) or 8.
        dimensions: channels * height * width, the N of beta_norm (Sec. 4.2).
        fingerprint: hexadecimal digest of all images and factors.
        factor_names: names of the known factors; empty where none is known.
        columns: of each factor, (count,) int16, read-only, the index of every image's value; -1 where unknown.
        factor_space: the factors' grid if the images are all of its points in order, else None.
        files: paths of the image files that the images were read from, in their folder; empty where from none.
        packed: (count, bytes) uint8, read-only, as in the file: channel, row, column, the first pixel in the highest
            bit of the first byte.
    """

    def __init__(self, path: Path, batch: pa.RecordBatch, header: dict[str, Any]) -> None:
        self.path = path
        self.name: str = header["name"]
        self.count: int = header["count"]
        self.channels, self.height, self.width = header["size"]
        self.bits: int = header["bits"]
        self.dimensions: int = self.channels * self.height * self.width
        self.fingerprint: str = header["checksum"]
        self.factor_names: tuple[str, ...] = tuple(header["factor_names"])
        self._space = FactorSpace(self.factor_names, tuple(tuple(values) for values in header["factor_values"]))
        self.factor_space = self._space if header["grid"] else None
        self.packed: npt.NDArray[np.uint8] = np.frombuffer(batch.column("image").buffers()[1], np.uint8)
        self.packed = self.packed.reshape(self.count, -1)
        # Not to_numpy(), which imports pandas.
        self.columns = tuple(np.frombuffer(batch.column(name).buffers()[1], np.int16) for name in self.factor_names)
        self._files = batch.column("file") if header.get("files") else None
        self._on_device: dict[torch.device, torch.Tensor] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.path,)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """See above; read when first asked for."""
        return () if self._files is None else tuple(self._files.to_pylist())

    def gather(
        self, indices: npt.NDArray[np.integer[Any]] | torch.Tensor, device: str | torch.device = "cpu"
    ) -> torch.Tensor:
        """Images as numbers.

        Args:
            indices: integers of any shape (...), 0 to count - 1; an array, or a tensor on any device.
            device: where the images are wanted. On anything but a CPU the packed bytes are kept there from the first
                call on, and picked and unpacked there without waiting for the device.

        Returns:
            (..., dimensions) float32 in [0, 1] on `device`.

        Raises:
            IndexError: an index outside 0 to count - 1 (CPU; elsewhere it is the device's own error).
        """
        import torch

        where = torch.device(device)
        if where.type == "cpu":
            chosen = np.asarray(indices.cpu() if isinstance(indices, torch.Tensor) else indices)
            if chosen.size and not 0 <= chosen.min() <= chosen.max() < self.count:
                raise IndexError(f"image indices must lie between 0 and {self.count - 1}")
            return unpack(torch.from_numpy(self.packed[chosen]), self.bits, self.dimensions)
        where = torch.empty(0, device=where).device  # with its number: "cuda" and "cuda:0" share a copy
        if where not in self._on_device:
            self._on_device[where] = torch.tensor(self.packed, device=where)
        index = torch.as_tensor(indices).to(where, non_blocking=True)
        return unpack(self._on_device[where][index], self.bits, self.dimensions)

    @property
    def varying_factors(self) -> tuple[str, ...]:
        """Names of the known factors that have more than one value."""
        return self._space.varying.names

    def factors(self, indices: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """The (n, K) factor values, as indices from 0, of the images `indices` (n,); -1 where unknown."""
        return np.stack([column[indices] for column in self.columns], axis=-1).astype(np.int64)

    def verify(self) -> None:
        """Read the whole file and compare its checksum.

        Raises:
            DamagedStoreError: the content is not what was written.
        """
        factors = self.factors(np.arange(self.count)) if self.factor_names else None
        size = (self.channels, self.height, self.width)
        found = content_fingerprint(self.packed, size, self.bits, factors, self._space, self.files)
        if found != self.fingerprint:
            raise DamagedStoreError(
                f"{self.path}: the content does not match its checksum; build it again (bvae-tune data build)"
            )


def unpack(packed: torch.Tensor, bits: int, dimensions: int) -> torch.Tensor:
    """Rows of bytes (..., bytes) uint8 -> pixels (..., dimensions) float32 in [0, 1], on the device of the bytes."""
    if bits == 8:
        return packed.float() / 255
    pixels = _pixels_of_byte(packed.device).index_select(0, packed.flatten().int())
    return pixels.view(*packed.shape[:-1], 8 * packed.shape[-1])[..., :dimensions]


@cache
def _pixels_of_byte(device: torch.device) -> torch.Tensor:
    """(256, 8) float32: the pixels of each byte, the first in its highest bit."""
    import torch

    pixels = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)
    return torch.from_numpy(pixels).to(device)


def open_store(path: str | Path) -> ImageStore:
    """Map a store's file. Its length and footer are checked, its checksum is not (see `ImageStore.verify`).

    Raises:
        InputError: no such file, or one of another version's format.
        DamagedStoreError: truncated, or no image store at all.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an image store (.arrow)")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        header = json.loads(reader.schema.metadata[STORE])
        if header["format"] != FORMAT:
            raise InputError(f"{path}: format {header['format']}, not {FORMAT}; build or import it again")
        batch = reader.get_batch(0)
        batch.validate()
        if batch.num_rows != header["count"]:
            raise DamagedStoreError(f"{path}: {batch.num_rows} images for {header['count']}; build or import it again")
        return ImageStore(path, batch, header)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedStoreError(
            f"{path}: truncated, damaged or no image store ({error}); build or import it again"
        ) from None


def write_store(
    path: str | Path,
    packed: npt.NDArray[np.uint8],
    *,
    name: str,
    size: tuple[int, int, int],
    bits: Literal[1, 8],
    factors: npt.NDArray[np.integer[Any]] | None = None,
    factor_space: FactorSpace | None = None,
    files: Sequence[str] = (),
) -> ImageStore:
    """Write a store under a temporary name, rename it, and open it; one writer at a time, by a file lock.

    Args:
        path: the file to write or replace. Who has the old one open keeps it.
        packed: (n, bytes) uint8, rows as in `ImageStore.packed`.
        name: what the images are, for people.
        size: (channels, height, width).
        bits: 1 or 8 per value.
        factors: (n, K) indices into the values of `factor_space`, -1 where unknown.
        factor_space: names and values of the K factors.
        files: n paths of the image files that they were read from, or none.

    Raises:
        RunError: the file cannot be written.
    """
    path = Path(path).absolute()
    packed = np.ascontiguousarray(packed)
    space = factor_space or FactorSpace((), ())
    header = {
        "format": FORMAT,
        "name": name,
        "count": len(packed),
        "size": size,
        "bits": bits,
        "factor_names": space.names,
        "factor_values": space.values,
        "grid": factors is not None and _is_grid(factors, space),
        "files": bool(files),
        "checksum": content_fingerprint(packed, size, bits, factors, space, files),
    }
    image = pa.FixedSizeBinaryArray.from_buffers(pa.binary(packed.shape[1]), len(packed), [None, pa.py_buffer(packed)])
    columns = {"image": image}
    if factors is not None:
        columns |= {name: pa.array(column, pa.int16()) for name, column in zip(space.names, factors.T, strict=True)}
    if files:
        columns["file"] = pa.array(files, pa.string())
    batch = pa.record_batch(columns).replace_schema_metadata({STORE: json.dumps(header)})
    partial = path.with_name(path.name + ".partial")
    with store_lock(path):
        try:
            with partial.open("wb") as file:
                with pa.ipc.new_file(file, batch.schema) as writer:
                    writer.write_batch(batch)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise RunError(f"{path}: cannot be written ({error})") from error
    return open_store(path)


def content_fingerprint(
    packed: npt.NDArray[np.uint8],
    size: tuple[int, int, int],
    bits: int,
    factors: npt.NDArray[np.integer[Any]] | None,
    factor_space: FactorSpace,
    files: Sequence[str] = (),
) -> str:
    """Hexadecimal SHA-256 of images, factors and files and of how to read them; arguments as for `write_store`."""
    reading = [packed.shape, size, bits, factor_space.names, factor_space.values]
    digest = hashlib.sha256(json.dumps(reading).encode())
    digest.update(packed.data)
    if factors is not None:
        digest.update(np.ascontiguousarray(factors, np.int16).data)
    if files:
        digest.update("\n".join(files).encode())
    return digest.hexdigest()


@contextmanager
def store_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a store's writers, whose folder is made if need be; who holds it may take it again.

    Raises:
        RunError: the folder or the lock cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"), is_singleton=True)
        lock.acquire()
    except OSError as error:
        raise RunError(f"{path.parent}: cannot be written ({error})") from error
    try:
        yield
    finally:
        lock.release()


def _is_grid(factors: npt.NDArray[np.integer[Any]], space: FactorSpace) -> bool:
    return space.count == len(factors) and np.array_equal(factors, space.factors(np.arange(space.count)))
