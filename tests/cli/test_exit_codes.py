"""What the program exits with. That of failed and of interrupted runs is among the tests of the search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import typer
from typer.testing import CliRunner

from bvae_tune.cli.main import Commands


def test_bad_input_is_2(run_command: Callable[..., CompletedProcess[str]], space_file: Path) -> None:
    outcome = run_command("search", "--space", space_file, "--set", "search.trials=0")
    assert outcome.returncode == 2
    assert outcome.stderr == "error: --set search.trials=0: 0 must be at least 1\n"


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
