from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

if TYPE_CHECKING:
    from bvae_tune.data.image_store import ImageStore
    from bvae_tune.search.records import Kind, State, TrialRecord

ROOT = Path(__file__).parents[1]

# Two test workers share two cores: threads of one that spin while they wait for each other take them from the other,
# and a training then lasts ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's workers yield to everything else on the machine; a busy one would let the tests wait for minutes.
os.environ.setdefault("RAY_worker_niceness", "0")
SOURCES = ("bvae_tune", "search_spaces", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def command() -> list[str]:
    """The installed program."""
    return [str(Path(sys.executable).with_name("bvae-tune"))]


@pytest.fixture
def invoke() -> Callable[..., CompletedProcess[str]]:
    """Runs a command in this process, which costs no start; one that trains wants `embedded_ray`."""
    from bvae_tune.cli.main import app

    def run(*arguments: str | Path) -> CompletedProcess[str]:
        given = list(map(str, arguments))
        result = CliRunner().invoke(app, given, catch_exceptions=False)
        return CompletedProcess(given, result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def embedded_ray() -> Iterator[None]:
    """One Ray for all tests that do not start their own: starting it takes longer than a tiny study."""
    import ray

    from bvae_tune.search.cluster import ray_session

    with ray_session(None):
        yield
    assert not ray.is_initialized()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the project, built from a copy of the sources: a build in place would leave its folders behind."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="session")
def make_record() -> Callable[..., TrialRecord]:
    """Makes a trial's record whose numbers follow from its arguments; see `_record`."""
    return _record


def _record(
    number: int = 0,
    state: State = "complete",
    *,
    kind: Kind = "search",
    label: str | None = None,
    beta: float = 4.0,
    latent_size: int = 3,
    score: float = 0.5,
    step: int = 400,
    replicas: int = 1,
    kl: float = 8.0,
    **changes: Any,
) -> TrialRecord:
    """Reports every 100 steps; each replica has 1% of score and 1 nat of KL more than the last; latent m has 2**-m."""
    from bvae_tune.metrics.protocol import TrialScore
    from bvae_tune.search.records import TrialRecord, TrialResult

    replica_scores = tuple(score + 0.01 * r for r in range(replicas))
    evaluation = TrialScore(
        score=score,
        spread=0.04 if replicas > 1 else 0.0,
        pairs=4,
        classifier="lbfgs",
        chance=0.25,
        replica_scores=replica_scores,
        seed_scores=tuple((value,) for value in replica_scores),
        profile={1: score / 2, 4: score, 64: 0.9},
        mig=0.125,
        information={"scale": 0.75, "rotation": 0.03},
        missing=("rotation",),
        unusable={},
        agreement=0.625 if replicas > 1 else None,
        converged=True,
    )
    result = TrialResult(
        step=step,
        images_seen=64 * step,
        score=evaluation,
        reconstruction=tuple(100.0 + r for r in range(replicas)),
        kl=tuple(kl + r for r in range(replicas)),
        kl_per_latent=tuple(tuple(2.0**-m for m in range(latent_size)) for _ in range(replicas)),
        images_per_second=1000.0,
        seconds_training=step / 10,
        seconds_evaluating=1.0,
    )
    record = TrialRecord(
        number=number,
        kind=kind,
        label=label or f"trial {number}",
        state=state,
        parameters={"model.beta": beta, "model.latent_size": latent_size} if kind == "search" else {},
        beta=beta,
        beta_norm=beta * latent_size / 4096,
        latent_size=latent_size,
        score=score if state == "complete" else None,
        intermediate=dict.fromkeys(range(100, step + 1, 100), score),
        result=result if step or state == "complete" else None,
        seconds=step / 10 + 1 if step or state == "complete" else None,
        reason=None,
    )
    return dataclasses.replace(record, **changes)


@pytest.fixture(scope="session")
def shapes_grid(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """2,304 of the 2D shapes, the complete grid of 3 shapes, 3 scales, 4 rotations and 8 x 8 positions."""
    from bvae_tune.data.shapes import SPACE, render
    from bvae_tune.data.sources import import_arrays

    chosen = ((0, 1, 2), (0, 2, 5), (0, 3, 6, 9), range(2, 32, 4), range(2, 32, 4))
    factors = np.stack(np.meshgrid(*chosen, indexing="ij"), axis=-1).reshape(-1, 5)
    path = tmp_path_factory.mktemp("shapes") / "grid.arrow"
    return import_arrays(render(factors), name="some shapes", factors=factors, factor_names=SPACE.names, path=path)
