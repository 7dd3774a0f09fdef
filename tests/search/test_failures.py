"""Trials that fail and workers that are lost, in whole studies on a real embedded Ray. The search seed is 3."""

from __future__ import annotations

import io
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest
import yaml
from ray_workers import workers
from rich.console import Console

import bvae_tune
from bvae_tune.search.runner import search
from bvae_tune.search.study import Study
from bvae_tune.search.tuning import RETRIES

pytestmark = pytest.mark.usefixtures("embedded_ray")
MakeSpace = Callable[..., dict[str, Any]]
Invoke = Callable[..., CompletedProcess[str]]


def test_failed_trials_have_their_reason_and_the_study_goes_on(
    make_space: MakeSpace, invoke: Invoke, tmp_path: Path
) -> None:
    space = make_space(
        space={"training.learning_rate": {"grid": [1e30, 0.01]}},
        model={"beta": 2.0},
        search={"sampler": "grid", "baselines": []},
    )
    study = bvae_tune.search(space, ["training.steps=10"], name="failing", storage=tmp_path)
    assert [trial.state for trial in study.trials] == ["failed", "complete"]
    assert "not finite" in (study.trials[0].reason or "")
    assert study.best == study.trials[1]
    assert not (study.path / "trials/00000").exists()

    space["space"]["training.learning_rate"] = {"grid": [1e30, 1e31]}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    outcome = invoke("search", "--space", tmp_path / "space.yaml", "--storage", tmp_path, "--name", "hopeless")
    assert outcome.returncode == 1  # nothing came of the run
    assert re.fullmatch(r"error: .*no trial ran to its end; 2 of 2 failed, the first: .*not finite.*\n", outcome.stderr)
    assert "Traceback" not in outcome.stdout
    assert "no finished trial yet" not in outcome.stdout.splitlines()[-1]
    for command in ("best", "traverse", "evaluate", "confirm"):
        refused = invoke(command, tmp_path / "hopeless")
        assert "no trial ran to its end; 2 of 2 failed, the first: " in refused.stderr
        assert refused.returncode == (1 if command == "best" else 2)
    failed = Study.open(tmp_path / "hopeless").trials
    assert [trial.state for trial in failed] == ["failed", "failed"]
    assert all("learning rate" in (trial.reason or "") for trial in failed)


@pytest.mark.parametrize(
    ("key", "values", "when"),
    [
        ("training.batch_size", [10**14, 16], "at step 0"),
        ("model.widths", [[10**6] * 2, [16]], "4,000.0 GB asked for at once"),
    ],
)
def test_a_trial_that_no_memory_can_hold_fails_with_its_reason_and_the_study_goes_on(
    make_space: MakeSpace, tmp_path: Path, key: str, values: list[Any], when: str
) -> None:
    space = make_space(space={key: {"grid": values}}, model={"beta": 2.0}, search={"sampler": "grid", "baselines": []})
    told = io.StringIO()
    study = bvae_tune.search(space, name="starved", storage=tmp_path, console=Console(file=told, width=400))
    starved, fed = study.trials
    assert (starved.state, fed.state) == ("failed", "complete")
    assert re.match(f"out of memory.*{when}.*lower training.batch_size, model.widths", starved.reason or "")
    assert f"trial 0: failed: {starved.reason}" in told.getvalue()
    assert "Traceback" not in told.getvalue()
    assert study.best == fed


@pytest.mark.slow
def test_a_trial_that_takes_the_machine_s_memory_fails_and_the_study_goes_on(
    make_space: MakeSpace, command: list[str], tmp_path: Path
) -> None:
    space = make_space(
        space={"training.batch_size": {"grid": [10**7, 16, 32]}},  # the first takes some ten gigabytes
        model={"beta": 2.0},
        search={"trials": 3, "sampler": "grid", "baselines": []},
        resources={"concurrent_trials": 2},
    )
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    memory = psutil.virtual_memory()
    allowed = (memory.total - memory.available + 4e9) / memory.total  # Ray kills workers above it
    found = subprocess.run(
        [*command, "search", "--space", tmp_path / "space.yaml", "--storage", tmp_path, "--name", "short"],
        env={**os.environ, "RAY_memory_usage_threshold": f"{allowed:.3f}"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert (found.returncode, "Traceback" in found.stdout) == (0, False), found.stderr
    first, *others = Study.open(tmp_path / "short").trials
    assert first.state == "failed"
    assert re.fullmatch(r"out of memory: .*killed due to the node running low on memory\.", first.reason or "")
    assert f"trial 0: failed: {first.reason}" in found.stdout
    assert [trial.state for trial in others] == ["complete", "complete"]


SLOW = {"steps": 2_000, "report_every": 200}


@contextmanager
def killer(kills: int, trial: Path, at_once: bool = False) -> Iterator[list[int]]:
    """Kills so many workers, each as soon as the trial has another checkpoint than at the kill before, or at once."""
    killed: list[int] = []
    seen: set[Path] = set()
    stop = threading.Event()

    def hunt() -> None:
        while not stop.wait(0.05) and len(killed) < kills:
            checkpoints = set(trial.glob("step-*.safetensors"))
            if at_once or checkpoints - seen:
                for process in workers("ray::BetaVAETrainable.train"):
                    if process.pid in killed:
                        continue
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                        killed.append(process.pid)
                        seen.update(trial.glob("step-*.safetensors"))

    thread = threading.Thread(target=hunt)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow  # of a bank, and before the first report, it is seen below
def test_a_killed_worker_is_replaced_and_its_trial_goes_on_from_its_checkpoint(
    make_space: MakeSpace, tmp_path: Path
) -> None:
    space = make_space(search={"trials": 1, "baselines": []}, training=SLOW)
    told = io.StringIO()
    with killer(1, tmp_path / "killed/trials/00000") as killed:
        study = search(space, name="killed", storage=tmp_path, console=Console(file=told, width=200))
    assert len(killed) == 1
    assert "trial 0: the worker was lost" in told.getvalue()
    (trial,) = study.trials
    assert (trial.state, list(trial.intermediate)) == ("complete", list(range(200, 2_001, 200)))


@pytest.mark.slow
def test_a_bank_whose_worker_is_killed_goes_on_from_the_checkpoints_of_its_trials(
    make_space: MakeSpace, tmp_path: Path
) -> None:
    space = make_space(
        space={"beta": {"grid": [1, 2, 1e39]}},
        search={"trials": 3, "sampler": "grid", "baselines": []},
        training=SLOW,
        resources={"trials_per_bank": 3},
    )
    told = io.StringIO()
    with killer(RETRIES + 1, tmp_path / "killed/trials/00000") as killed:
        study = search(space, name="killed", storage=tmp_path, console=Console(file=told, width=200))
    assert len(killed) == RETRIES + 1  # each time after another report, so none of them counts
    assert "\ntrial 0, trial 1: the worker was lost" in told.getvalue()  # the second time
    *healthy, diverged = study.trials
    for trial in healthy:
        assert (trial.state, list(trial.intermediate)) == ("complete", list(range(200, 2_001, 200)))
    assert (diverged.state, diverged.intermediate) == ("failed", {})
    assert not (study.path / "trials/00002").exists()  # the workers after the second have not begun it again


def test_a_trial_whose_workers_are_killed_before_they_report_fails_and_the_study_goes_on(
    make_space: MakeSpace, tmp_path: Path
) -> None:
    space = make_space(search={"trials": 2, "baselines": []}, training=SLOW)
    with killer(RETRIES + 1, tmp_path / "killed/trials/00000", at_once=True) as killed:
        study = search(space, name="killed", storage=tmp_path)
    assert len(killed) == RETRIES + 1
    first, second = study.trials
    assert first.state == "failed"
    assert "the worker was lost" in (first.reason or "")
    assert max(first.intermediate, default=0) < SLOW["steps"]
    assert second.state == "complete"
