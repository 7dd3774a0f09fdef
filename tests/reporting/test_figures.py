from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from bvae_tune.reporting.figures import score_curve, write_png
from bvae_tune.search.records import TrialRecord

MakeRecord = Callable[..., TrialRecord]


def points(figure: Figure, marker: str = "o", size: float | None = None) -> set[tuple[float, float]]:
    """(β, score) of every point with this marker."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() == marker]
    chosen = [line for line in lines if size is None or line.get_markersize() == size]
    return {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in chosen}


def hollow(axes: Axes) -> set[tuple[float, float]]:
    lines = [line for line in axes.lines if line.get_markerfacecolor() == "none" and line.get_markersize() == 7]
    return {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines}


def test_the_curve_holds_every_scored_trial(make_record: MakeRecord) -> None:
    trials = [
        make_record(0, beta=0.5, score=0.4, latent_size=2),
        make_record(1, beta=8.0, score=0.7, latent_size=10),
        make_record(2, "pruned", beta=2.0, score=0.3, step=100, latent_size=4),
        make_record(3, "failed", beta=64.0, step=0, reason="out of memory"),
        make_record(4, "running", beta=16.0, score=0.6, step=100),
    ]
    controls = [
        make_record(0, kind="baseline", label="untrained", beta=4.0, score=0.35, step=0),
        make_record(1, kind="baseline", label="beta=1", beta=1.0, score=0.45),
        make_record(2, kind="confirm", label="trial 1, pair 0", beta=8.0, score=0.65, latent_size=10),
    ]
    figure = score_curve(trials, controls, "shapes")
    axes = figure.axes[0]
    assert points(figure, size=7) == {(0.5, 0.4), (8.0, 0.7), (2.0, 0.3)}
    assert hollow(axes) == {(2.0, 0.3)}
    assert points(figure, size=12) == {(8.0, 0.7)}  # the ring
    assert points(figure, "D") == {(8.0, 0.65)}
    assert {x for x, _ in points(figure, "x")} == {64.0}
    horizontal = [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    assert sorted(line.get_ydata()[0] for line in horizontal) == [0.25, 0.35, 0.45]
    words = {text.get_text() for text in axes.texts}
    assert words == {"trial 1: 70.0%\nβ 8, M 10", "chance 25.0%", "untrained 35.0%", "beta=1 45.0%"}
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel() == "score (L = 4)"
    # M from 2 to 10 on the colour bar, every size another colour.
    assert figure.axes[1].get_ylim() == (1.5, 10.5)
    faces = {line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"} - {"none"}
    assert len(faces) == 2


def test_the_spread_over_replicas_is_a_bar(make_record: MakeRecord) -> None:
    figure = score_curve([make_record(0, beta=4.0, score=0.6, replicas=4)], [], "shapes")
    (bars,) = figure.axes[0].collections
    (segment,) = bars.get_segments()  # type: ignore[attr-defined]
    assert segment == pytest.approx(np.array([[4.0, 0.56], [4.0, 0.64]]))
    assert len(figure.axes) == 1  # one M needs no colour bar


def test_labels_of_close_lines_do_not_overlap(make_record: MakeRecord) -> None:
    controls = [
        make_record(0, kind="baseline", label="untrained", score=0.26, step=0),
        make_record(1, kind="baseline", label="beta=1", score=0.27),
    ]
    figure = score_curve([], controls, "shapes")
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 3
    assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))


def test_a_study_without_trials_is_an_empty_curve() -> None:
    figure = score_curve([], [], "shapes")
    figure.draw_without_rendering()
    assert figure.axes[0].lines[:] == []


def test_a_png_has_the_figure_s_size_in_pixels(tmp_path: Path, make_record: MakeRecord) -> None:
    write_png(score_curve([make_record()], [], "shapes"), tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (1200, 720)
        assert image.convert("L").getextrema() != (255, 255)
