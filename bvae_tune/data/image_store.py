"""One memory-mapped Arrow file per dataset and machine: a batch of images is an index gather."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cache
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
_KEY: Final = b"bvae_tune"
Indices = "npt.NDArray[np.integer[Any]] | torch.Tensor"


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
        factor_space: the factors' grid if the images are all of its points in order, else None.
        packed: (count, bytes) uint8, read-only, as in the file: channel, row, column, the first pixel in the highest
            bit of the first byte.
    """

    def __init__(self, path: Path, batch: pa.RecordBatch, metadata: dict[str, Any]) -> None:
        self.path = path
        self.name: str = metadata["name"]
        self.count: int = metadata["count"]
        self.channels, self.height, self.width = metadata["size"]
        self.bits: int = metadata["bits"]
        self.dimensions: int = self.channels * self.height * self.width
        self.fingerprint: str = metadata["checksum"]
        self.factor_names: tuple[str, ...] = tuple(metadata["factor_names"])
        values = tuple(tuple(column) for column in metadata["factor_values"])
        self.factor_space = FactorSpace(self.factor_names, values) if metadata["grid"] else None
        self.packed: npt.NDArray[np.uint8] = np.frombuffer(batch.column("image").buffers()[1], np.uint8)
        self.packed = self.packed.reshape(self.count, -1)
        self._columns = [batch.column(name).to_numpy() for name in self.factor_names]
        self._on_device: dict[torch.device, torch.Tensor] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.path,)

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
            picked = np.asarray(indices)
            if picked.size and (picked.min() < 0 or picked.max() >= self.count):
                raise IndexError(f"image indices must lie between 0 and {self.count - 1}")
            return torch.from_numpy(self._unpack(self.packed[picked]))
        packed = self._on_device.get(where)
        if packed is None:
            packed = self._on_device[where] = torch.tensor(self.packed, device=where)
        chosen = packed[torch.as_tensor(indices).to(where, non_blocking=True)]
        if self.bits == 8:
            return chosen / 255.0
        shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=where)
        return ((chosen[..., None] >> shifts) & 1).flatten(-2)[..., : self.dimensions].float()

    def _unpack(self, packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if self.bits == 8:
            return packed * np.float32(1 / 255)
        pixels = np.take(_bits_of_byte(), packed, axis=0)
        return pixels.reshape(*packed.shape[:-1], -1)[..., : self.dimensions]

    def factors(self, indices: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
        """The (n, K) factor values, as indices from 0, of the images `indices` (n,); -1 where unknown."""
        return np.stack([column[indices] for column in self._columns], axis=-1).astype(np.int64)

    def verify(self) -> None:
        """Read the whole file and compare its checksum.

        Raises:
            DamagedStoreError: the content is not what was written.
        """
        if _checksum(self.packed, self._columns, (self.channels, self.height, self.width)) != self.fingerprint:
            raise DamagedStoreError(f"{self.path}: the content does not match its checksum; build or import it again")


@cache
def _bits_of_byte() -> npt.NDArray[np.float32]:
    """(256, 8): the pixels of each byte."""
    return np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)


def open_store(path: str | Path) -> ImageStore:
    """Map a store's file; its length and footer are checked, its checksum is not (see `ImageStore.verify`).

    Raises:
        InputError: no such file, or one of another format.
        DamagedStoreError: truncated, or no image store at all.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an image store (.arrow)")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        header = (reader.schema.metadata or {}).get(_KEY)
        if header is None or reader.num_record_batches != 1:
            raise DamagedStoreError(f"{path}: an Arrow file, but not an image store of bvae-tune")
        metadata = json.loads(header)
        batch = reader.get_batch(0)
    except (pa.ArrowInvalid, OSError) as error:
        raise DamagedStoreError(f"{path}: truncated or damaged ({error}); build or import it again") from None
    if metadata["format"] != FORMAT:
        raise InputError(f"{path}: store format {metadata['format']}, this version reads {FORMAT}; build it again")
    if batch.num_rows != metadata["count"]:
        raise DamagedStoreError(f"{path}: {batch.num_rows} images, {metadata['count']} expected; build it again")
    return ImageStore(path, batch, metadata)


def write_store(
    path: str | Path,
    packed: npt.NDArray[np.uint8],
    *,
    name: str,
    size: tuple[int, int, int],
    bits: Literal[1, 8],
    factors: npt.NDArray[np.integer[Any]] | None = None,
    factor_names: Sequence[str] = (),
    factor_values: Sequence[Sequence[float]] = (),
) -> ImageStore:
    """Write a store under a temporary name, rename it, and open it; one writer at a time, by a file lock.

    Args:
        path: the file to write or replace. Who has the old one open keeps it.
        packed: (n, bytes) uint8, rows as in `ImageStore.packed`.
        name: what the images are.
        size: (channels, height, width).
        bits: 1 or 8 per value.
        factors: (n, K) indices of the factors' values, -1 where unknown.
        factor_names: K names.
        factor_values: per factor the values that the indices stand for.

    Raises:
        RunError: the file cannot be written.
    """
    path = Path(path).absolute()
    packed = np.ascontiguousarray(packed)
    space = FactorSpace(tuple(factor_names), tuple(tuple(float(v) for v in column) for column in factor_values))
    columns = [] if factors is None else [np.ascontiguousarray(column, np.int16) for column in factors.T]
    grid = factors is not None and space.count == len(packed)
    if factors is not None and grid:
        grid = np.array_equal(factors, space.factors(np.arange(space.count)))
    metadata = {
        "format": FORMAT,
        "name": name,
        "count": len(packed),
        "size": size,
        "bits": bits,
        "factor_names": space.names,
        "factor_values": space.values,
        "grid": grid,
        "checksum": _checksum(packed, columns, size),
    }
    image = pa.FixedSizeBinaryArray.from_buffers(pa.binary(packed.shape[1]), len(packed), [None, pa.py_buffer(packed)])
    schema = pa.schema(
        [pa.field("image", image.type), *(pa.field(name, pa.int16()) for name in space.names)],
        metadata={_KEY: json.dumps(metadata)},
    )
    batch = pa.record_batch([image, *(pa.array(column) for column in columns)], schema=schema)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with store_lock(path):
            with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
                writer.write_batch(batch)
            os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written ({error})") from error
    return open_store(path)


def store_lock(path: Path) -> FileLock:
    """The lock that a store's writers hold; may be taken again by its holder."""
    return FileLock(path.with_name(path.name + ".lock"), is_singleton=True)


def _checksum(
    packed: npt.NDArray[np.uint8], columns: Sequence[npt.NDArray[np.int16]], size: tuple[int, int, int]
) -> str:
    digest = hashlib.sha256(repr((*size, packed.shape)).encode())
    digest.update(packed.data)
    for column in columns:
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()
