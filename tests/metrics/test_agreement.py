"""UDR on codes whose agreement is known, and against the formula of Duan et al. 2020 loop by loop."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from bvae_tune.metrics.agreement import agreement, informative_latents


def pair_by_formula(a: np.ndarray, b: np.ndarray) -> float:
    correlation = np.array([[abs(spearmanr(x, y).statistic) for y in b.T] for x in a.T])
    total = 0.0
    for row in correlation:
        total += max(row) ** 2 / sum(row)
    for column in correlation.T:
        total += max(column) ** 2 / sum(column)
    return total / sum(correlation.shape)


def test_agreement_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(300, 4))
    codes = np.stack([base @ rng.normal(size=(4, 4)) for _ in range(3)])
    pairs = {(i, j): pair_by_formula(codes[i], codes[j]) for i in range(3) for j in range(3) if i != j}
    expected = [np.median([pairs[i, j] for j in range(3) if j != i]) for i in range(3)]
    assert agreement(codes) == pytest.approx(expected, abs=1e-9)


def test_permuted_mirrored_and_stretched_codes_agree() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(size=(5_000, 5))
    codes = np.stack([base, -base[:, ::-1], np.sinh(2 * base[:, [2, 0, 4, 1, 3]])])
    assert agreement(codes) == pytest.approx([1, 1, 1], abs=0.06)
    mixed = np.stack([base @ np.linalg.qr(rng.normal(size=(5, 5)))[0] for _ in range(3)])
    assert (agreement(mixed) < 0.5).all()


def test_latents_at_the_prior_are_left_out() -> None:
    rng = np.random.default_rng(2)
    mean = np.concatenate([rng.normal(size=(1, 4_000, 2)).repeat(2, axis=0), 1e-3 * rng.normal(size=(2, 4_000, 3))], 2)
    logvar = np.concatenate([np.full((2, 4_000, 2), -4.0), np.zeros((2, 4_000, 3))], axis=2)
    assert informative_latents(mean, logvar).tolist() == [[True, True, False, False, False]] * 2
    assert agreement(mean, logvar) == pytest.approx([1, 1], abs=0.03)
    assert (agreement(mean) < 0.9).all()


def test_a_collapsed_replica_agrees_with_nobody() -> None:
    rng = np.random.default_rng(3)
    base = rng.normal(size=(1_000, 3))
    assert agreement(np.stack([base, base, np.zeros_like(base)]))[2] == 0
    assert agreement(np.stack([base, np.zeros_like(base)])).tolist() == [0, 0]
