"""The 2D shapes against the facts of the published set and its real frames. Seed 0 for poses drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bvae_tune.data import ImageStore
from bvae_tune.data.shapes import SHAPES, SPACE, equal_images, render

SHAPE, SCALE, ROTATION, X, Y = range(5)


def test_the_space_is_that_of_the_paper() -> None:
    assert SPACE.sizes == (3, 6, 40, 32, 32)
    assert SPACE.count == 737_280
    assert SPACE.values[SCALE] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert SPACE.values[ROTATION][-1] == pytest.approx(2 * np.pi)


def test_build_is_quick_small_and_reports_progress(build: tuple[ImageStore, float, list[tuple[int, int]]]) -> None:
    store, seconds, progress = build
    assert seconds < 20
    assert store.path.stat().st_size <= 400e6
    assert [done for done, _ in progress] == sorted({done for done, _ in progress})
    assert progress[-1] == (737_280, 737_280)


def test_store_is_the_whole_grid(shapes: ImageStore) -> None:
    assert (shapes.count, shapes.channels, shapes.height, shapes.width, shapes.bits) == (737_280, 1, 64, 64, 1)
    assert shapes.factor_space == SPACE
    drawn = np.random.default_rng(0).choice(shapes.count, 500, replace=False)
    np.testing.assert_array_equal(shapes.factors(drawn), SPACE.factors(drawn))
    shapes.verify()


def test_render_draws_the_stored_images(shapes: ImageStore) -> None:
    drawn = np.random.default_rng(0).choice(shapes.count, 300, replace=False)
    stored = shapes.gather(drawn).numpy().reshape(-1, 64, 64)
    np.testing.assert_array_equal(render(SPACE.factors(drawn)), stored == 1)


def test_render_refuses_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="invalid"):
        render(np.array([[0, 0, 40, 0, 0]]))


def test_images_are_drawn_pixel_centre_by_pixel_centre() -> None:
    """The squares' and ellipses' equations, pixel by pixel, instead of lattice lines."""
    poses = SPACE.factors(np.random.default_rng(0).choice(SPACE.count * 2 // 3, 300, replace=False))
    centre = 16 + 32 / 31 * poses[:, [X, Y]]
    angle = np.linspace(0, 2 * np.pi, 40)[poses[:, ROTATION], None, None]
    rows, columns = np.mgrid[:64, :64] + 0.5
    right, down = columns - centre[:, 0, None, None], rows - centre[:, 1, None, None]
    scale = np.linspace(0.5, 1, 6)[poses[:, SCALE], None, None]
    along = (np.cos(angle) * right - np.sin(angle) * down) / scale
    across = (np.sin(angle) * right + np.cos(angle) * down) / scale
    square = np.maximum(abs(along), abs(across)) < 9.6
    ellipse = (along / 12.77) ** 2 + (across / 7.21) ** 2 < 1
    expected = np.where(poses[:, SHAPE, None, None] == 0, square, ellipse)
    # The ellipse is drawn with straight sides of a sixth of a pixel, which may cost it a pixel now and then.
    assert (render(poses) != expected).sum() <= 3


def test_mean_pixel(shapes: ImageStore) -> None:
    white = np.bitwise_count(shapes.packed.view(np.uint64)).sum(dtype=np.int64)
    assert white / (shapes.count * shapes.dimensions) == pytest.approx(0.0425, abs=0.002)


def test_squares_have_the_published_widths() -> None:
    squares = render(np.array([[0, scale, 0, 0, 0] for scale in range(6)]))
    assert squares.any(axis=1).sum(axis=1).tolist() == [10, 12, 14, 16, 18, 20]
    assert squares.any(axis=2).sum(axis=1).tolist() == [10, 12, 14, 16, 18, 20]


@pytest.mark.parametrize("factor", range(5), ids=SPACE.names)
def test_consecutive_values_differ(shapes: ImageStore, factor: int) -> None:
    images = np.moveaxis(shapes.packed.view(np.uint64).reshape(*SPACE.sizes, -1), factor, 0)
    changed = [(here != there).any(axis=-1).mean() for here, there in pairwise(images)]
    assert np.mean(changed) > 0.99


def test_closing_rotation_repeats_and_little_else_does(shapes: ImageStore) -> None:
    images = shapes.packed.reshape(*SPACE.sizes, -1)
    np.testing.assert_array_equal(images[:, :, -1], images[:, :, 0])
    counts = equal_images(shapes)
    assert [(count.shape, count.scale) for count in counts] == [(s, c) for s in SHAPES for c in SPACE.values[SCALE]]
    assert {(count.images, count.closing) for count in counts} == {(40_960, 1_024)}
    assert all(count.other == 0 for count in counts if count.shape == "heart")
    assert all(count.other < 0.03 * count.images for count in counts)
    assert counts[0].other > 0, "a square of ten pixels cannot show all of its rotations"


def test_equal_images_are_counted_one_by_one(shapes: ImageStore) -> None:
    smallest_squares = shapes.packed[:40_960].view("S512")
    assert equal_images(shapes)[0].other == 40_960 - 1_024 - len(np.unique(smallest_squares))


@dataclass(frozen=True)
class Matches:
    """Per frame of the published sample: the best of our own images."""

    iou: npt.NDArray[np.float64]
    pose: npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def matches(shapes: ImageStore, root: Path) -> Matches:
    sample = root.parent / "shared" / "data" / "dsprites-sample.gif"
    if not sample.exists():
        pytest.skip("the published frames are not here")
    with Image.open(sample) as gif:
        frames = []
        for number in range(gif.n_frames):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("L")) > 127)
    ours = shapes.packed.view(np.uint64).reshape(*SPACE.sizes[:3], 32, 32, 64)
    area = np.bitwise_count(ours).sum(axis=-1, dtype=np.int64)
    found = [best_match(frame, ours, area) for frame in frames]
    return Matches(np.array([iou for iou, _ in found]), np.array([pose for _, pose in found]))


def best_match(
    frame: npt.NDArray[np.bool_], ours: npt.NDArray[np.uint64], area: npt.NDArray[np.int64]
) -> tuple[float, npt.NDArray[np.int64]]:
    """Among all images whose centre is within 5 pixels of the mean of the frame's white ones: a heart's is 1 off."""
    rows, columns = np.nonzero(frame)
    x, y = (round(31 / 32 * (pixels.mean() + 0.5 - 16)) for pixels in (columns, rows))
    near = np.s_[:, :, :, max(x - 5, 0) : x + 6, max(y - 5, 0) : y + 6]
    words = np.packbits(frame, axis=1).view(np.uint64)[:, 0]
    band = slice(rows.min(), rows.max() + 1)
    common = np.bitwise_count(ours[near][..., band] & words[band]).sum(axis=-1, dtype=np.int64)
    iou = common / (area[near] + frame.sum() - common)
    corner = np.array([0, 0, 0, max(x - 5, 0), max(y - 5, 0)])
    return float(iou.max()), corner + np.unravel_index(iou.argmax(), iou.shape)


@pytest.mark.parametrize(("shape", "least"), [("square", 0.95), ("ellipse", 0.95), ("heart", 0.90)])
def test_real_frames_are_matched(matches: Matches, shape: str, least: float) -> None:
    # The sample shows hearts, ellipses and squares, in this order.
    frames = {"heart": slice(0, 192), "ellipse": slice(192, 256), "square": slice(256, 320)}[shape]
    assert (matches.pose[frames, SHAPE] == SHAPES.index(shape)).all()
    assert matches.iou[frames].mean() >= least
    # What our geometry reaches: not one frame with more than three pixels off.
    assert matches.iou[frames].min() >= 0.985


def test_poses_answer_one_to_one(matches: Matches) -> None:
    """The sample turns a heart once around, moves it down and to the right: so must ours, in the same steps."""
    np.testing.assert_array_equal(matches.pose[0:6, SCALE], range(6))
    np.testing.assert_array_equal(matches.pose[18:57, ROTATION], range(39))
    np.testing.assert_array_equal(matches.pose[58:90, Y], range(32))
    np.testing.assert_array_equal(matches.pose[90:122, X], range(32))
