"""Fig. 6, from the real command to the figure. Seeds: those of the packaged search spaces, 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image

from bvae_tune.errors import RunError
from bvae_tune.experiments import Scale
from bvae_tune.experiments.portraits import DCIGN, GROUPS, INFOGAN, RIVALS, SPACES, VAE, read_portraits
from bvae_tune.experiments.reproduction import add_model, scaled
from bvae_tune.search.journal import open_record
from bvae_tune.search.kept import activations
from bvae_tune.search.runner import create
from bvae_tune.search.study import Study
from bvae_tune.space import load_space

Reproduce = Callable[..., CompletedProcess[str]]


def test_the_command_trains_four_models_and_draws_them(
    reproduce: Reproduce, reproduce_here: Reproduce, tmp_path: Path
) -> None:
    begun = Study.open(create(scaled(Scale.SMOKE, SPACES), "fig6-smoke", tmp_path))  # interrupted early
    begun = Study(begun.path, open_record(begun.path / "optuna.journal"))
    add_model(begun, "fig6", VAE, dataclasses.replace(begun.config.model, beta=1.0), begun.config.training, keep=True)
    refused = reproduce_here("fig6", tmp_path, "--image", "737280")
    assert (refused.returncode, "has the images 0 to 737279" in refused.stderr) == (2, True)
    outcome = reproduce("fig6", tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    study = Study.open(begun.path)
    assert study.finished
    assert [record.label for record in study.controls] == [VAE, DCIGN, INFOGAN]
    with Image.open(study.path / "fig6.png") as image:
        assert min(image.size) > 1000

    portraits = read_portraits(study, image=5, images=2048)
    assert [portrait.label for portrait in portraits] == ["β-VAE (β = 32)", VAE, DCIGN, INFOGAN]
    for portrait in portraits:
        latents = len(portrait.latents)
        assert latents == (5 if portrait.label == INFOGAN else 10)
        assert portrait.position.shape == (latents, 32, 32)
        assert portrait.scale.shape == (latents, 3, 6)
        assert portrait.rotation.shape == (latents, 3, 40)
        assert portrait.traversed.shape == (latents, 5, 1, 64, 64)
        assert sorted(portrait.latents) == list(range(latents))
        found = activations(study, portrait.record, GROUPS, 2048)
        for shown, means in zip((portrait.position, portrait.scale, portrait.rotation), found.means, strict=True):
            np.testing.assert_array_equal(shown, means[list(portrait.latents)])
    beta_vae, _, dcign, infogan = portraits
    assert beta_vae.variance is not None
    assert list(beta_vae.variance) == sorted(beta_vae.variance)
    assert dcign.latents == tuple(range(10))
    assert infogan.variance is None
    assert (beta_vae.values[0], infogan.values[0]) == (-3.0, -1.0)

    before = (study.path / "optuna.journal").read_bytes()
    (study.path / "fig6.png").unlink()
    drawn = reproduce_here("fig6", tmp_path, "--run", study.path, "--image", "700000")  # a study is drawn as it is
    assert (drawn.returncode, drawn.stderr) == (0, "")
    assert (study.path / "fig6.png").is_file()
    assert (study.path / "optuna.journal").read_bytes() == before
    for option, value, expected in [
        ("--image", "737280", "has the images 0 to 737279"),
        ("--set", "model.beta=2", "leave out --name, --set and --address"),
    ]:
        refused = reproduce_here("fig6", tmp_path, "--run", study.path, option, value)
        assert (refused.returncode, expected in refused.stderr) == (2, True)


def test_the_same_command_tries_a_failed_model_again(
    reproduce_here: Reproduce, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RIVALS, Scale.SMOKE, {})  # type: ignore[misc]
    for times in (1, 2):
        refused = reproduce_here("fig6", tmp_path, "--set", "training.learning_rate=1e30")
        assert (refused.returncode, f"{times} of {times} failed, the first: " in refused.stderr) == (1, True)
        study = Study.open(tmp_path / "fig6-smoke")
        states = [[record.state for record in records] for records in (study.trials, study.controls)]
        assert states == [["failed"] * times] * 2


def test_nothing_is_drawn_of_a_study_without_a_finished_trial(tmp_path: Path) -> None:
    path = create(scaled(Scale.SMOKE, SPACES), "empty", tmp_path)
    with pytest.raises(RunError, match="no trial has finished"):
        read_portraits(Study.open(path), None, None)


@pytest.mark.parametrize("scale", list(Scale))
def test_rivals_are_those_of_table_1(scale: Scale) -> None:
    config = scaled(scale, SPACES)
    assert config.model.beta is not None
    assert config.search.trials == 1
    for label, (space, changes) in RIVALS[scale].items():
        model = load_space(space, changes).model
        assert model.architecture == {DCIGN: "dcign", INFOGAN: "infogan"}[label]
        assert scale is not Scale.PAPER or model.widths is None
