"""Fig. 5 left, from the real command to the table. Seeds: those of the packaged search spaces, 0."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from bvae_tune.data.shapes import SPACE, render
from bvae_tune.experiments import Scale
from bvae_tune.experiments.linear_systems import (
    ICA,
    ICA_PAIRS,
    IMAGES,
    PCA,
    PCA_STANDARDISED,
    RAW,
    TRUTH,
    linear_scores,
)
from bvae_tune.experiments.model_table import (
    BEST,
    BEST_CONV,
    BETA_VAE,
    BETA_VAE_CONV,
    DCIGN,
    INFOGAN,
    PAPER,
    SPACES,
    TRAINED,
    UNTRAINED,
    VAE,
    VAE_CONV,
    learning_curves,
    read_systems,
)
from bvae_tune.experiments.reproduction import FEW_STEPS, scaled
from bvae_tune.search.runner import create
from bvae_tune.search.study import Study
from bvae_tune.space import load_space

Reproduce = Callable[..., CompletedProcess[str]]


def test_the_command_scores_every_system(reproduce: Reproduce, reproduce_here: Reproduce, tmp_path: Path) -> None:
    outcome = reproduce("fig5-left", tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    path = tmp_path / "fig5-left-smoke"
    rows = parquet.read_table(path / "fig5_left.parquet").to_pylist()
    linear = {TRUTH, RAW, PCA, PCA_STANDARDISED, ICA, ICA_PAIRS}
    assert {row["system"] for row in rows} == {*PAPER, BEST, VAE_CONV, BETA_VAE_CONV, BEST_CONV}
    for row in rows:
        assert row["system"] in outcome.stdout
        if row["paper"] is not None:
            assert row["difference_at_16"] == pytest.approx(row["score_at_16"] - row["paper"])
    assert {row["system"] for row in rows if row["kl"] is None} == {*linear, INFOGAN}
    with Image.open(path / "fig5_left.png") as image:
        assert min(image.size) > 500

    study, images = Study.open(path), IMAGES[Scale.SMOKE]
    scores = linear_scores(study, images, lambda _: None)
    assert list(scores) == [TRUTH, RAW, PCA, PCA_STANDARDISED, ICA, ICA_PAIRS]
    found = {label: score for label, (score, _) in scores.items()}
    assert found[TRUTH].profile[64] > 0.98
    assert found[RAW].classifier == study.config.metric.classifier
    assert found[TRUTH].profile[4] > found[PCA].profile[4] > found[TRUTH].chance
    assert len(found[ICA].replica_scores) == 2
    assert len(found[ICA_PAIRS].replica_scores) == 3
    assert found[ICA_PAIRS].score == pytest.approx(sum(found[ICA_PAIRS].replica_scores) / 3)

    curves = learning_curves(study)
    assert set(curves) == {DCIGN, INFOGAN, VAE, BETA_VAE, BEST, VAE_CONV, BETA_VAE_CONV, BEST_CONV}
    assert [images for images, _ in curves[VAE]] == [20 * 64]
    assert [images for images, _ in curves[VAE_CONV]] == [20 * 16]

    before = (path / "linear.json").stat().st_mtime_ns
    again = reproduce_here("fig5-left", tmp_path, "--json")  # nothing is left to train or to fit
    assert (again.returncode, again.stderr) == (0, "")
    assert len(json.loads(again.stdout)["systems"]) == len(PAPER) + 4
    assert (path / "linear.json").stat().st_mtime_ns == before
    assert len(Study.open(path).sessions) == 2  # of the search, and of the fc network at the β that it found
    (fc,) = (record for record in study.controls if record.label == BEST)
    assert study.best is not None
    assert fc.beta == study.best.beta
    betas = {record.label: record.beta for record in study.controls}
    assert (betas[VAE_CONV], betas[BETA_VAE_CONV]) == (1, 4)

    kept = json.loads((path / "linear.json").read_text())
    (path / "linear.json").write_text(json.dumps({label: row for label, row in kept.items() if label != ICA_PAIRS}))
    told: list[str] = []
    assert len(read_systems(study, images, told.append)) == len(PAPER) + 4  # the row that is missing is made again
    assert json.loads((path / "linear.json").read_text()) == kept
    assert not any("raw pixels" in line for line in told)
    for damaged in ("{bad", "[]", '{"PCA": 1}'):
        (path / "linear.json").write_text(damaged)
        assert any("damaged" in line for line in _told_first(study, images))


def _told_first(study: Study, images: int | None) -> list[str]:
    """What is told before the first system is scored."""
    told: list[str] = []

    def tell(what: str) -> None:
        told.append(what)
        if what.startswith("scoring"):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        linear_scores(study, images, tell)
    return told


def test_a_system_that_fails_has_a_row_that_says_why_and_is_run_once(
    reproduce_here: Reproduce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverging = ("dcign", ("model.widths=[4, 4, 4]", "training.learning_rate=1e30", *FEW_STEPS))
    monkeypatch.setitem(TRAINED, Scale.SMOKE, {VAE: TRAINED[Scale.SMOKE][VAE], DCIGN: diverging})  # type: ignore[misc]
    outcome = reproduce_here("fig5-left", tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    path = tmp_path / "fig5-left-smoke"
    study = Study.open(path)
    (failed,) = (record for record in study.controls if record.label == DCIGN)
    assert (failed.state, f"{DCIGN} failed: {failed.reason}" in outcome.stdout) == ("failed", True)
    (row,) = (row for row in parquet.read_table(path / "fig5_left.parquet").to_pylist() if row["system"] == DCIGN)
    assert (row["score_at_4"], row["paper"], row["budget"]) == (None, PAPER[DCIGN][0], f"failed: {failed.reason}")
    assert set(learning_curves(study)) == {VAE, BEST, VAE_CONV, BETA_VAE_CONV, BEST_CONV}


@pytest.mark.parametrize("scale", list(Scale))
def test_the_trained_systems_are_those_of_the_paper(scale: Scale) -> None:
    config = scaled(scale, SPACES)
    assert {4, 16, 64} <= set(config.metric.lengths)
    settings = {label: load_space(space, changes) for label, (space, changes) in TRAINED[scale].items()}
    assert {label: setting.model.beta for label, setting in settings.items() if setting.model.beta} == {
        UNTRAINED: 1,
        VAE: 1,
        BETA_VAE: 4,
    }
    assert settings[UNTRAINED].training.steps == 0
    assert settings[VAE].model.architecture == settings[BETA_VAE].model.architecture == "fc"
    assert settings[VAE].training == settings[BETA_VAE].training


def test_a_profile_without_the_table_s_lengths_is_refused(reproduce_here: Reproduce, tmp_path: Path) -> None:
    refused = reproduce_here("fig5-left", tmp_path, "--set", "metric.profile=[4]")
    assert (refused.returncode, "the table takes L = 4, 16 and 64" in refused.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


SIZES = (3, 3, 8, 6, 6)  # of shape, scale, rotation and the positions


def test_dsprites_as_published_has_one_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BVAE_TUNE_CACHE", str(tmp_path / "cache"))
    values = np.stack(np.unravel_index(np.arange(np.prod(SIZES)), SIZES), axis=1)
    images = render(values * (1, 2, 5, 6, 6))[:, ::4, ::4]  # coarse, for speed
    classes = np.concatenate([np.zeros((len(values), 1), np.int64), values], axis=1)
    np.savez_compressed(tmp_path / "dsprites.npz", imgs=images.astype(np.uint8), latents_classes=classes)
    data = ["dataset.source=npz", f"dataset.path={tmp_path / 'dsprites.npz'}", "labels.count=2000"]
    settings = [*data, "model.architecture=fc", "model.widths=[16]"]
    study = Study.open(create(scaled(Scale.SMOKE, SPACES, settings), "dsprites", tmp_path))
    scores = linear_scores(study, IMAGES[Scale.SMOKE], lambda _: None)
    assert list(scores) == [TRUTH, RAW, PCA, PCA_STANDARDISED, ICA, ICA_PAIRS]
    truth, remark = scores[TRUTH]
    assert remark == ", ".join(SPACE.names)
    assert truth.profile[64] > 0.98
    assert truth.profile[4] > max(score.profile[4] for label, (score, _) in scores.items() if label != TRUTH)
