"""The paper's figures from known numbers. Seed: none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from rich.console import Console

from bvae_tune.experiments.linear_systems import RAW
from bvae_tune.experiments.model_table import System
from bvae_tune.experiments.portraits import STEPS, Portrait
from bvae_tune.experiments.score_grid import Reconstructions, ScoreGrid
from bvae_tune.reporting.reproductions import (
    SHAPES,
    portraits_figure,
    score_grid_figure,
    score_grid_table,
    systems_figure,
    systems_table,
)
from bvae_tune.search.records import TrialRecord

MakeRecord = Callable[..., TrialRecord]
SIZES, BETA_NORMS = (4, 10, 20), (0.01, 0.04, 0.16)


@pytest.fixture
def grid() -> ScoreGrid:
    scores = np.array([[0.9, 0.5, 0.4], [0.6, 0.8, np.nan], [0.4, 0.5, 0.7]])
    spreads = np.where(np.isnan(scores), np.nan, 0.02)
    replicas = np.stack([scores - 0.03, scores + 0.02])
    nowhere = np.zeros_like(scores, bool)
    return ScoreGrid(SIZES, BETA_NORMS, scores, spreads, replicas, 100 * scores, 10 * scores, nowhere, 4096, 4, 0.25)


def test_the_figure_holds_every_cell_and_every_peak(grid: ScoreGrid, make_record: MakeRecord) -> None:
    grid.collapsed[0, 2] = True
    pixels = np.zeros((5, 1, 16, 16), np.float32)
    low, best = (make_record(number, beta=beta, score=0.6) for number, beta in enumerate((0.5, 8.0)))
    figure = score_grid_figure(
        grid, Reconstructions(low, 0, pixels, pixels), Reconstructions(best, 0, pixels, pixels), ""
    )
    left, right, strip = (axes for part in figure.subfigs for axes in part.axes)
    curves = {
        str(container.get_label()): list(zip(*container.lines[0].get_data(), strict=True))
        for container in left.containers
    }
    assert curves == {
        "M = 4": [(0.01, 0.9), (0.04, 0.5), (0.16, 0.4)],
        "M = 10": [(0.01, 0.6), (0.04, 0.8)],
        "M = 20": [(0.01, 0.4), (0.04, 0.5), (0.16, 0.7)],
    }
    peaks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in right.lines if line.get_marker() == "o"]
    assert peaks == [(4, 0.01), (10, 0.04), (20, 0.16)]
    triangles = [line.get_xdata()[0] for line in left.lines if line.get_marker() == "^"]
    assert triangles == [size / 4096 for size in SIZES]
    crosses = [(*line.get_xdata(), *line.get_ydata()) for line in left.lines if line.get_marker() == "X"]
    assert crosses == [(0.16, 0.4), (), ()]
    assert next(iter(strip.get_yticklabels())).get_text() == "images"
    assert strip.images[0].get_array().shape[1] == 5 * 16 + 4 * 3


@pytest.fixture
def portrait(make_record: MakeRecord) -> Portrait:
    """Two latents, the second of which stands first; every value of it is distinct."""
    position = np.arange(2 * 4 * 3, dtype=float).reshape(2, 4, 3) / 23
    scale, rotation = np.arange(2 * 3 * 6).reshape(2, 3, 6) / 100, np.arange(2 * 3 * 5).reshape(2, 3, 5) / -100
    traversed = (np.arange(2 * STEPS, dtype=np.float32) / 16).reshape(2, STEPS, 1, 1, 1) * np.ones(
        (1, 8, 8), np.float32
    )
    values = tuple(np.linspace(-3, 3, STEPS).tolist())
    record = make_record(0, replicas=3, score=0.6)
    return Portrait("VAE", record, "3 x 1 M images", (1, 0), (0.25, 1.0), position, scale, rotation, traversed, values)


def test_a_portrait_has_a_column_for_each_latent(portrait: Portrait) -> None:
    figure = portraits_figure([portrait], "")
    (block,) = figure.subfigs
    assert "VAE, best of 3 replicas, score 62.0% (L = 4)\n3 x 1 M images" in block.get_suptitle()
    place, by_scale, by_rotation, images = block.axes
    for column, image in enumerate(place.images):
        np.testing.assert_array_equal(image.get_array(), portrait.position[column])
        assert image.origin == "upper"  # the first row, the smallest y, on top
        assert column < image.get_extent()[0] < image.get_extent()[1] < column + 1
        assert image.get_clim() == (-1.0, 1.0)
        assert image.get_cmap()(1.0)[0] > image.get_cmap()(1.0)[2]  # high is red
    for axes, curves in ((by_scale, portrait.scale), (by_rotation, portrait.rotation)):
        lines = [line for line in axes.lines if len(line.get_ydata()) > 2]
        expected = [(to_rgb(colour), curve) for latent in curves for colour, curve in zip(SHAPES, latent, strict=True)]
        for line, (colour, curve) in zip(lines, expected, strict=True):
            assert to_rgb(line.get_color()) == colour
            np.testing.assert_array_equal(line.get_ydata(), curve)
    square, ellipse, heart = (to_rgb(colour) for colour in SHAPES)
    assert (np.argmax(square), np.argmax(ellipse), np.argmax(heart)) == (0, 1, 2)  # red, green, blue
    shown = {(int(image.get_extent()[0]), image.get_extent()[3]): image.get_array()[0, 0, 0] for image in images.images}
    for column in (0, 1):
        downwards = [shade for (at, _), shade in sorted(shown.items(), key=lambda one: -one[0][1]) if at == column]
        assert downwards == portrait.traversed[column, :, 0, 0, 0].tolist()
    assert [label.get_text() for label in images.get_xticklabels()] == ["z1\n0.25", "z0\n1.00"]
    ticks = zip(images.get_yticks(), images.get_yticklabels(), strict=True)
    assert [label.get_text() for _, label in sorted(ticks, key=lambda one: -one[0])] == [
        "−3",
        "−1.5",
        "0",
        "+1.5",
        "+3",
    ]


def test_fig5_left_is_drawn_with_its_table(make_record: MakeRecord) -> None:
    result = make_record(0, replicas=3).result
    assert result is not None
    score = dataclasses.replace(result.score, profile={1: 0.3, 4: 0.4, 16: 0.6, 64: 0.9})
    systems = [
        System("VAE", (0.5, 0.01), score, "3 x 1 M images", kl=12.345),
        System("own", None, score, ""),
        System("lost", (0.9, None), None, "failed: not finite"),
    ]
    figure = systems_figure(systems, {"VAE": [(100, 0.3), (200, 0.4)]}, "")
    plots, below = figure.subfigs
    left, right = plots.axes
    drawn = {str(line.get_label()): line for line in left.lines}
    assert (list(drawn["L = 16"].get_xdata()), list(drawn["L = 16"].get_ydata())) == ([0.6, 0.6], [2, 1])
    assert (list(drawn["paper"].get_xdata()), list(drawn["paper"].get_ydata())) == ([0.5, 0.9], [2, 0])
    assert list(right.lines[0].get_ydata()) == [0.3, 0.4]
    cells = below.axes[0].tables[0].get_celld()
    assert [cells[1, column].get_text().get_text() for column in (0, 2, 5, 7, 9)] == [
        *("VAE", "40.0% (-10.0)", "50 to 52", "12.35", "3 x 1 M images")
    ]
    assert cells[2, 1].get_text().get_text() == "–"
    assert [cells[3, column].get_text().get_text() for column in (0, 1, 2, 8, 9)] == [
        *("lost", "90.0%", "–", "–", "failed: not finite")
    ]
    assert systems[2].to_dict() == {
        "system": "lost",
        "paper": 0.9,
        "paper_spread": None,
        "budget": "failed: not finite",
    }


@pytest.mark.parametrize(
    ("paper", "expected", "words"),
    [
        (0.5, (4, 16), "between 4 (40.0%) and 16 (60.0%)"),
        (0.2, (None, 1), "below 1 (30.0%)"),
        (0.95, (64, None), "above 64 (90.0%)"),
    ],
)
def test_the_lengths_at_which_a_system_agrees_with_the_paper(
    make_record: MakeRecord, paper: float, expected: tuple[int | None, int | None], words: str
) -> None:
    record = make_record(0)
    assert record.result is not None
    profile = {1: 0.3, 4: 0.4, 16: 0.6, 64: 0.9}
    system = System(RAW, (paper, 0.01), dataclasses.replace(record.result.score, profile=profile), "")
    assert system.agreement == expected
    console = Console(width=200)
    with console.capture() as told:
        console.print(systems_table([system]))
    assert f"{RAW}, {100 * paper:.1f}%: {words}" in told.get()
    assert f"40.0% ({100 * (0.4 - paper):+.1f})" in told.get()


def test_the_table_names_the_best_beta_of_each_size(grid: ScoreGrid) -> None:
    console = Console(width=120)
    with console.capture() as told:
        console.print(score_grid_table(grid))
    lines = [line.split() for line in told.get().splitlines()]
    assert ["4", "0.01", "10.2", "90.0%", "±", "2.0", "90.0%", "9", "90"] in lines
    assert ["20", "0.16", "32.8", "70.0%", "±", "2.0", "40.0%", "7", "70"] in lines
    assert "rank correlation +1.00 over 3 sizes (paper: positive)" in told.get()
    assert "up to the peak of each M: rank correlation +1.00 (paper: positive)" in told.get()
