"""The loss of a β-VAE, per replica: reconstruction and KL divergence."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from bvae_tune.models.config import ModelConfig


def reconstruction_loss(model: ModelConfig, outputs: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """-log p(x|z), summed over pixels, and its gradient to the decoder's outputs.

    Bernoulli: the outputs are logits. Gaussian: they are means, and the loss is ½|x - x̂|²/σ², its constant left out.

    Args:
        model: the likelihood and its σ.
        outputs: (R, B, D), of any precision.
        images: (R, B, D) float32 in [0, 1].

    Returns:
        loss (R, B) and gradient (R, B, D), both float32.
    """
    outputs = outputs.float()
    if model.likelihood == "bernoulli":
        loss = functional.softplus(outputs).addcmul_(outputs, images, value=-1).sum(-1)
        return loss, outputs.sigmoid().sub_(images)
    difference = (outputs - images).div_(model.sigma)
    return difference.square().sum(-1).mul_(0.5), difference.div_(model.sigma)


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL(q(z|x) || N(0, I)) of each latent (Eq. 9), in nats; the shape of `mean`."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar)
