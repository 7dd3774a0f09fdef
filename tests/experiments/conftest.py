"""The real `bvae-tune reproduce`, at its smallest scale."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from typer.testing import CliRunner


@pytest.fixture(scope="session")
def reproduce() -> Callable[..., CompletedProcess[str]]:
    """Runs `reproduce FIGURE --scale smoke --storage STORAGE ...` to its end."""

    def run(figure: str, storage: Path, *arguments: str | Path) -> CompletedProcess[str]:
        command = Path(sys.executable).with_name("bvae-tune")
        settings = {"NO_COLOR": "1", "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
        return subprocess.run(
            [command, "reproduce", figure, "--scale", "smoke", "--storage", storage, *arguments],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=290,
        )

    return run


@pytest.fixture
def reproduce_here() -> Callable[..., CompletedProcess[str]]:
    """The same in this process, which costs no start: for whatever starts no Ray."""
    from bvae_tune.cli.main import app

    def run(figure: str, storage: Path, *arguments: str | Path) -> CompletedProcess[str]:
        given = ["reproduce", figure, "--scale", "smoke", "--storage", str(storage), *map(str, arguments)]
        result = CliRunner().invoke(app, given, catch_exceptions=False)
        return CompletedProcess(given, result.exit_code, result.stdout, result.stderr)

    return run
