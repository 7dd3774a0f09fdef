"""The paper's figures from known numbers. Seed: none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from rich.console import Console

from bvae_tune.experiments.linear_systems import RAW
from bvae_tune.experiments.model_table import System
from bvae_tune.experiments.score_grid import Reconstructions, ScoreGrid
from bvae_tune.reporting.reproductions import score_grid_figure, score_grid_table, systems_table
from bvae_tune.search.records import TrialRecord

MakeRecord = Callable[..., TrialRecord]
SIZES, BETA_NORMS = (4, 10, 20), (0.01, 0.04, 0.16)


@pytest.fixture
def grid() -> ScoreGrid:
    scores = np.array([[0.9, 0.5, 0.4], [0.6, 0.8, np.nan], [0.4, 0.5, 0.7]])
    spreads = np.where(np.isnan(scores), np.nan, 0.02)
    return ScoreGrid(SIZES, BETA_NORMS, scores, spreads, 100 * scores, 10 * scores, 4096, 4, 0.25)


def test_the_figure_holds_every_cell_and_every_peak(grid: ScoreGrid, make_record: MakeRecord) -> None:
    pixels = np.zeros((5, 1, 16, 16), np.float32)
    low, best = (make_record(number, beta=beta, score=0.6) for number, beta in enumerate((0.5, 8.0)))
    figure = score_grid_figure(grid, Reconstructions(low, pixels, pixels), Reconstructions(best, pixels, pixels), "")
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
    assert next(iter(strip.get_yticklabels())).get_text() == "images"
    assert strip.images[0].get_array().shape[1] == 5 * 16 + 4 * 3


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
