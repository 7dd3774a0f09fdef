"""What the rendered sets are good for: the metric reads their factors from codes, and from pixels. Seed: 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_sets import SmallSet, make_celeba, make_chairs, make_faces

from bvae_tune.metrics.config import MetricConfig, ProtocolConfig
from bvae_tune.metrics.protocol import TrialScore, score_codes


@pytest.mark.parametrize("make", [make_chairs, make_faces, make_celeba])
def test_the_metric_tells_true_factors_from_pixels_from_chance(
    make: Callable[[Path], SmallSet], tmp_path: Path
) -> None:
    images = make(tmp_path)
    factors = np.stack([np.unique(column, return_inverse=True)[1] for column in images.factors.T], axis=1)
    count = len(factors)
    apart = images.images.shape[1] // 6
    pixels = images.images[:, ::apart, ::apart].reshape(count, -1) / 255.0

    def score(codes: np.ndarray) -> TrialScore:
        metric, protocol = MetricConfig(train_points=600, test_points=600, profile=(64,)), ProtocolConfig()
        return score_codes(codes[None], factors, images.names, metric, protocol, seed=0)

    truth = score((factors - factors.mean(0)) / factors.std(0))
    seen = score(pixels)
    blind = score(np.random.default_rng(0).permutation(pixels))
    assert truth.profile[64] > 0.95
    assert truth.score > seen.score > blind.score + 0.1
    assert abs(blind.score - truth.chance) < 0.06
