from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from bvae_tune.data.factors import FactorSpace
from bvae_tune.data.image_store import ImageStore, write_store
from bvae_tune.reporting.figures import write_png
from bvae_tune.reporting.sheets import GAP, HEAD, sample_sheet, traversals

SPACE = FactorSpace(("shape", "level"), ((0.0, 1.0), tuple(np.linspace(0.0, 1.0, 20).tolist())))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def pixels(figure: Figure, path: Path) -> NDArray[np.uint8]:
    write_png(figure, path)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def grey_store(folder: Path) -> ImageStore:
    """16 x 32 images of one grey each: 100 * shape + 5 * level of 255."""
    factors = SPACE.factors(np.arange(SPACE.count))
    greys = (100 * factors[:, 0] + 5 * factors[:, 1]).astype(np.uint8)
    images = np.repeat(greys[:, None], 16 * 32, axis=1)
    return write_store(
        folder / "greys.arrow", images, name="greys", size=(1, 16, 32), bits=8, factors=factors, factor_space=SPACE
    )


def noise_store(folder: Path, count: int) -> ImageStore:
    images = np.random.default_rng(0).integers(0, 256, (count, 3 * 20 * 20), np.uint8)
    return write_store(folder / "noise.arrow", images, name="noise", size=(3, 20, 20), bits=8)


def test_the_sheet_traverses_each_factor_and_draws_at_random(tmp_path: Path) -> None:
    figure = sample_sheet(grey_store(tmp_path), columns=5, seed=0)
    sheet = pixels(figure, tmp_path / "sheet.png")
    # Cells of 64 x 128 (each pixel four wide), four rows: two factors, then one row for each shape.
    assert sheet.shape == (HEAD + 4 * (64 + GAP) - GAP + 24, 150 + 5 * (128 + GAP) - GAP + 24, 3)
    centres = sheet[HEAD + 32 :: 64 + GAP, 150 + 64 :: 128 + GAP, 0][:4, :5].astype(int)
    assert centres[0].tolist() == [50, 150, 255, 255, 255]  # shape 0 and 1 at the middle level, then paper
    assert centres[1].tolist() == [100 + 5 * level for level in (0, 5, 10, 14, 19)]
    assert len(set(centres[2].tolist())) == 5
    assert max(centres[2]) <= 95
    assert min(centres[3]) >= 100
    assert texts(figure) == [
        "shape\n2 values,\n0 to 1",
        "level\n20 values,\n0 to 1",
        "random,\nshape 0",
        "random,\nshape 1",
    ]


def test_images_of_unknown_factors_are_drawn_at_random_each_once(tmp_path: Path) -> None:
    store = noise_store(tmp_path, count=7)
    figure = sample_sheet(store, columns=3, seed=1)
    sheet = pixels(figure, tmp_path / "sheet.png")
    assert texts(figure) == ["random"] * 3
    wanted = np.asarray(store.gather(np.arange(7))).reshape(7, 3, 20, 20)
    found = []
    for row, column in np.ndindex(3, 3):
        top, left = HEAD + row * (120 + GAP), 150 + column * (120 + GAP)
        cell = sheet[top : top + 120, left : left + 120]
        # Every pixel of the image is one whole block of 6 x 6.
        blocks = cell.reshape(20, 6, 20, 6, 3)
        assert (blocks == blocks[:, :1, :, :1]).all()
        matches = np.abs(blocks[:, 0, :, 0] / 255 - wanted.transpose(0, 2, 3, 1)).max(axis=(1, 2, 3)) < 1 / 255
        found += np.flatnonzero(matches).tolist()
    assert sorted(found) == list(range(7))


@pytest.mark.parametrize("channels", [1, 3])
def test_traversals_stand_in_order_of_kl(tmp_path: Path, channels: int) -> None:
    greys = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]], np.float32)
    decoded = np.broadcast_to(greys[:, :, None, None, None], (3, 3, channels, 64, 64))
    image = np.full((channels, 64, 64), 0.25, np.float32)
    figure = traversals(
        image, image + 0.5, decoded, [0.03, 4.0, 1.5], [-3.0, 0.0, 3.0], "trial 7", ["", "scale 61%", ""]
    )
    sheet = pixels(figure, tmp_path / "traversals.png")
    top, left = HEAD + 40, 40
    assert sheet.shape[:2] == (top + 3 * (128 + GAP) - GAP + 48, left + 4 * (128 + GAP) - GAP + 24 + 230)
    rows = top + 64 + (128 + GAP) * np.arange(3)
    columns = left + 24 + 128 + GAP + 64 + (128 + GAP) * np.arange(3)
    assert sheet[np.ix_(rows, columns)][..., 1] / 255 == pytest.approx(greys[[1, 2, 0]], abs=0.003)
    assert sheet[rows, left + 64, 2] / 255 == pytest.approx([0.25, 0.75, 1.0], abs=0.003)
    words = texts(figure)
    assert words[:5] == ["image", "reconstruction", "−3", "0", "+3"]
    assert words[5:] == ["latent 1: KL 4.00\nscale 61%", "latent 2: KL 1.50", "latent 0: KL 0.03"]
    colours = [text.get_color() for text in figure.axes[0].texts[5:]]
    assert colours[0] == colours[1] != colours[2]
    fewer = traversals(image, image, decoded, [0.03, 4.0, 1.5], [-3.0, 0.0, 3.0], "trial 7", shown=2)
    assert texts(fewer)[5:] == ["latent 1: KL 4.00", "latent 2: KL 1.50"]
    without_kl = traversals(image, image, decoded, None, [-3.0, 0.0, 3.0], "trial 7", ["", "scale 61%", ""])
    assert texts(without_kl)[5:] == ["latent 0", "latent 1\nscale 61%", "latent 2"]
    assert {text.get_color() for text in without_kl.axes[0].texts[5:]} == {colours[0]}


def test_a_single_latent_leaves_room_for_the_reconstruction(tmp_path: Path) -> None:
    image = np.zeros((1, 128, 128), np.float32)
    figure = traversals(image, image, image[None, None], [1.0], [0.0], "one")
    sheet = pixels(figure, tmp_path / "one.png")
    assert sheet.shape[0] == HEAD + 40 + 2 * 128 + GAP + 48
    assert (sheet[-1] == 255).all()
    assert not (sheet[-48:-10, :200] == 255).all()  # the word "reconstruction"


def test_all_words_lie_on_the_sheet(tmp_path: Path) -> None:
    meanings = ["position x 61%"] * 20
    decoded = np.zeros((20, 3, 1, 64, 64), np.float32)
    figures = [
        sample_sheet(grey_store(tmp_path)),
        traversals(decoded[0, 0], decoded[0, 0], decoded, np.linspace(0, 99, 20).tolist(), [-3, 0, 3], "x", meanings),
    ]
    for figure in figures:
        figure.draw_without_rendering()
        for text in (*figure.texts, *figure.axes[0].texts):
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= figure.bbox.width
            assert box.y1 <= figure.bbox.height
