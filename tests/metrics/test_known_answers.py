"""Codes whose score is known. All with 5,000 labelled images and the default metric unless a test says otherwise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from bvae_tune.metrics.config import MetricConfig, ProtocolConfig
from bvae_tune.metrics.protocol import score_codes

METRIC = MetricConfig()
ALL_SCORES = ProtocolConfig(keep=1.0)


def within_chance(score: float, tests: int, chance: float) -> bool:
    low, high = binom.interval(0.999, tests, chance)
    return low <= round(score * tests) <= high


def test_truth_scores_100(draw_factors, as_codes, names) -> None:
    factors = draw_factors(5_000, 0)
    score = score_codes(as_codes(factors), factors, names, METRIC, ALL_SCORES, 0)
    assert score.score > 0.999
    assert score.profile[1] == pytest.approx(0.957, abs=0.03)
    assert score.mig == pytest.approx(0.87, abs=0.03)
    assert [round(share, 2) for share in score.information.values()] == pytest.approx([0.85, 0.85, 1, 0.81], abs=0.03)
    assert score.missing == ()
    assert score.converged


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_codes_score_chance(draw_factors, names, seed: int) -> None:
    codes = np.random.default_rng(seed + 10).normal(size=(1, 5_000, 10)).astype(np.float32)
    score = score_codes(codes, draw_factors(5_000, seed), names, METRIC, ALL_SCORES, seed)
    for pairs in METRIC.profile:
        assert within_chance(score.profile[pairs], 3 * METRIC.test_points, score.chance)
    assert score.missing == names
    assert score.mig < 0.01


def test_collapsed_codes_score_chance(draw_factors, names) -> None:
    score = score_codes(np.ones((1, 5_000, 10), np.float32), draw_factors(5_000, 0), names, METRIC, ALL_SCORES, 0)
    assert within_chance(score.score, 3 * METRIC.test_points, 0.25)
    assert score.mig == 0
    assert score.missing == names
    assert score.converged


def test_shuffled_labels_score_chance(draw_factors, as_codes, names) -> None:
    factors = draw_factors(5_000, 0)
    shuffled = np.random.default_rng(1).permuted(factors, axis=0)
    score = score_codes(as_codes(factors), shuffled, names, METRIC, ALL_SCORES, 0)
    assert within_chance(score.score, 3 * METRIC.test_points, 0.25)


def test_rotated_truth_is_told_by_pairs_and_by_mig(draw_factors, as_codes, rotation, names) -> None:
    factors = draw_factors(5_000, 0)
    score = score_codes(as_codes(factors) @ rotation, factors, names, METRIC, ALL_SCORES, 0)
    assert score.profile[4] == pytest.approx(0.84, abs=0.03)
    assert score.profile[16] > 0.99
    assert score.mig == pytest.approx(0.25, abs=0.03)


def test_a_missing_factor_keeps_the_score_and_is_named(draw_factors, as_codes, names) -> None:
    factors = draw_factors(5_000, 0)
    score = score_codes(as_codes(factors)[..., :3], factors, names, METRIC, ALL_SCORES, 0)
    assert score.score > 0.99
    assert score.missing == ("rotation",)
    assert score.information["rotation"] < 0.01


def test_a_missing_factor_is_named_with_few_labels_too(draw_factors, as_codes, names) -> None:
    # 1,000 images over 40 rotations: uncorrected, chance alone would pass for 9% of information.
    factors = draw_factors(1_000, 0)
    rng = np.random.default_rng(1)
    codes = np.concatenate([as_codes(factors)[..., :3], rng.normal(size=(1, 1_000, 7)).astype(np.float32)], axis=2)
    assert score_codes(codes, factors, names, METRIC, ALL_SCORES, 0).missing == ("rotation",)


def test_a_factor_that_only_a_switched_off_latent_traces_is_missing(draw_factors, as_codes, names) -> None:
    factors = draw_factors(5_000, 0)
    codes = as_codes(factors) * np.array([3, 3, 3, 1e-3], dtype=np.float32)
    logvar = np.broadcast_to(np.array([-4, -4, -4, 0], dtype=np.float32), codes.shape)
    score = score_codes(codes, factors, names, METRIC, ALL_SCORES, 0, logvar)
    assert score.missing == ("rotation",)
    assert not score_codes(codes, factors, names, METRIC, ALL_SCORES, 0).missing


def test_duplicated_factors_keep_the_score_and_lose_the_gap(draw_factors, as_codes, names) -> None:
    factors = draw_factors(5_000, 0)
    codes = as_codes(factors)
    one = score_codes(np.concatenate([codes, codes[..., 2:3]], axis=2), factors, names, METRIC, ALL_SCORES, 0)
    assert one.score > 0.999
    assert one.mig == pytest.approx(0.87 - 0.25, abs=0.03)
    both = score_codes(np.concatenate([codes, codes], axis=2), factors, names, METRIC, ALL_SCORES, 0)
    assert both.score > 0.999
    assert both.mig == pytest.approx(0, abs=1e-9)


def variant(codes: NDArray[np.float32], change: str) -> NDArray[np.float32]:
    size = codes.shape[2]
    rng = np.random.default_rng(5)
    return {
        "order": codes[..., rng.permutation(size)],
        "sign": codes * rng.choice([-1, 1], size=size).astype(np.float32),
        "dead": np.concatenate([codes, np.zeros_like(codes)], axis=2),
        "constant": np.concatenate([codes, np.full_like(codes[..., :1], 7)], axis=2),
        "scale": codes * np.float32(1e-3),
        "shift": codes + np.float32(2),
    }[change]


@pytest.mark.parametrize("change", ["order", "sign", "dead", "constant", "scale", "shift"])
def test_score_does_not_see(draw_factors, as_codes, rotation, names, change: str) -> None:
    factors = draw_factors(5_000, 0)
    noise = np.random.default_rng(1).normal(scale=0.05, size=(1, 5_000, 4)).astype(np.float32)
    codes = as_codes(factors) @ rotation + noise
    plain = score_codes(codes, factors, names, METRIC, ALL_SCORES, 0)
    changed = score_codes(variant(codes, change), factors, names, METRIC, ALL_SCORES, 0)
    for pairs in METRIC.profile:
        assert changed.profile[pairs] == pytest.approx(plain.profile[pairs], abs=5e-4)
    assert changed.mig == pytest.approx(plain.mig, abs=2e-3)


def test_label_noise_never_raises_the_expected_score(draw_factors, as_codes, rotation, names) -> None:
    metric = MetricConfig(train_points=4_000, profile=())
    noises = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)
    scores = np.empty((len(noises), 6))
    for seed in range(scores.shape[1]):
        rng = np.random.default_rng(seed)
        factors = draw_factors(3_000, seed)
        codes = as_codes(factors) @ rotation
        wrong, dice = rng.permuted(factors, axis=0), rng.random(factors.shape)
        for row, noise in enumerate(noises):
            noisy = np.where(dice < noise, wrong, factors)
            scores[row, seed] = score_codes(codes, noisy, names, metric, ALL_SCORES, seed).score
    steps = np.diff(scores, axis=0)
    standard_error = steps.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
    assert (steps.mean(axis=1) <= 2 * standard_error).all()
    assert scores[0].mean() > 0.8
    assert scores[-1].mean() == pytest.approx(0.25, abs=0.01)


def test_unknown_values_leave_the_score(draw_factors, as_codes, names) -> None:
    factors = draw_factors(5_000, 0)
    factors[np.random.default_rng(1).random(factors.shape) < 0.4] = -1
    full = draw_factors(5_000, 0)
    score = score_codes(as_codes(full), factors, names, METRIC, ALL_SCORES, 0)
    assert score.score > 0.999
    assert score.missing == ()


def test_adagrad_names_the_same_order(draw_factors, as_codes, rotation, names) -> None:
    factors = draw_factors(5_000, 0)
    truth = as_codes(factors)
    noise = np.random.default_rng(1).normal(size=truth.shape).astype(np.float32)
    scores = {}
    for classifier in ("lbfgs", "adagrad"):
        metric = MetricConfig(classifier=classifier, profile=())
        scores[classifier] = [
            score_codes(codes, factors, names, metric, ProtocolConfig(classifier_seeds=1), 0).score
            for codes in (truth, truth @ rotation, truth @ rotation + noise, noise)
        ]
    assert scores["lbfgs"] == sorted(scores["lbfgs"], reverse=True)
    assert scores["adagrad"] == sorted(scores["adagrad"], reverse=True)
    assert scores["adagrad"] == pytest.approx(scores["lbfgs"], abs=0.06)
