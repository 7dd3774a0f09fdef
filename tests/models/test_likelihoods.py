from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from bvae_tune.models import likelihoods
from bvae_tune.models.config import ModelConfig

R, B, D = 2, 3, 50


def _tensors(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    return torch.randn(R, B, D, generator=numbers) * 3, torch.rand(R, B, D, generator=numbers)


@pytest.mark.parametrize("binary", [True, False])
def test_bernoulli_loss_and_gradient(binary: bool) -> None:
    outputs, images = _tensors(seed=0)
    images = images.round() if binary else images
    outputs.requires_grad_()
    loss = likelihoods.reconstruction_loss(ModelConfig(likelihood="bernoulli"), outputs, images)
    expected = -Bernoulli(logits=outputs, validate_args=False).log_prob(images).sum(-1)
    torch.testing.assert_close(loss, expected)
    pull = torch.rand(R, B, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad(loss, outputs, pull)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, outputs, pull))


def test_bernoulli_loss_of_extreme_logits_is_finite_and_exact() -> None:
    outputs = torch.tensor([[[1e4, -1e4, 1e4, -1e4]]])
    images = torch.tensor([[[1.0, 0.0, 0.0, 1.0]]])
    loss = likelihoods.reconstruction_loss(ModelConfig(), outputs, images)
    assert loss.item() == pytest.approx(2e4)


def test_gaussian_loss_is_the_log_density_up_to_its_constant() -> None:
    outputs, images = _tensors(seed=2)
    loss = likelihoods.reconstruction_loss(ModelConfig(likelihood="gaussian", sigma=0.5), outputs, images)
    constant = D * math.log(0.5 * math.sqrt(2 * math.pi))
    torch.testing.assert_close(loss + constant, -Normal(outputs, 0.5).log_prob(images).sum(-1))


def test_loss_of_bfloat16_outputs_is_summed_in_float32() -> None:
    outputs, images = _tensors(seed=3)
    rough = outputs.bfloat16()
    for model in (ModelConfig(), ModelConfig(likelihood="gaussian")):
        loss = likelihoods.reconstruction_loss(model, rough, images)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, likelihoods.reconstruction_loss(model, rough.float(), images))


def test_kl_is_that_of_the_normal_distributions() -> None:
    mean, logvar = _tensors(seed=4)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(likelihoods.kl_divergence(mean, logvar), expected)
