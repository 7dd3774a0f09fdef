"""The paper's other models through whole studies, on a real embedded Ray. The search seed is 3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bvae_tune.data.image_store import ImageStore
from bvae_tune.errors import InputError
from bvae_tune.search.confirm import confirm
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
    assert evaluate(study, best).score.to_dict() == best.result.score.to_dict()
    found = traverse(study, best, steps=3)
    assert found.decoded.shape == (10, 3, 1, 64, 64)
    assert found.kl is not None
    assert len(found.kl) == 10


INFOGAN = (
    "model.architecture=infogan",
    "model.widths=[16, 64, 4, 4, 8]",
    "training.optimizer=adam",
    "search.baselines=[untrained]",
)


def test_a_study_of_infogan(space: dict[str, Any], tmp_path: Path) -> None:
    study = search(space, INFOGAN, name="infogan", storage=tmp_path)
    assert study.finished
    assert {record.state for record in (*study.trials, *study.controls)} == {"complete"}
    assert [record.label for record in study.controls] == ["untrained"]
    best = study.best
    assert best is not None
    assert best.result is not None
    assert np.isnan([best.beta, best.beta_norm]).all()
    assert (best.result.reconstruction, best.result.kl, best.result.kl_per_latent) == ((), (), ())
    assert set(best.result.further_losses) == {"discriminator", "generator", "mutual information bound"}
    row = next(row for row in study.rows() if row["number"] == best.number and row["kind"] == "search")
    assert row["generator"] == pytest.approx(np.mean(best.result.further_losses["generator"]))
    assert row["kl"] is None
    assert evaluate(study, best).score.to_dict() == best.result.score.to_dict()
    found = traverse(study, best, steps=3)
    assert found.decoded.shape == (5, 3, 1, 64, 64)
    assert found.values == (-1.0, 0.0, 1.0)
    assert found.kl is None
    with pytest.raises(InputError, match="no β to compare with 1"):
        confirm(study.path)


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


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.beta=4", "--set model.beta=4: 4.0; infogan has no KL term to weigh"),
        ("space.beta={uniform: [1, 4]}", "1 is not possible here"),
        ("model.latent_size=5", "infogan has 10 latents"),
        ("training.optimizer=rmsprop", "--set training.optimizer=rmsprop: 'rmsprop'; infogan is trained with adam"),
        ("space.training.optimizer={categorical: [adam, adagrad]}", "'adagrad' is not possible here"),
        ("search.baselines=[untrained, beta=1]", "infogan has no β to set to 1"),
    ],
)
def test_what_infogan_does_not_have_is_refused(space: dict[str, Any], setting: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        load_space(space, [*INFOGAN, setting])
    assert message in str(raised.value)
