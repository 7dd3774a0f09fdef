"""Looking before a search: `data build`, `data info`, `plan`. Seed: 3, the space's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import yaml

from bvae_tune.cli.printing import print_json
from bvae_tune.search.plan import START_SECONDS
from bvae_tune.space import load_space

Invoke = Callable[..., CompletedProcess[str]]


@pytest.fixture
def images(space_file: Path) -> Path:
    """The file behind the tiny search space."""
    return space_file.with_name("squares.npz")


def test_build_says_what_is_there(invoke: Invoke, images: Path, cache: Path) -> None:
    outcome = invoke("data", "build", images)
    assert outcome.returncode == 0
    assert outcome.stdout.startswith(f"108 images in {cache}")


def test_info_gives_facts_and_a_sheet(invoke: Invoke, images: Path, tmp_path: Path) -> None:
    found = json.loads(invoke("data", "info", images, "--json").stdout)
    pixels = np.load(images)["images"] / 255
    assert (found["count"], found["size"], found["bits"], found["damage"]) == (108, [1, 8, 8], 1, None)
    assert found["mean_pixel"] == pytest.approx(pixels.mean())
    assert Path(found["sheet"]).read_bytes().startswith(b"\x89PNG")
    outcome = invoke("data", "info", images, "--sheet", tmp_path / "sheet.png")
    assert f"{pixels.mean():.4f}" in outcome.stdout
    assert "matches the content" in outcome.stdout
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_plan_resolves_and_measures(invoke: Invoke, space_file: Path) -> None:
    settings = ("--set", "space.beta=null", "--set", "model.beta=2", "--trials", "7")
    config = load_space(space_file, ["space.beta=null", "model.beta=2", "search.trials=7"])
    outcome = invoke("plan", "--space", space_file, *settings)
    assert outcome.returncode == 0
    written, table = outcome.stdout.split("\ntrials ")
    assert load_space(yaml.safe_load(written)) == config
    assert "108 images; x 6 values, y 6 values, size 3 values; chance 33.3%" in table
    for word in ("7 and 2 baselines", "memory", "disk", "checkpoint", "time", "Measured on this machine"):
        assert word in table
    found = json.loads(invoke("plan", "--space", space_file, *settings, "--json").stdout)
    assert load_space(found["space"]) == config
    assert found["plan"]["trials"] == 7
    assert found["plan"]["seconds"] > START_SECONDS


def test_plan_tells_of_missing_labels_before_it_looks_for_images(invoke: Invoke, space_file: Path) -> None:
    settings = ("--set", "labels.path=nowhere.csv", "--set", "dataset.path=missing.npz")
    outcome = invoke("plan", "--space", space_file, *settings)
    assert (outcome.returncode, outcome.stderr) == (2, "error: labels.path: nowhere.csv: no such file\n")


def test_json_has_no_numbers_that_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [float("nan"), float("inf"), 0.5], 3: ("β", None)})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 0.5], "3": ["β", None]}
