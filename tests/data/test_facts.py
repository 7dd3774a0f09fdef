"""What `data info` reads of a whole store. Seed: 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bvae_tune.data.facts import read_facts
from bvae_tune.data.image_store import ImageStore, open_store
from bvae_tune.data.shapes import equal_images
from bvae_tune.data.sources import import_arrays


@pytest.mark.parametrize("binary", [True, False])
def test_mean_pixel_is_that_of_the_images(tmp_path: Path, binary: bool) -> None:
    images = np.random.default_rng(0).integers(0, 2 if binary else 256, (50, 3, 5), dtype=np.uint8)
    images[0, 0, 0] = 1 if binary else 77
    facts = read_facts(import_arrays(images, path=tmp_path / "images.arrow"))
    assert facts.bits == (1 if binary else 8)
    assert facts.mean_pixel == pytest.approx(images.mean() / (1 if binary else 255), rel=1e-12)
    assert (facts.count, facts.size, facts.damage, facts.equal) == (50, (1, 3, 5), None, ())


def test_damage_is_told(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 5), dtype=np.uint8)
    path = import_arrays(images, path=tmp_path / "images.arrow").path
    content = bytearray(path.read_bytes())
    content[content.index(images[20].tobytes())] ^= 1
    path.write_bytes(bytes(content))
    damage = read_facts(open_store(path)).damage
    assert damage is not None
    assert "checksum" in damage


def test_the_shapes_come_with_their_equal_images(shapes: ImageStore) -> None:
    facts = read_facts(shapes)
    assert facts.equal == equal_images(shapes)
    assert abs(facts.mean_pixel - 0.0425) <= 0.002
