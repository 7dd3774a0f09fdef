"""What the real program exits with, and that nobody sees a trace. Seed: 3, the study's."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import typer
from typer.testing import CliRunner

from bvae_tune.cli.main import Commands
from bvae_tune.search.study import Study


def test_bad_input_is_2(run_command: Callable[..., CompletedProcess[str]], space_file: Path) -> None:
    outcome = run_command("search", "--space", space_file, "--set", "search.trials=0")
    assert outcome.returncode == 2
    assert outcome.stderr == "error: --set search.trials=0: 0 must be at least 1\n"


def test_a_run_of_which_nothing_came_is_1(
    run_command: Callable[..., CompletedProcess[str]], space_file: Path, tmp_path: Path
) -> None:
    settings = ("--set", "training.learning_rate=1e30", "--set", "search.baselines=[]", "--trials", "1")
    outcome = run_command("search", "--space", space_file, "--storage", tmp_path, "--name", "failed", *settings)
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: ")
    assert "the loss is not finite" in outcome.stderr
    assert "Traceback" not in outcome.stdout + outcome.stderr
    (record,) = Study.open(tmp_path / "failed").trials
    assert record.state == "failed"
    assert record.reason is not None
    assert "learning rate" in record.reason


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_1() -> None:
    program = typer.Typer(cls=Commands)

    @program.command()
    def write() -> None:
        Path("/dev/full").write_text("results")  # takes nothing, as a full disk

    @program.command()
    def other() -> None:
        Path("/dev/full/no/folder").touch()

    runner = CliRunner()
    outcome = runner.invoke(program, ["write"])
    assert outcome.exit_code == 1
    assert "No space left on device; free some space" in outcome.stderr
    assert isinstance(runner.invoke(program, ["other"]).exception, NotADirectoryError)


def test_ctrl_c_is_130_and_the_study_goes_on(
    command: list[str],
    environment: dict[str, str],
    run_command: Callable[..., CompletedProcess[str]],
    space_file: Path,
    tmp_path: Path,
) -> None:
    study = tmp_path / "stopped"
    settings = ("--set", "training.steps=1500", "--set", "training.report_every=100", "--trials", "1")
    arguments = ("search", "--space", str(space_file), "--storage", str(tmp_path), "--name", study.name, *settings)
    process = subprocess.Popen(
        [*command, *arguments], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _wait_for(lambda: any(study.glob("controls/00001/step-*")), process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert error == f"interrupted; go on with: bvae-tune resume {study}\n"
    assert not Study.open(study).finished
    assert run_command("resume", study).returncode == 0
    opened = Study.open(study)
    assert [record.state for record in (*opened.controls, *opened.trials)] == ["complete"] * 3


def _wait_for(seen: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        assert process.poll() is None
        if seen():
            return
        time.sleep(0.1)
    raise AssertionError("no trial reported within two minutes")
