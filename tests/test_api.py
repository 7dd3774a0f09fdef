"""The package as a library: `search`, `load`, `score`. Seed: 0."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

import bvae_tune
from bvae_tune.errors import InputError
from bvae_tune.metrics.config import MetricConfig, ProtocolConfig
from bvae_tune.metrics.protocol import score_codes

METRIC = MetricConfig(train_points=500, test_points=500, profile=(1,))


@pytest.fixture
def factors() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 8, (400, 3))


def test_score_takes_codes_from_anywhere(factors: np.ndarray) -> None:
    codes = factors + np.random.default_rng(1).normal(0, 0.1, factors.shape)
    found = bvae_tune.score(codes, factors, names=["a", "b", "c"], metric=METRIC, seed=5)
    assert found == score_codes(codes[None], factors, ("a", "b", "c"), METRIC, ProtocolConfig(), 5)
    assert found.score > 0.9
    replicas = np.stack([codes, codes[:, ::-1]])
    protocol = ProtocolConfig(classifier_seeds=1, keep=1.0)
    two = bvae_tune.score(replicas, factors, metric=METRIC, protocol=protocol)
    assert len(two.replica_scores) == 2
    assert set(two.information) == {"factor 0", "factor 1", "factor 2"}


@pytest.mark.parametrize("shape", [(400,), (399, 3), (1, 2, 400, 3)])
def test_score_refuses_shapes_that_do_not_fit(factors: np.ndarray, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="do not fit"):
        bvae_tune.score(np.zeros(shape), factors)


def test_search_stays_callable_when_its_room_is_imported() -> None:
    importlib.import_module("bvae_tune.search.study")
    with pytest.raises(InputError, match="packaged: celeba"):
        bvae_tune.search("nowhere")


def test_load_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no study here"):
        bvae_tune.load(tmp_path)


def test_there_is_nothing_else() -> None:
    assert set(bvae_tune.__all__) == {"load", "score", "search"}
    with pytest.raises(AttributeError, match="serach"):
        bvae_tune.serach  # noqa: B018
