"""The paper's other models through whole studies, on a real embedded Ray. The search seed is 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bvae_tune.data.image_store import ImageStore
from bvae_tune.errors import InputError
from bvae_tune.search.kept import evaluate, traverse
from bvae_tune.search.runner import create, search
from bvae_tune.space import load_space

pytestmark = pytest.mark.usefixtures("embedded_ray")


@pytest.fixture
def space(shapes_grid: ImageStore) -> dict[str, Any]:
    """A tiny study of DC-IGN."""
    return {
        "dataset": {"source": "arrow", "path": str(shapes_grid.path)},
        "labels": {"count": 400, "factors": ["position_x", "position_y", "scale", "rotation"]},
        "model": {"architecture": "dcign", "widths": [4, 4, 4]},
        "training": {"optimizer": "rmsprop", "steps": 10, "report_every": 5, "batch_size": 8},
        "metric": {"train_points": 200, "test_points": 200, "profile": [1]},
        "protocol": {"replicas": 2, "classifier_seeds": 1},
        "space": {"training.learning_rate": {"loguniform": [1e-4, 1e-2]}},
        "search": {"trials": 2, "seed": 3},
        "resources": {"concurrent_trials": 1},
    }


def test_a_study_of_dcign(space: dict[str, Any], tmp_path: Path) -> None:
    study = search(space, name="dcign", storage=tmp_path)
    assert study.finished
    assert {record.state for record in (*study.trials, *study.controls)} == {"complete"}
    assert {(record.beta, record.latent_size) for record in study.trials} == {(1.0, 10)}
    best = study.best
    assert best is not None
    assert best.result is not None
    assert np.array(best.result.kl_per_latent).shape == (2, 10)
    assert evaluate(study, best).to_dict() == best.result.score.to_dict()
    found = traverse(study, best, steps=3)
    assert found.decoded.shape == (10, 3, 1, 64, 64)
    assert len(found.kl) == 10


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("dataset.path={squares} labels.factors=null labels.count=50", "takes images of 64x64 pixels"),
        ("model.latent_size=5", "dcign has 10 latents"),
        ("model.likelihood=gaussian", "dcign has no such likelihood"),
        ('space.latent_size={{"int":[2,20]}}', "2 is not possible here"),
    ],
)
def test_what_dcign_does_not_have_is_refused(
    space: dict[str, Any], squares: Path, tmp_path: Path, setting: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        create(load_space(space, setting.format(squares=squares).split(" ")), "refused", tmp_path)
