"""Information per factor and MIG against counting by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from bvae_tune.metrics.mutual_information import BINS, information


def share_and_gap_by_hand(codes: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Best plain I(z_m; v) / H(v), and its lead over the second best."""
    known = [n for n in range(len(values)) if values[n] >= 0]
    shares = []
    for latent in codes.T:
        low, high = latent.min(), latent.max()
        bins = {n: min(BINS - 1, int((latent[n] - low) / (high - low) * BINS)) for n in known}
        joint = Counter((bins[n], values[n]) for n in known)
        of_bin, of_value = Counter(bins[n] for n in known), Counter(values[n] for n in known)
        total = len(known)
        mutual = sum(
            count / total * math.log(count * total / (of_bin[b] * of_value[v])) for (b, v), count in joint.items()
        )
        entropy = -sum(count / total * math.log(count / total) for count in of_value.values())
        shares.append(mutual / entropy)
    second, best = sorted(shares)[-2:]
    return best, best - second


def test_gap_and_information_are_those_counted_by_hand() -> None:
    rng = np.random.default_rng(0)
    factors = rng.integers(0, (5, 3), size=(3_000, 2))
    codes = rng.normal(size=(2, 3_000, 4)) * 0.5
    codes[..., 0] += factors[:, 0]
    codes[..., 1] += factors.sum(axis=1)
    factors[rng.random(factors.shape) < 0.2] = -1
    found = information(codes, factors)
    for replica in range(2):
        by_hand = [share_and_gap_by_hand(codes[replica], factors[:, k]) for k in range(2)]
        assert found.gap[replica] == pytest.approx(np.mean([gap for _, gap in by_hand]), abs=1e-9)
        assert found.factors[replica] == pytest.approx([share for share, _ in by_hand], abs=0.01)


@pytest.mark.parametrize("images", [200, 1_000, 5_000])
def test_chance_is_taken_off_at_any_number_of_images(images: int) -> None:
    rng = np.random.default_rng(1)
    factors = rng.integers(0, (40, 6), size=(images, 2))
    found = information(rng.normal(size=(1, images, 1)), factors)
    assert found.factors[0] == pytest.approx([0, 0], abs=0.02)
    assert information(factors[None, :, 1:].astype(float), factors).factors[0, 1] == pytest.approx(1)


def test_constant_latents_know_nothing() -> None:
    factors = np.random.default_rng(2).integers(0, (4, 4), size=(500, 2))
    found = information(np.ones((1, 500, 3)), factors)
    assert found.factors.tolist() == [[0, 0]]
    assert found.gap.tolist() == [0]


def test_one_latent_has_a_gap_to_nothing() -> None:
    factors = np.random.default_rng(3).integers(0, (4, 4), size=(5_000, 2))
    found = information(factors[None, :, :1].astype(float), factors)
    assert found.gap[0] == pytest.approx(0.5, abs=0.01)
