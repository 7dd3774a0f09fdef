"""The loss of a β-VAE, per replica: reconstruction and KL divergence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bvae_tune.models.config import ModelConfig


class _BernoulliLoss(torch.autograd.Function):
    """Cross entropy of pixels and logits whose gradient, sigmoid(logit) - pixel, is made on the way forward."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, images: Tensor) -> Tensor:
        logits = outputs.float()
        ctx.save_for_backward(logits.sigmoid().sub_(images))
        ctx.dtype = outputs.dtype
        return functional.softplus(logits).addcmul_(logits, images, value=-1).sum(-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return (difference * gradients[0][..., None]).to(ctx.dtype), None


def reconstruction_loss(model: ModelConfig, outputs: Tensor, images: Tensor) -> Tensor:
    """-log p(x|z), summed over pixels: (R, B) float32 from a decoder's outputs and images, (R, B, D) each.

    Bernoulli: the outputs are logits. Gaussian: they are means, and the loss is ½|x - x̂|²/σ², its constant left out.
    """
    if model.likelihood == "bernoulli":
        loss: Tensor = _BernoulliLoss.apply(outputs, images)  # type: ignore[no-untyped-call]
        return loss
    return (outputs.float() - images).square().sum(-1) * (0.5 / model.sigma**2)


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) of each latent (Eq. 9), in nats; the shape of `mean`."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar)
