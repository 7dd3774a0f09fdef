from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from bvae_tune.data import FactorSpace, write_store
from bvae_tune.errors import InputError
from bvae_tune.inspection import kl_per_latent, mean_activations, traversals
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


class _FirstPixels:
    """An encoder that answers with twice the first two pixels, at variances 1 and 4."""

    def encode(self, images: torch.Tensor) -> Codes:
        mean = 2 * images[:, :, :2]
        return Codes(mean, torch.tensor([1.0, 4.0]).log().expand_as(mean))


def test_activations_average_the_other_factors_out(tmp_path: Path) -> None:
    space = FactorSpace(("kind", "x", "y"), ((0.0, 1.0), (0.0, 1.0, 2.0), (0.0, 1.0, 2.0, 3.0)))
    factors = space.factors(np.arange(space.count))
    packed = np.zeros((space.count, 16), np.uint8)
    packed[:, 0] = 10 * factors[:, 1] + 100 * factors[:, 0]
    packed[:, 1] = 5 * factors[:, 2]
    store = write_store(
        tmp_path / "a.arrow", packed, name="a", size=(1, 4, 4), bits=8, factors=factors, factor_space=space
    )
    groups = (("y", "x"), ("kind",))
    found = mean_activations(_FirstPixels(), store, groups, np.arange(space.count), batch=7)
    by_place, by_kind = found.means
    x, y = np.arange(3), np.arange(4)
    np.testing.assert_allclose(by_place[0], 2 * np.tile((10 * x + 50) / 255, (4, 1)), rtol=1e-5)
    np.testing.assert_allclose(by_place[1], 2 * np.tile(5 * y[:, None] / 255, (1, 3)), rtol=1e-5)
    np.testing.assert_allclose(by_kind[0], [2 * 10 / 255, 2 * 110 / 255], rtol=1e-5)
    np.testing.assert_allclose(found.variance, [1, 4], rtol=1e-5)
    some = mean_activations(_FirstPixels(), store, groups, np.array([0]))
    assert np.isnan(some.means[0]).sum() == 2 * 11
    with pytest.raises(InputError, match=r"angle among them; this dataset knows kind, x, y$"):
        mean_activations(_FirstPixels(), store, (("x", "angle"),), np.array([0]))


def test_activations_take_a_complete_grid(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.arrow", np.zeros((2, 16), np.uint8), name="a", size=(1, 4, 4), bits=8)
    with pytest.raises(InputError, match="this dataset knows none, and is no complete grid"):
        mean_activations(_FirstPixels(), store, (("x",),), np.array([0]))
