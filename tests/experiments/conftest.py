"""The real `bvae-tune reproduce`, at its smallest scale."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest


@pytest.fixture(scope="session")
def reproduce(command: list[str]) -> Callable[..., CompletedProcess[str]]:
    """Runs `reproduce FIGURE --scale smoke --storage STORAGE ...` to its end."""

    def run(figure: str, storage: Path, *arguments: str | Path) -> CompletedProcess[str]:
        return subprocess.run(
            [*command, "reproduce", figure, "--scale", "smoke", "--storage", storage, *arguments],
            env={**os.environ, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=290,
        )

    return run


@pytest.fixture
def reproduce_here(invoke: Callable[..., CompletedProcess[str]]) -> Callable[..., CompletedProcess[str]]:
    """The same in this process, which costs no start."""

    def run(figure: str, storage: Path, *arguments: str | Path) -> CompletedProcess[str]:
        return invoke("reproduce", figure, "--scale", "smoke", "--storage", storage, *arguments)

    return run
