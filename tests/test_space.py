"""The search space: every mistake it can hold is named with its place and the way out. Seed: none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bvae_tune.errors import InputError
from bvae_tune.models.config import ModelConfig
from bvae_tune.space import configure, full_key, load_space, searchable_keys, short_key
from bvae_tune.space_config import Distribution
from bvae_tune.space_file import packaged_spaces

SPACE = """\
dataset: {source: shapes}
labels: {count: 500, factors: [scale, rotation]}
model:
  architecture: fc
  widths: [16, 16]
  latent_size: 4
training:
  learning_rate: 2e-3
  steps: 1e2
  report_every: 50
space:
  beta: {loguniform: [2.5e-1, 1E+2]}
  latent_size: {int: [2, 20]}
search: {trials: 3}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def message(space: Any, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_space(space, overrides)
    return str(caught.value)


def test_numbers_with_a_bare_exponent_are_numbers_everywhere(tmp_path: Path) -> None:
    config = load_space(write(tmp_path, SPACE))
    assert config.training.learning_rate == 0.002
    assert config.training.steps == 100
    assert isinstance(config.training.steps, int)
    assert config.space["model.beta"] == Distribution("loguniform", 0.25, 100)
    overridden = load_space(tmp_path / "mine.yaml", ["training.learning_rate=5e-4", "space.beta={grid: [1e0, 4e1]}"])
    assert overridden.training.learning_rate == 0.0005
    assert overridden.space["model.beta"] == Distribution("grid", choices=(1, 40))


def test_a_resolved_space_reads_back_equal(tmp_path: Path) -> None:
    config = load_space(
        write(tmp_path, SPACE),
        ["space.model.widths={categorical: [[16, 16], [32, 8]]}", "space.training.optimizer={categorical: [adam]}"],
    )
    assert load_space(write(tmp_path, config.to_yaml())) == config
    assert load_space(yaml.safe_load(config.to_yaml())) == config
    assert load_space(config) == config


@pytest.mark.parametrize("name", sorted(packaged_spaces()))
def test_packaged_spaces_load_by_name_and_by_file(name: str) -> None:
    assert load_space(name) == load_space(packaged_spaces()[name])


def test_the_packaged_spaces_are_those_of_the_repository() -> None:
    assert {"shapes", "shapes_paper"} <= packaged_spaces().keys()
    paper = load_space("shapes_paper")
    assert (paper.protocol.replicas, paper.protocol.classifier_seeds, paper.protocol.keep) == (10, 3, 0.5)
    assert (paper.training.optimizer, paper.training.learning_rate, paper.training.batch_size) == ("adagrad", 0.01, 64)
    assert (paper.model.architecture, paper.model.layer_widths) == ("fc", (1200, 1200))


@pytest.mark.parametrize(
    ("name", "beta", "likelihood", "source", "channels"),
    [
        ("chairs", 5, "bernoulli", "folder", 1),
        ("faces", 20, "bernoulli", "folder", 1),
        ("celeba", 250, "gaussian", "celeba", 3),
    ],
)
def test_the_image_spaces_are_table_1(name: str, beta: float, likelihood: str, source: str, channels: int) -> None:
    config = load_space(name)
    model, training = config.model, config.training
    assert (model.architecture, model.widths, model.likelihood) == ("conv", (32, 32, 64, 64, 256), likelihood)
    assert (training.optimizer, training.learning_rate, model.latent_size) == ("adam", 1e-4, 32)
    assert (config.dataset.source, config.dataset.size, config.dataset.channels) == (source, 64, channels)
    for key, paper in (("model.beta", beta), ("model.latent_size", 32)):
        low, high = config.space[key].extremes
        assert low < paper < high


def test_an_unknown_name_lists_the_packaged_ones() -> None:
    assert f"packaged: {', '.join(packaged_spaces())})" in message("shaeps")
    assert "no such file" in message("nowhere/shapes.yaml")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "learning_rate",
            "learning_rat",
            ["line 8, training.learning_rat", "did you mean learning_rate?", "report_ev"],
        ),
        ("training:", "trainign:", ["line 7, trainign", "did you mean training?", "protocol"]),
        ("architecture: fc", "architecture: fcc", ["line 4, model.architecture", "fc, conv"]),
        ("steps: 1e2", "steps: many", ["line 9, training.steps", "'many'", "integer"]),
        ("steps: 1e2", "steps: true", ["line 9, training.steps", "True", "integer"]),
        ("steps: 1e2", "steps: 2.5", ["line 9, training.steps", "2.5", "integer"]),
        ("steps: 1e2", "steps: -1", ["line 9, training.steps", "-1", "at least 0"]),
        ("steps: 1e2", "steps: 75", ["line 10, training.report_every", "75", "50"]),
        ("[16, 16]", "[16, 1e13]", ["line 5, model.widths", "from 1 to 1,000,000"]),
        ("[16, 16]", "[16, x]", ["line 5, model.widths.1", "'x'", "integer"]),
        ("[2.5e-1, 1E+2]", "[8, 4]", ["line 12, space.beta", "low 8 is above high 4"]),
        ("[2.5e-1, 1E+2]", "[0, 4]", ["line 12, space.beta", "above zero"]),
        ("[2.5e-1, 1E+2]", "[1, 2, 4]", ["line 12, space.beta", "a low and a high bound"]),
        ("[2.5e-1, 1E+2]", "[1, .inf]", ["line 12, space.beta", "finite"]),
        ("{loguniform: [2.5e-1, 1E+2]}", "{categorical: [1, null]}", ["line 12, space.beta", "without a β"]),
        ("latent_size: 4", "sigma: .inf", ["line 6, model.sigma", "finite"]),
        ("[2.5e-1, 1E+2]", "[one, 4]", ["line 12, space.beta", "'one'"]),
        ("loguniform", "lognormal", ["line 12, space.beta", "did you mean loguniform?", "categorical"]),
        ("beta: {loguniform: [2.5e-1, 1E+2]}", "beta: 4", ["line 12, space.beta is 4", "{uniform: [1, 4]}"]),
        ("  beta:", "  betta:", ["line 12, space.betta", "cannot be searched", "did you mean beta?"]),
        ("  latent_size: {", "  model.beta: {", ["line 13, space.model.beta", "the same key as beta"]),
        ("{int: [2, 20]}", "{int: [2, 20.5]}", ["line 13, space.latent_size", "whole numbers"]),
        ("{int: [2, 20]}", "{uniform: [2, 20]}", ["line 13, space.latent_size", "use int or logint"]),
        (
            "{int: [2, 20]}",
            "{int: [0, 20]}",
            ["line 13, space.latent_size", "0 is not possible", "from 1 to 1,000,000"],
        ),
        ("{int: [2, 20]}", "{categorical: [2, many]}", ["line 13, space.latent_size", "'many' is not possible"]),
        ("{int: [2, 20]}", "{categorical: []}", ["line 13, space.latent_size", "at least one choice"]),
        ("{int: [2, 20]}", "{grid: [2, 2]}", ["line 13, space.latent_size", "twice"]),
        ("latent_size: {int", "model.architecture: {int", ["line 13, space.model.architecture", "not possible"]),
        ("latent_size: {int", "beta_norm: {int", ["line 13, space.beta_norm", "both searched"]),
        ("latent_size: 4", "beta_norm: 1", ["line 6, model.beta_norm", "beta is searched", "take beta_norm out"]),
        ("latent_size: 4", "beta: 1", ["line 6, model.beta", "beta is searched", "of no effect"]),
        ("latent_size: 4", "sigma: 0.1", ["line 6, model.sigma", "of no effect with bernoulli"]),
        ("latent_size: {int: [2", "model.sigma: {uniform: [1", ["line 13, space.model.sigma", "of no effect"]),
        ("learning_rate: 2e-3", "learning_rate: .inf", ["line 8, training.learning_rate", "and finite"]),
        ("latent_size: 4", "beta: 1\n  beta_norm: 1", ["line 6, model.beta", "beta_norm are both given"]),
        ("trials: 3", "trials: 0", ["line 14, search.trials", "0 must be at least 1"]),
        ("trials: 3", "sampler: grid", ["line 12, space.beta", "the grid sampler needs lists"]),
        ("trials: 3", "pruner: halving", ["line 14, search.min_resource", "halving needs it"]),
        ("trials: 3", "pruner: halving, min_resource: 70", ["line 14, search.min_resource", "no multiple"]),
        ("trials: 3", "pruner: median, min_resource: 150", ["line 14, search.min_resource", "above training.steps"]),
        ("trials: 3", "baselines: [untraind]", ["line 14, search.baselines.0", "did you mean untrained?"]),
        ("search: {trials: 3}", "search: 3", ["line 14, search", "group of keys"]),
        ("search: {trials: 3}", "search:", ["line 14, search", "group of keys"]),
        ("search: {", "resources: {gpus_per_trial: 1.5}\nsearch: {", ["line 14, resources.gpus_per_trial", "fraction"]),
        ("search: {", "resources: {cpus_per_trial: 0}\nsearch: {", ["line 14, resources.cpus_per_trial", "above 0"]),
        (
            "search: {",
            "resources: {trials_per_bank: 0}\nsearch: {",
            ["line 14, resources.trials_per_bank", "at least 1"],
        ),
        ("search: {", "resources: {trials_per_bank: 2}\nsearch: {", ["line 14, resources.trials_per_bank", "grid"]),
        ("search: {", "resources: {concurrent_trials: 0}\nsearch: {", ["line 14, resources.concurrent", "at least 1"]),
        ("search: {", "model: {}\nsearch: {", ["line 14, model", "given twice (first on line 3)"]),
        ("steps: 1e2", "steps: [1", ["line 10", "not valid YAML"]),
        ("search: {trials: 3}", "search: &search [*search]", ["contains itself"]),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_way_out(
    tmp_path: Path, old: str, new: str, expected: list[str]
) -> None:
    assert SPACE.count(old) == 1
    found = message(write(tmp_path, SPACE.replace(old, new)))
    assert "mine.yaml" in found
    for part in expected:
        assert part in found


@pytest.mark.parametrize(
    ("settings", "blamed"),
    [
        (["training.steps=75"], 0),
        (["training.report_every=30"], 0),
        (["training.report_every=50", "training.steps=75"], 1),
        (["training.steps=100", "training.report_every=30"], 1),
        (["training.steps=75", "training.report_every=30", "training.steps=100"], 2),
        (["space.beta=null", "model.beta=1", "model.beta_norm=1"], 2),
        (["space.beta=null", "model.beta_norm=1", "model.beta=1"], 2),
        (["training.report_every=50", "training={steps: 75, report_every: 50}"], 1),
        (["training.steps=75", "training={steps: 75, report_every: 50}"], 1),
        (["space.beta=null"], 0),
        (["resources.trials_per_bank=2", "search.sampler=random"], 1),
        (["model.widths=[8, 8]", "model.architecture=conv"], 1),
        (["model.beta_norm=1"], 0),
        (["space.beta_norm={uniform: [1, 2]}"], 0),
        (["search.sampler=grid"], 0),
        (["search.pruner=median", "search.min_resource=50", "training.steps=0"], 2),
        (["model.architecture=infogan", "space.beta=null", "space.latent_size=null"], 0),
    ],
)
def test_of_keys_that_do_not_go_together_the_setting_is_blamed_that_came_last(
    tmp_path: Path, settings: list[str], blamed: int
) -> None:
    text = SPACE.replace("  widths: [16, 16]\n", "").replace("  latent_size: 4\n", "")
    assert message(write(tmp_path, text), *settings).startswith(f"--set {settings[blamed]}: ")


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = SPACE.replace("architecture: fc", "architecture: fcc").replace("count: 500", "cuont: 500")
    found = message(write(tmp_path, text)).splitlines()
    assert ["labels.cuont" in found[0], "model.architecture" in found[1], len(found)] == [True, True, 2]


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "just words\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "mapping of keys" in message(write(tmp_path, text))


def test_beta_must_come_from_somewhere(tmp_path: Path) -> None:
    assert "give beta or beta_norm, or search one of them" in message(write(tmp_path, "space: {}\n"))
    assert "give beta or beta_norm" in message(write(tmp_path, ""))
    assert load_space(tmp_path / "mine.yaml", ["model.beta=4"]).model.beta == 4


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.steps", "write key=value"),
        ("=3", "write key=value"),
        ("training.steps={", "not valid YAML"),
        ("training.stesp=3", "did you mean steps?"),
        ("trainign.steps=3", "did you mean training?"),
        ("labels.factors=scale", "is 'scale', but should be a list, as in [scale]"),
        ("steps=3", "did you mean training.steps? (allowed: dataset,"),
        ("seed=3", "did you mean labels.seed or search.seed?"),
        ("model.learning_rate=1", "did you mean training.learning_rate? (allowed: architecture,"),
        ("training.steps.more=3", "steps is not a group of keys"),
        ("search.trials=0", "at least 1"),
        ("metric.ridge=.inf", "0 or more, and finite"),
        ("space.beta={uniform: [4, 1]}", "low 4 is above high 1"),
    ],
)
def test_a_bad_setting_is_quoted(tmp_path: Path, setting: str, expected: str) -> None:
    found = message(write(tmp_path, SPACE), setting)
    assert found.startswith(f"--set {setting}: ")
    assert expected in found


def test_settings_replace_and_remove(tmp_path: Path) -> None:
    path = write(tmp_path, SPACE)
    config = load_space(path, ["space.beta=null", "model.beta=4", "space.training.batch_size={int: [1, 9]}"])
    assert set(config.space) == {"model.latent_size", "training.batch_size"}
    by_other_name = load_space(path, ["space.model.beta=null", "model.beta=4", "space.model.latent_size={int: [1, 3]}"])
    assert by_other_name.space == {"model.latent_size": Distribution("int", 1, 3)}
    given = {"model": {"beta": 1.0}}
    assert load_space(given, ["model.beta=2"]).model.beta == 2
    assert given == {"model": {"beta": 1.0}}


def test_configure_puts_a_trial_together(tmp_path: Path) -> None:
    config = load_space(write(tmp_path, SPACE))
    model, training = configure(config, {"beta": 4, "latent_size": 7, "training.batch_size": 8})
    assert model == ModelConfig("fc", (16, 16), latent_size=7, beta=4.0)
    assert (training.batch_size, training.steps) == (8, 100)
    assert configure(config, {"model.widths": "[8, 4]", "beta_norm": 0.1})[0].widths == (8, 4)
    assert configure(load_space(config, ["space.beta=null", "model.beta_norm=0.1"]), {"beta": 1})[0] == ModelConfig(
        "fc", (16, 16), latent_size=4, beta=1.0
    )


@pytest.mark.parametrize("parameters", [{"betta": 1}, {"training.steps": "many"}, {"latent_size": 0}, {"beta": -1.0}])
def test_configure_refuses_what_does_not_fit(tmp_path: Path, parameters: dict[str, Any]) -> None:
    config = load_space(write(tmp_path, SPACE))
    with pytest.raises(InputError, match=next(iter(parameters))):
        configure(config, parameters)


def test_every_key_of_model_and_training_can_be_searched(tmp_path: Path) -> None:
    config = load_space(write(tmp_path, SPACE), ["space.beta=null", "model.beta=1", "model.likelihood=gaussian"])
    for key in searchable_keys():
        room, _, name = key.partition(".")
        value = config.to_dict()[room][name]
        if key == "model.beta_norm":
            continue
        body = yaml.safe_dump({"categorical": [value]}, default_flow_style=True)
        given = ["model.beta=null"] if key == "model.beta" else []  # β is given or searched
        searched = load_space(config, [f"space.{key}={body}", *given])
        assert getattr(getattr(searched, room), name) == (None if given else getattr(getattr(config, room), name))
        assert configure(searched, {key: searched.space[key].choices[0]}) == (config.model, config.training)
        assert full_key(short_key(key)) == key


def test_reading_a_space_imports_no_torch() -> None:
    script = "import bvae_tune.space, sys; print([m for m in ('torch', 'ray', 'optuna', 'scipy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
