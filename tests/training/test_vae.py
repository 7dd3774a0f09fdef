from __future__ import annotations

import pytest
import torch
from benchmarks.textbook import convolutional, fully_connected, loss

from bvae_tune.data.image_store import ImageStore
from bvae_tune.models.config import ModelConfig
from bvae_tune.training.batches import UniformBatches
from bvae_tune.training.config import TrainingConfig
from bvae_tune.training.vae import BetaVAE

M, B, SEEDS, BETAS = 3, 8, [3, 8], [1.0, 4.0]


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("architecture", ["fc", "conv"])
def test_loss_and_gradients_are_those_of_plain_modules(store: ImageStore, architecture: str, likelihood: str) -> None:
    """Autograd through plain modules with our weights, images and latent noise, against the learner's own gradients."""
    widths = (20, 16) if architecture == "fc" else (4, 9, 10, 12, 24)
    model = ModelConfig(architecture, widths, likelihood, latent_size=M)  # type: ignore[arg-type]
    learner = BetaVAE(model, TrainingConfig(batch_size=B), store, BETAS, "cpu")
    learner.init(SEEDS)
    batch = UniformBatches(store.count, B).batch(5, SEEDS)
    noise = learner.noise(5)
    gradients, losses = learner.gradients(batch, 5)
    weights = learner.model.parameters

    for replica, beta in enumerate(BETAS):
        if architecture == "fc":
            vae = fully_connected((20, 16), M, store.dimensions)
        else:
            vae = convolutional((4, 9, 10, 12, 24), M, 1)
        with torch.no_grad():
            for theirs, ours in zip(vae.parameters(), weights.values(), strict=True):
                theirs.copy_(ours[replica])
        images = store.gather(batch.indices[replica]).view(B, 1, 64, 64)
        expected = loss(vae, images, beta, likelihood, noise[replica])
        expected.backward()
        total = losses.reconstruction[replica] + beta * losses.kl_per_latent[replica].sum()
        torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
        for ours, theirs in zip(gradients.values(), vae.parameters(), strict=True):
            scale = theirs.grad.abs().max()
            assert scale > 0
            torch.testing.assert_close(ours[replica] / scale, theirs.grad / scale, rtol=1e-3, atol=1e-5)
