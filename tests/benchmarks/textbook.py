"""Table 1's β-VAE as a textbook would write it: plain modules, what the package's own networks are measured against."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from bvae_tune.data.image_store import ImageStore

SAMPLE = 10_000  # images of a TensorDataset: all 737,280 would take 12 GB


class TextbookVAE(nn.Module):
    """An encoder to 2M values and a decoder to logits or means, one replica."""

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, C, H, W) -> outputs (B, C, H, W), mean and log variance (B, M)."""
        mean, logvar = self.encoder(images).chunk(2, dim=1)
        noise = torch.randn_like(mean) if noise is None else noise
        return self.decoder(mean + noise * torch.exp(0.5 * logvar)).view_as(images), mean, logvar


def fully_connected(widths: tuple[int, int], latent_size: int, dimensions: int) -> TextbookVAE:
    a, b = widths
    encoder = nn.Sequential(
        nn.Flatten(), nn.Linear(dimensions, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, 2 * latent_size)
    )
    decoder = nn.Sequential(
        nn.Linear(latent_size, b), nn.Tanh(), nn.Linear(b, a), nn.Tanh(), nn.Linear(a, a), nn.Tanh(),
        nn.Linear(a, dimensions),
    )  # fmt: skip
    return TextbookVAE(encoder, decoder)


def convolutional(widths: tuple[int, int, int, int, int], latent_size: int, channels: int) -> TextbookVAE:
    a, b, c, d, hidden = widths
    encoder = nn.Sequential(
        nn.Conv2d(channels, a, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(a, b, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(b, c, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(c, d, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * d, hidden), nn.ReLU(),
        nn.Linear(hidden, 2 * latent_size),
    )  # fmt: skip
    decoder = nn.Sequential(
        nn.Linear(latent_size, hidden), nn.ReLU(),
        nn.Linear(hidden, 16 * d), nn.ReLU(), nn.Unflatten(1, (d, 4, 4)),
        nn.ConvTranspose2d(d, c, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(c, b, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(b, a, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(a, channels, 4, 2, 1),
    )  # fmt: skip
    return TextbookVAE(encoder, decoder)


def loader(store: ImageStore, batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
    """Shuffled batches of SAMPLE images, drawn with seed 0: a DataLoader over a TensorDataset."""
    chosen = np.random.default_rng(0).choice(store.count, SAMPLE, replace=False)
    images = store.gather(chosen).view(SAMPLE, store.channels, store.height, store.width)
    return DataLoader(TensorDataset(images), batch_size=batch_size, shuffle=True, drop_last=True)


def loss(vae: TextbookVAE, images: Tensor, beta: float, likelihood: str, noise: Tensor | None = None) -> Tensor:
    """reconstruction + β KL, summed over pixels and latents, mean over the batch (σ = 1 where Gaussian)."""
    outputs, mean, logvar = vae(images, noise)
    if likelihood == "bernoulli":
        reconstruction = functional.binary_cross_entropy_with_logits(outputs, images, reduction="sum")
    else:
        reconstruction = 0.5 * functional.mse_loss(outputs, images, reduction="sum")
    kl = -0.5 * torch.sum(1 + logvar - mean.pow(2) - logvar.exp())
    return (reconstruction + beta * kl) / len(images)
