"""A study small enough that a whole search takes seconds: squares on 8x8 pixels, narrow networks, few steps."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bvae_tune.data.sources import import_arrays, load_labels, open_dataset
from bvae_tune.search.task import TrialTask
from bvae_tune.space import StudyConfig, load_space

SEED = 3


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """108 images: a square of three sizes at 6 x 6 positions."""
    factors = np.array([(x, y, size) for x in range(6) for y in range(6) for size in range(3)])
    images = np.zeros((len(factors), 8, 8), np.uint8)
    for image, (x, y, size) in zip(images, factors, strict=True):
        image[y : y + 1 + size, x : x + 1 + size] = 255
    path = tmp_path_factory.mktemp("data") / "squares.arrow"
    import_arrays(images, name="squares", factors=factors, factor_names=["x", "y", "size"], path=path)
    return path


@pytest.fixture(scope="session")
def make_space(squares: Path) -> Callable[..., dict[str, Any]]:
    """Makes the search space of a tiny study; keyword arguments replace single keys, as `search={"trials": 2}`."""

    def make(**changes: dict[str, Any]) -> dict[str, Any]:
        space: dict[str, Any] = {
            "dataset": {"source": "arrow", "path": str(squares)},
            "labels": {"seed": 0},
            "model": {"architecture": "fc", "widths": [16], "latent_size": 3},
            "training": {"steps": 30, "report_every": 10, "batch_size": 16, "learning_rate": 0.01},
            "metric": {"train_points": 200, "test_points": 200, "profile": [1]},
            "protocol": {"classifier_seeds": 1},
            "space": {"beta": {"loguniform": [0.25, 16]}, "latent_size": {"int": [2, 6]}},
            "search": {"trials": 4, "startup_trials": 2, "seed": SEED},
            "resources": {"cpus_per_trial": 1, "concurrent_trials": 1},
        }
        for key, values in changes.items():
            space[key] = {**space[key], **values} if key != "space" else values
        return space

    return make


@pytest.fixture(scope="session")
def own_mounts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A shell that takes a script and its arguments; what it mounts, only it and its children see."""
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    tried = [*shell, 'mount -t tmpfs tmpfs "$0"', str(tmp_path_factory.mktemp("mount"))]
    if subprocess.run(tried, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system of his own")
    return shell


@pytest.fixture
def make_task(make_space: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., TrialTask]:
    """Makes the task of a trial in a study's folder that holds nothing else; keyword arguments replace its fields."""

    def make(space: dict[str, Any] | None = None, **changes: Any) -> TrialTask:
        config: StudyConfig = load_space(space or make_space())
        store = open_dataset(config.dataset)
        (tmp_path / "study.json").write_text(json.dumps({}))
        task = TrialTask(
            study=str(tmp_path),
            folder="trials/00000",
            model=dataclasses.replace(config.model, beta=2.0, beta_norm=None),
            training=config.training,
            seeds=(11,),
            evaluation_seed=5,
            dataset=config.dataset,
            labels=config.labels,
            fingerprints=(store.fingerprint, load_labels(config.labels, store).fingerprint),
            metric=config.metric,
            protocol=config.protocol,
        )
        return dataclasses.replace(task, **changes)

    return make
