"""Fig. 5 right, from the real command to the figure. Seeds: those of the packaged search spaces, 0."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image

from bvae_tune.data.factors import FactorSpace
from bvae_tune.data.sources import import_arrays
from bvae_tune.errors import InputError, RunError
from bvae_tune.experiments import Scale
from bvae_tune.experiments.reproduction import run_study, scaled
from bvae_tune.experiments.score_grid import SPACES, ScoreGrid, entangled_and_disentangled, read_score_grid
from bvae_tune.search.runner import add_baselines, create
from bvae_tune.search.study import Study

Reproduce = Callable[..., CompletedProcess[str]]


def grid(scores: list[list[float]], latent_sizes: tuple[int, ...] = (4, 10, 20)) -> ScoreGrid:
    values = np.array(scores)
    beta_norms = tuple(0.01 * 4.0**power for power in range(values.shape[1]))
    both, nowhere = np.stack([values, values]), np.zeros_like(values, bool)
    return ScoreGrid(latent_sizes, beta_norms, values, 0 * values, both, values, values, nowhere, 4096, 4, 0.25)


def test_peaks_and_their_correlation() -> None:
    rising = grid([[0.9, 0.5, 0.4], [0.6, 0.9, 0.5], [0.4, 0.5, 0.9]])
    assert rising.peaks.tolist() == [0, 1, 2]
    assert rising.correlation == pytest.approx(1)
    falling = grid([[0.4, 0.5, 0.9], [0.6, 0.9, 0.5], [0.9, 0.5, 0.4]])
    assert falling.correlation == pytest.approx(-1)


def test_a_collapsed_cell_is_the_peak_only_where_all_are() -> None:
    some = grid([[0.9, 0.5, 0.4], [0.6, 0.5, 0.9]])
    off = np.array([[True, False, False], [True, True, True]])
    assert dataclasses.replace(some, collapsed=off).peaks.tolist() == [1, 2]


def test_reconstruction_counts_up_to_the_peak_of_each_size() -> None:
    some = grid([[0.5, 0.9, 0.4], [0.6, 0.7, 0.8]], (4, 10))
    nats = np.array([[10.0, 12.5, 99.0], [11.0, 12.0, 13.0]])
    assert dataclasses.replace(some, reconstruction=nats).correlation_with_reconstruction == pytest.approx(0.9)
    assert grid([[0.9, 0.5]], (4,)).correlation_with_reconstruction is None


def test_cells_that_are_not_there_take_no_part() -> None:
    nothing = float("nan")
    some = grid([[nothing, 0.5, 0.4], [nothing, nothing, nothing], [0.4, 0.5, nothing]])
    assert some.peaks.tolist() == [1, -1, 1]
    assert some.correlation is None
    assert [cell["best_of_its_latent_size"] for cell in some.to_dict()["cells"]] == [
        *(False, True, False),
        *(False, False, False),
        *(False, True, False),
    ]


def test_a_cell_has_its_beta() -> None:
    cells = grid([[0.9, 0.5]], (10,)).to_dict()["cells"]
    assert [cell["beta"] for cell in cells] == [pytest.approx(4.096), pytest.approx(16.384)]


@pytest.mark.parametrize("scale", list(Scale))
def test_every_cell_is_a_trial_whose_weights_stay(scale: Scale) -> None:
    config = scaled(scale, SPACES)
    cells = len(config.space["model.beta_norm"].choices) * len(config.space["model.latent_size"].choices)
    assert config.search.sampler == "grid"
    assert config.search.trials == cells
    assert config.search.keep_models >= cells


def test_the_command_goes_on_and_draws(reproduce: Reproduce, reproduce_here: Reproduce, tmp_path: Path) -> None:
    path = create(scaled(Scale.SMOKE, SPACES), "fig5-right-smoke", tmp_path)  # interrupted before its first trial
    outcome = reproduce("fig5-right", tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    study = Study.open(path)
    assert study.finished
    found = read_score_grid(study)
    assert (found.latent_sizes, found.beta_norms) == ((4, 10), (0.016, 0.256))
    assert not np.isnan(found.scores).any()
    for row, size in enumerate(found.latent_sizes):
        best = max(trial.score or 0 for trial in study.trials if trial.latent_size == size)
        assert found.scores[row, found.peaks[row]] == best
    assert "best β_norm" in outcome.stdout
    with Image.open(path / "fig5_right.png") as image:
        assert min(image.size) > 1000

    entangled, disentangled = entangled_and_disentangled(study)
    assert disentangled.record == study.best
    assert entangled.record.latent_size == disentangled.record.latent_size
    assert (entangled.replica, disentangled.replica) == (0, 0)  # of one
    assert {shown.record.parameters["model.beta_norm"] for shown in (entangled, disentangled)} == {0.016, 0.256}
    assert entangled.pixels.shape == entangled.decoded.shape == (12, 1, 64, 64)
    np.testing.assert_array_equal(entangled.pixels, disentangled.pixels)
    assert 0 < entangled.decoded.min() < entangled.decoded.max() < 1

    (path / "fig5_right.png").unlink()
    again = reproduce_here("fig5-right", tmp_path, "--json")  # nothing is left to train: it only draws
    assert (again.returncode, again.stderr) == (0, "")
    assert len(json.loads(again.stdout)["cells"]) == len(Study.open(path).trials) == 4
    assert len(Study.open(path).sessions) == 1
    assert (path / "fig5_right.png").is_file()

    refused = reproduce_here("fig5-right", tmp_path, "--set", "training.batch_size=8")
    assert refused.returncode == 2
    assert "a study with other settings (training.batch_size)" in refused.stderr
    assert len(Study.open(path).trials) == 4


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("search.keep_models=3", "keep as many"),
        ("search.sampler=tpe", "trials share a bank in a grid"),
        ("space.latent_size=null", "space: model.beta_norm; this figure"),
    ],
)
def test_settings_that_leave_no_figure_are_refused_first(
    reproduce_here: Reproduce, tmp_path: Path, setting: str, expected: str
) -> None:
    refused = reproduce_here("fig5-right", tmp_path, "--set", setting)
    assert (refused.returncode, expected in refused.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_nothing_is_drawn_of_a_study_without_a_finished_trial(tmp_path: Path) -> None:
    path = create(scaled(Scale.SMOKE, SPACES), "empty", tmp_path)
    with pytest.raises(RunError, match="no trial has finished"):
        read_score_grid(Study.open(path))


def tell(study: Study) -> None:
    """In place of what would be run."""
    raise RuntimeError(f"gone on with {study.name}")


def test_a_relative_path_is_the_same_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    grid = FactorSpace(("a", "b"), ((0.0, 1.0, 2.0), (0.0, 1.0, 2.0, 3.0)))
    factors = grid.factors(np.arange(grid.count)).repeat(8, axis=0)
    import_arrays(np.zeros((96, 64, 64), bool), factors=factors, factor_names=grid.names, path=tmp_path / "own.arrow")
    settings = ["dataset.source=arrow", "dataset.path=own.arrow", "labels.factors=[a, b]", "labels.count=90"]
    config = scaled(Scale.SMOKE, SPACES, settings)
    create(config, "own", tmp_path)
    with pytest.raises(RuntimeError, match="gone on with own"):
        run_study(config, "own", tmp_path, tell)


def test_another_study_is_refused_before_anything_runs_and_the_same_goes_on_elsewhere(tmp_path: Path) -> None:
    create(scaled(Scale.SMOKE, SPACES), "other", tmp_path)
    with pytest.raises(InputError, match=r"other settings \(search.seed\)"):
        run_study(scaled(Scale.SMOKE, SPACES, ["search.seed=5"]), "other", tmp_path, add_baselines)
    elsewhere = ["resources.cpus_per_trial=2", "resources.concurrent_trials=1"]
    with pytest.raises(RuntimeError, match="gone on with other"):
        run_study(scaled(Scale.SMOKE, SPACES, elsewhere), "other", tmp_path, tell)
