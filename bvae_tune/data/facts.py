"""What a dataset's file says when all of it is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bvae_tune.data.image_store import DamagedStoreError, ImageStore
from bvae_tune.data.shapes import SPACE, EqualImages, equal_images

_BLOCK = 2**16  # images at a time


@dataclass(frozen=True)
class StoreFacts:
    """Facts of a store.

    Attributes:
        name, path, count, size, bits, fingerprint: as the store has them; size is (C, H, W).
        bytes: of the file.
        mean_pixel: over all images, in [0, 1].
        damage: how the content differs from its checksum; None where it does not.
        equal: equal images per shape and scale, for the 2D shapes.
    """

    name: str
    path: str
    count: int
    size: tuple[int, int, int]
    bits: int
    fingerprint: str
    bytes: int
    mean_pixel: float
    damage: str | None
    equal: tuple[EqualImages, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, safe for JSON."""
        return asdict(self)


def read_facts(store: ImageStore) -> StoreFacts:
    """Read the whole store (seconds for the 2D shapes)."""
    damage = None
    try:
        store.verify()
    except DamagedStoreError as error:
        damage = str(error)
    total = 0
    for start in range(0, store.count, _BLOCK):
        block = store.packed[start : start + _BLOCK]
        # Bits beyond the last pixel of an image are 0.
        total += int((np.bitwise_count(block) if store.bits == 1 else block).sum(dtype=np.int64))
    return StoreFacts(
        name=store.name,
        path=str(store.path),
        count=store.count,
        size=(store.channels, store.height, store.width),
        bits=store.bits,
        fingerprint=store.fingerprint,
        bytes=store.path.stat().st_size,
        mean_pixel=total / (store.count * store.dimensions * (1 if store.bits == 1 else 255)),
        damage=damage,
        equal=equal_images(store) if store.factor_space == SPACE else (),
    )
