from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text
from PIL import Image

from bvae_tune.reporting.figures import score_and_kl, write_png
from bvae_tune.search.records import TrialRecord

MakeRecord = Callable[..., TrialRecord]


def points(axes: Axes, marker: str = "o", size: float | None = None) -> set[tuple[float, float]]:
    """(β, height) of every point with this marker."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    chosen = [line for line in lines if size is None or line.get_markersize() == size]
    return {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in chosen}


def hollow(axes: Axes) -> set[tuple[float, float]]:
    lines = [line for line in axes.lines if line.get_markerfacecolor() == "none" and line.get_markersize() == 7]
    return {(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines}


def heights(axes: Axes) -> list[float]:
    """Of the horizontal lines."""
    return sorted(float(line.get_ydata()[0]) for line in axes.lines if list(line.get_xdata()) == [0, 1])


def test_the_curves_hold_every_scored_trial(make_record: MakeRecord) -> None:
    trials = [
        make_record(0, beta=0.5, score=0.4, latent_size=2, kl=20.0),
        make_record(1, beta=8.0, score=0.7, latent_size=10, kl=9.0),
        make_record(2, "pruned", beta=2.0, score=0.3, step=100, latent_size=4, kl=16.5),
        make_record(3, "failed", beta=64.0, step=0, reason="out of memory"),
        make_record(4, "running", beta=16.0, score=0.6, step=100, kl=7.0),
    ]
    controls = [
        make_record(0, kind="baseline", label="untrained", beta=4.0, score=0.35, step=0, kl=0.05),
        make_record(1, kind="baseline", label="beta=1", beta=1.0, score=0.45, kl=18.0),
        make_record(2, kind="confirm", label="trial 1, pair 0", beta=8.0, score=0.65, latent_size=10, kl=8.5),
    ]
    figure = score_and_kl(trials, controls, "shapes")
    above, below, bar = figure.axes
    assert points(above, size=7) == {(0.5, 0.4), (8.0, 0.7), (2.0, 0.3)}
    assert points(below, size=7) == {(0.5, 20.0), (8.0, 9.0), (2.0, 16.5)}
    assert (hollow(above), hollow(below)) == ({(2.0, 0.3)}, {(2.0, 16.5)})
    assert (points(above, size=12), points(below, size=12)) == ({(8.0, 0.7)}, {(8.0, 9.0)})  # the rings
    assert (points(above, "D"), points(below, "D")) == ({(8.0, 0.65)}, {(8.0, 8.5)})
    assert {x for x, _ in points(above, "x")} == {64.0}
    assert points(below, "x") == set()
    assert (heights(above), heights(below)) == ([0.25, 0.35, 0.45], [0.05, 18.0])
    words = {text.get_text() for text in above.texts}
    assert words == {"trial 1: 70.0%\nβ 8, M 10", "chance 25.0%", "untrained 35.0%", "beta=1 45.0%"}
    assert {text.get_text() for text in below.texts} == {"untrained 0.05 nats", "beta=1 18.00 nats"}
    assert above.get_ylabel() == "score (L = 4)"
    assert below.get_ylabel() == "KL reached (nats per image)"
    # Those M that there are on the colour bar, each of a colour that is the same in both panels.
    assert [label.get_text() for label in bar.get_yticklabels()] == ["2", "4", "10"]
    assert bar.get_ylim() == (-0.5, 2.5)
    faces = [{line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"} for axes in (above, below)]
    assert faces[0] == faces[1]
    assert len(faces[0] - {"none"}) == 2


def test_a_collapsed_trial_is_a_cross_and_the_ring_is_round_the_best_of_the_others(make_record: MakeRecord) -> None:
    def off(record: TrialRecord) -> TrialRecord:
        assert record.result is not None
        return dataclasses.replace(record, result=dataclasses.replace(record.result, kl_per_latent=((0.001,),)))

    trials = [off(make_record(0, beta=64.0, score=0.9)), make_record(1, beta=8.0, score=0.7)]
    again = [make_record(n, kind="confirm", label=f"trial 1, pair {n}", beta=8.0, score=0.6 + n / 10) for n in (0, 1)]
    figure = score_and_kl(trials, [off(again[0]), again[1]], "shapes")
    above = figure.axes[0]
    assert points(above, size=12) == {(8.0, 0.7)}
    assert (points(above, "X", size=7), points(above, size=7)) == ({(64.0, 0.9)}, {(8.0, 0.7)})
    assert (points(above, "X", size=4.5), points(above, "D")) == ({(8.0, 0.6)}, {(8.0, 0.7)})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "finished",
        "finished, code switched off",
        "fresh seeds",
        "fresh seeds, code switched off",
    ]


def test_both_panels_share_a_logarithmic_beta_that_has_1_on_it(make_record: MakeRecord) -> None:
    trials = [make_record(0, beta=16.0), make_record(1, beta=64.0), make_record(2, "failed", beta=512.0, step=0)]
    figure = score_and_kl(trials, [], "shapes")
    figure.draw_without_rendering()
    above, below = figure.axes
    assert above.get_xscale() == below.get_xscale() == "log"
    assert above.get_xlim() == below.get_xlim()
    assert below.get_xlim()[0] < 1.0 < 512.0 < below.get_xlim()[1]
    assert "1" in {label.get_text() for label in below.get_xticklabels()}
    for axes in (above, below):
        assert [list(line.get_xdata()) for line in axes.lines if list(line.get_ydata()) == [0, 1]] == [[1.0, 1.0]]


@pytest.mark.parametrize("betas", [(2.0, 3.0), (0.25, 128.0), (1.0, 1e6), (1e-3, 1e6)])
def test_the_numbers_on_the_axis_of_beta_do_not_overlap(make_record: MakeRecord, betas: tuple[float, float]) -> None:
    figure = score_and_kl([make_record(n, beta=beta) for n, beta in enumerate(betas)], [], "shapes")
    figure.draw_without_rendering()
    low, high = figure.axes[1].get_xlim()
    ticks = zip(figure.axes[1].get_xticks(), figure.axes[1].get_xticklabels(), strict=True)
    boxes = [label.get_window_extent() for tick, label in ticks if low <= tick <= high and label.get_text()]
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.parametrize("kls", [(0.0, 0.0), (0.0, 21.0)])
def test_a_kl_of_zero_lies_on_the_figure(make_record: MakeRecord, kls: tuple[float, float]) -> None:
    figure = score_and_kl([make_record(n, beta=2.0 + n, kl=kl) for n, kl in enumerate(kls)], [], "shapes")
    low, high = figure.axes[1].get_ylim()
    assert low == 0 <= max(kls) < high
    assert {kl for _, kl in points(figure.axes[1], size=7)} == set(kls)


def test_the_spread_over_replicas_is_a_bar(make_record: MakeRecord) -> None:
    figure = score_and_kl([make_record(0, beta=4.0, score=0.6, replicas=4)], [], "shapes")
    (bars,) = figure.axes[0].collections
    (segment,) = bars.get_segments()  # type: ignore[attr-defined]
    assert segment == pytest.approx(np.array([[4.0, 0.56], [4.0, 0.64]]))
    assert len(figure.axes) == 2  # one M needs no colour bar


def test_labels_of_close_lines_do_not_overlap(make_record: MakeRecord) -> None:
    controls = [
        make_record(0, kind="baseline", label="untrained", score=0.26, step=0, kl=20.0),
        make_record(1, kind="baseline", label="beta=1", score=0.27, kl=20.1),
    ]
    figure = score_and_kl([], controls, "shapes")
    figure.draw_without_rendering()
    for axes, count in zip(figure.axes, (3, 2), strict=True):
        # Of the words alone: an annotation's own extent has its line in it.
        boxes = sorted((Text.get_window_extent(text) for text in axes.texts), key=lambda box: box.y0)
        assert len(boxes) == count
        assert all(lower.y1 <= upper.y0 for lower, upper in pairwise(boxes))


def test_a_study_without_trials_has_empty_panels() -> None:
    figure = score_and_kl([], [], "shapes")
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert points(axes) == set()
        assert heights(axes) == []
        assert axes.texts[:] == []


def test_a_png_has_the_figure_s_size_in_pixels(tmp_path: Path, make_record: MakeRecord) -> None:
    write_png(score_and_kl([make_record()], [], "shapes"), tmp_path / "curve.png")
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (1200, 1080)
        assert image.convert("L").getextrema() != (255, 255)
