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
    loss, gradient = likelihoods.reconstruction_loss(ModelConfig(likelihood="bernoulli"), outputs, images)
    outputs.requires_grad_()
    expected = -Bernoulli(logits=outputs, validate_args=False).log_prob(images).sum(-1)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, *torch.autograd.grad(expected.sum(), outputs))


def test_bernoulli_loss_of_extreme_logits_is_finite_and_exact() -> None:
    outputs = torch.tensor([[[1e4, -1e4, 1e4, -1e4]]])
    images = torch.tensor([[[1.0, 0.0, 0.0, 1.0]]])
    loss, gradient = likelihoods.reconstruction_loss(ModelConfig(), outputs, images)
    assert loss.item() == pytest.approx(2e4)
    assert gradient.flatten().tolist() == [0, 0, 1, -1]


def test_gaussian_loss_and_gradient_are_the_log_densitys_up_to_its_constant() -> None:
    outputs, images = _tensors(seed=2)
    model = ModelConfig(likelihood="gaussian", sigma=0.5)
    loss, gradient = likelihoods.reconstruction_loss(model, outputs, images)
    constant = D * math.log(0.5 * math.sqrt(2 * math.pi))
    outputs.requires_grad_()
    expected = -Normal(outputs, 0.5).log_prob(images).sum(-1)
    torch.testing.assert_close(loss + constant, expected)
    torch.testing.assert_close(gradient, *torch.autograd.grad(expected.sum(), outputs))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_loss_of_bfloat16_outputs_is_summed_in_float32(likelihood: str) -> None:
    model = ModelConfig(likelihood=likelihood)  # type: ignore[arg-type]
    outputs, images = _tensors(seed=3)
    rough = outputs.bfloat16()
    for ours, expected in zip(
        likelihoods.reconstruction_loss(model, rough, images),
        likelihoods.reconstruction_loss(model, rough.float(), images),
        strict=True,
    ):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_neither_outputs_nor_images_are_changed(likelihood: str) -> None:
    outputs, images = _tensors(seed=5)
    before = outputs.clone(), images.clone()
    likelihoods.reconstruction_loss(ModelConfig(likelihood=likelihood), outputs, images)  # type: ignore[arg-type]
    assert torch.equal(outputs, before[0])
    assert torch.equal(images, before[1])


def test_kl_is_that_of_the_normal_distributions() -> None:
    mean, logvar = _tensors(seed=4)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(likelihoods.kl_divergence(mean, logvar), expected)
