"""A study so small that the real command runs it in seconds: squares on 8x8 pixels, a narrow network, few steps."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

SPACE = """\
dataset: {{source: npz, path: {images}}}
labels: {{seed: 0}}
model: {{architecture: fc, widths: [16], latent_size: 3}}
training: {{steps: 20, report_every: 10, batch_size: 16, learning_rate: 1e-2}}
metric: {{train_points: 200, test_points: 200, profile: [1]}}
protocol: {{classifier_seeds: 1}}
space:
  beta: {{loguniform: [0.25, 16]}}
  latent_size: {{int: [2, 6]}}
search: {{trials: 2, startup_trials: 2, seed: 3}}
resources: {{concurrent_trials: 1}}
"""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of imported images for these tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def environment(cache: Path) -> dict[str, str]:
    """Of the real command: its own cache, no colours."""
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "160", "BVAE_TUNE_CACHE": str(cache)}


@pytest.fixture(scope="session")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search space over 108 images: a square of three sizes at 6 x 6 positions."""
    folder = tmp_path_factory.mktemp("space")
    factors = np.array([(x, y, size) for x in range(6) for y in range(6) for size in range(3)])
    images = np.zeros((len(factors), 8, 8), np.uint8)
    for image, (x, y, size) in zip(images, factors, strict=True):
        image[y : y + 1 + size, x : x + 1 + size] = 255
    np.savez(folder / "squares.npz", images=images, factors=factors, factor_names=np.array(["x", "y", "size"]))
    path = folder / "tiny.yaml"
    path.write_text(SPACE.format(images=folder / "squares.npz"))
    return path


@pytest.fixture(scope="session")
def run_command(command: list[str], environment: dict[str, str]) -> Callable[..., CompletedProcess[str]]:
    """Runs the real program to its end."""

    def run(*arguments: str | Path) -> CompletedProcess[str]:
        return subprocess.run(
            [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=240
        )

    return run


@pytest.fixture
def invoke(
    invoke: Callable[..., CompletedProcess[str]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., CompletedProcess[str]]:
    """As everywhere, with the environment of the real command."""
    monkeypatch.setenv("BVAE_TUNE_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "160")
    return invoke


@pytest.fixture(scope="session")
def searched(
    run_command: Callable[..., CompletedProcess[str]], space_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, CompletedProcess[str]]:
    """A finished study and what the search printed."""
    storage = tmp_path_factory.mktemp("runs")
    return storage / "tiny", run_command("search", "--space", space_file, "--name", "tiny", "--storage", storage)


@pytest.fixture(scope="session")
def study(searched: tuple[Path, CompletedProcess[str]]) -> Path:
    """The finished study's folder."""
    path, outcome = searched
    assert outcome.returncode == 0, outcome.stderr
    return path
