"""What every figure's study refuses before anything is trained. Seed: 0 (labels)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import psutil
import pytest

from bvae_tune.data.sources import import_arrays
from bvae_tune.experiments.model_table import BEST
from bvae_tune.search.study import Study

Reproduce = Callable[..., CompletedProcess[str]]


@pytest.mark.parametrize("figure", ["fig5-left", "fig6"])
@pytest.mark.parametrize(
    ("kept", "expected"), [(48, "these show size, colour"), (41, "these show size, colour, not in every combination")]
)
def test_images_without_the_factors_of_shapes(
    reproduce_here: Reproduce, tmp_path: Path, figure: str, kept: int, expected: str
) -> None:
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(6), indexing="ij"), axis=-1).reshape(-1, 2)[:kept]
    images = np.zeros((len(grid), 64, 64), bool)
    import_arrays(images, factors=grid, factor_names=("size", "colour"), path=tmp_path / "own.arrow")
    settings = ["dataset.source=arrow", f"dataset.path={tmp_path / 'own.arrow'}", "labels.factors=[size, colour]"]
    settings.append("labels.count=40")
    given = [part for setting in settings for part in ("--set", setting)]
    refused = reproduce_here(figure, tmp_path / "runs", *given)
    assert refused.returncode == 2
    assert "images of three shapes in every combination" in refused.stderr
    assert expected in refused.stderr
    assert not list((tmp_path / "runs").iterdir())


def test_an_error_names_no_setting_that_nobody_gave(reproduce_here: Reproduce, tmp_path: Path) -> None:
    refused = reproduce_here("fig6", tmp_path, "--set", "training.steps=7")
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: --set training.steps=7: steps 7 is no multiple of report_every 20; steps 20 would be\n"
    )


def begin(command: list[str], figure: str, storage: Path, *settings: str) -> subprocess.Popen[str]:
    arguments = ["reproduce", figure, "--scale", "smoke", "--storage", str(storage), *settings]
    return subprocess.Popen(
        [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not there():
        assert process.poll() is None
        time.sleep(0.05)


@pytest.mark.slow
def test_an_interrupted_figure_goes_on_where_it_was(reproduce: Reproduce, command: list[str], tmp_path: Path) -> None:
    path, steps = tmp_path / "stopped/fig5-right-smoke", ("--set", "training.steps=400")
    process = begin(command, "fig5-right", path.parent, *steps)
    wait_for(lambda: any(path.glob("trials/*/step-*")), process)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (130, "interrupted; go on with: the same command again\n")
    before = Study.open(path)
    assert not before.finished
    assert reproduce("fig5-right", path.parent, *steps).returncode == 0
    assert (path / "fig5_right.png").is_file()
    after = Study.open(path)
    assert len(after.sessions) == 2

    assert reproduce("fig5-right", tmp_path / "whole", *steps).returncode == 0
    whole = Study.open(tmp_path / "whole/fig5-right-smoke")
    assert [trial.parameters for trial in after.trials] == [trial.parameters for trial in whole.trials]
    assert [trial.intermediate for trial in after.trials] == [trial.intermediate for trial in whole.trials]


@pytest.mark.slow
def test_a_table_killed_between_its_search_and_the_network_at_its_best_goes_on(
    reproduce: Reproduce, command: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "fig5-left-smoke"
    process = begin(command, "fig5-left", tmp_path)
    wait_for(lambda: (path / "optuna.journal").exists() and Study.open(path).finished, process)
    children = psutil.Process(process.pid).children(recursive=True)
    for each in (process, *children):
        each.kill()
    process.communicate(timeout=60)
    psutil.wait_procs(children, timeout=30)
    before = Study.open(path)
    assert before.finished
    assert BEST not in {record.label for record in before.controls}
    outcome = reproduce("fig5-left", tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    after = Study.open(path)
    for ended, was in zip((*after.trials, *after.controls), (*before.trials, *before.controls), strict=False):
        assert (ended.label, ended.score, ended.seconds) == (was.label, was.score, was.seconds)
    assert (after.controls[-1].label, after.controls[-1].state) == (BEST, "complete")
    assert BEST in outcome.stdout
