from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from bvae_tune.inspection import kl_per_latent, traversals
from bvae_tune.models.networks import Codes

R, N, M = 2, 4, 5


def _codes(seed: int) -> Codes:
    numbers = torch.Generator().manual_seed(seed)
    return Codes(torch.randn(R, N, M, generator=numbers), torch.randn(R, N, M, generator=numbers))


class _Doubling:
    """A decoder that shows its codes: pixel m is twice latent m."""

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return 2 * codes


def test_traversals_move_one_latent_and_hold_the_others() -> None:
    codes = _codes(seed=1).mean
    latents = np.array([3, 0])
    images = traversals(_Doubling(), codes, latents, span=3.0, steps=7)
    assert images.shape == (R, N, 2, 7, M)
    for position, latent in enumerate(latents):
        np.testing.assert_allclose(images[1, 2, position, :, latent], 2 * np.linspace(-3, 3, 7), rtol=1e-6)
        others = [m for m in range(M) if m != latent]
        for step in range(7):
            np.testing.assert_allclose(images[1, 2, position, step, others], 2 * codes[1, 2, others])


def test_kl_per_latent_is_the_mean_over_images() -> None:
    codes = _codes(seed=2)
    assert codes.logvar is not None
    expected = kl_divergence(Normal(codes.mean, (0.5 * codes.logvar).exp()), Normal(0.0, 1.0)).mean(1)
    np.testing.assert_allclose(kl_per_latent(codes), expected.numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="no KL"):
        kl_per_latent(Codes(codes.mean, None))
