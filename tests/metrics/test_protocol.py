"""How R x S scores become one, and what bad input is told."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bvae_tune.errors import InputError
from bvae_tune.metrics.config import MetricConfig, ProtocolConfig
from bvae_tune.metrics.protocol import TrialScore, score_codes

QUICK = MetricConfig(train_points=2_000, test_points=1_000, profile=(1, 4))


@pytest.fixture(scope="module")
def replicas(draw_factors, as_codes) -> np.ndarray:
    """Three replicas (3, 2000, 4): the truth, the truth in noise, noise."""
    truth = as_codes(draw_factors(2_000, 0))
    noise = np.random.default_rng(1).normal(size=truth.shape).astype(np.float32)
    return np.concatenate([truth, truth + 0.3 * noise, noise])


@pytest.mark.parametrize(("keep", "kept"), [(1.0, 9), (0.5, 5), (0.34, 4), (1 / 3, 3), (0.01, 1)])
def test_the_best_share_rounded_up_is_averaged(replicas, draw_factors, names, keep: float, kept: int) -> None:
    score = score_codes(replicas, draw_factors(2_000, 0), names, QUICK, ProtocolConfig(keep=keep), 0)
    every = sorted((value for row in score.seed_scores for value in row), reverse=True)
    assert score.score == pytest.approx(np.mean(every[:kept]))
    assert score.profile[4] == score.score
    assert score.profile[1] < score.score


def test_replicas_are_told_apart(replicas, draw_factors, names) -> None:
    score = score_codes(replicas, draw_factors(2_000, 0), names, QUICK, ProtocolConfig(), 0)
    assert np.shape(score.seed_scores) == (3, 3)
    assert score.replica_scores == pytest.approx([np.mean(row) for row in score.seed_scores])
    assert score.replica_scores[0] > score.replica_scores[1] > score.replica_scores[2]
    assert score.spread == pytest.approx(np.std(score.replica_scores, ddof=1))
    assert score.agreement is not None


def test_information_and_mig_come_from_the_kept_scores(replicas, draw_factors, names) -> None:
    factors = draw_factors(2_000, 0)
    alone = score_codes(replicas[:1], factors, names, QUICK, ProtocolConfig(), 0)
    # A third of nine scores: the truth's three.
    best = score_codes(replicas, factors, names, QUICK, ProtocolConfig(keep=1 / 3), 0)
    assert best.mig == alone.mig
    assert best.information == alone.information
    every = score_codes(replicas, factors, names, QUICK, ProtocolConfig(keep=1), 0)
    assert every.mig < alone.mig


def test_a_replica_alone_scores_what_it_scores_in_company(replicas, draw_factors, names) -> None:
    factors = draw_factors(2_000, 0)
    together = score_codes(replicas, factors, names, QUICK, ProtocolConfig(), 0)
    for replica in range(3):
        alone = score_codes(replicas[replica : replica + 1], factors, names, QUICK, ProtocolConfig(), 0)
        assert alone.seed_scores[0] == together.seed_scores[replica]
        assert alone.spread == 0
        assert alone.agreement is None


def test_the_profile_leaves_the_score_alone(replicas, draw_factors, names) -> None:
    factors = draw_factors(2_000, 0)
    long = MetricConfig(train_points=2_000, test_points=1_000, profile=(1, 4, 16, 64))
    short, full = (score_codes(replicas, factors, names, metric, ProtocolConfig(), 0) for metric in (QUICK, long))
    assert full.seed_scores == short.seed_scores
    assert list(full.profile) == [1, 4, 16, 64]


def test_seeds_redraw_the_questions(replicas, draw_factors, names) -> None:
    factors = draw_factors(2_000, 0)
    first, again, other = (
        score_codes(replicas, factors, names, QUICK, ProtocolConfig(), seed).seed_scores for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert len(set(first[1])) > 1


def test_a_score_survives_json(replicas, draw_factors, names) -> None:
    score = score_codes(replicas, draw_factors(2_000, 0), names, QUICK, ProtocolConfig(), 0)
    assert TrialScore.from_dict(json.loads(json.dumps(score.to_dict()))) == score
    assert TrialScore.from_dict(score.to_dict()) == score


def test_whole_numbers_are_codes_too(draw_factors, names) -> None:
    factors = draw_factors(2_000, 0)
    score = score_codes(factors[None], factors, names, QUICK, ProtocolConfig(), 0)
    assert score.information["scale"] == pytest.approx(1)
    assert score.score == score_codes(factors[None].astype(float), factors, names, QUICK, ProtocolConfig(), 0).score


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_codes_that_are_not_finite_are_refused(replicas, draw_factors, names, value: float) -> None:
    broken = replicas.copy()
    broken[1, 7, 2] = value
    with pytest.raises(InputError, match=r"1 of 24000 codes are not finite.* replica 1, image 7, latent 2"):
        score_codes(broken, draw_factors(2_000, 0), names, QUICK, ProtocolConfig(), 0)


def test_shapes_that_do_not_fit_are_refused(replicas, draw_factors, names) -> None:
    factors = draw_factors(2_000, 0)
    for codes, values, labels, message in (
        (replicas[:, :5], factors, names, "do not fit"),
        (replicas[0], factors, names, "do not fit"),
        (replicas[..., :0], factors, names, "do not fit"),
        (replicas, factors, names[:3], "4 columns and 3 names"),
        (replicas, factors / 2, names, "float64: give whole numbers"),
    ):
        with pytest.raises(InputError, match=message):
            score_codes(codes, values, labels, QUICK, ProtocolConfig(), 0)
    with pytest.raises(InputError, match="logvar"):
        score_codes(replicas, factors, names, QUICK, ProtocolConfig(), 0, logvar=replicas[:1])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pairs", 0),
        ("train_points", 0),
        ("test_points", -1),
        ("classifier", "svm"),
        ("ridge", -1.0),
        ("ridge", math.nan),
    ],
)
def test_metric_settings_out_of_range_are_named(key: str, value: float | str) -> None:
    with pytest.raises(InputError, match=rf"metric\.{key}: "):
        MetricConfig(**{key: value})


@pytest.mark.parametrize(("key", "value"), [("replicas", 0), ("classifier_seeds", 0), ("keep", 0.0), ("keep", 1.1)])
def test_protocol_settings_out_of_range_are_named(key: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"protocol\.{key}: "):
        ProtocolConfig(**{key: value})


def test_a_profile_below_one_pair_is_refused() -> None:
    with pytest.raises(InputError, match=r"metric\.profile: \[0, 4\]"):
        MetricConfig(profile=(0, 4))
