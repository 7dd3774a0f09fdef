"""What a trained model's latents mean: arrays for a person to look at. Draws nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bvae_tune.models.likelihoods import kl_divergence
from bvae_tune.models.networks import Codes, Decoder


def kl_per_latent(codes: Codes) -> npt.NDArray[np.float64]:
    """KL of each latent's posterior from its prior (Eq. 9), mean over images: (R, M), in nats.

    Raises:
        ValueError: codes without a variance (raw pixels, PCA).
    """
    if codes.logvar is None:
        raise ValueError("codes without a variance have no KL")
    return kl_divergence(codes.mean.double(), codes.logvar.double()).mean(1).numpy(force=True)


def traversals(
    decoder: Decoder,
    codes: Tensor,
    latents: Sequence[int] | npt.NDArray[np.integer],
    span: float = 3.0,
    steps: int = 11,
) -> npt.NDArray[np.float32]:
    """Images along one latent at a time, all others held at a seed image's posterior mean (Figs. 1 to 4, 7).

    Args:
        decoder: R replicas.
        codes: (R, n, M) posterior means of n seed images.
        latents: which, in the order wanted.
        span: each latent goes from -span to +span, in standard deviations of the prior.
        steps: values on the way, both ends among them.

    Returns:
        (R, n, len(latents), steps, D) float32 in [0, 1].
    """
    R, n, M = codes.shape
    chosen = torch.as_tensor(np.asarray(latents, dtype=np.int64), device=codes.device)
    moved = codes[:, :, None, None].repeat(1, 1, len(chosen), steps, 1)
    values = torch.linspace(-span, span, steps, device=codes.device).expand(R, n, len(chosen), steps)
    moved.scatter_(-1, chosen[:, None, None].expand(R, n, len(chosen), steps, 1), values[..., None].contiguous())
    images = decoder.decode(moved.view(R, -1, M))
    return images.view(R, n, len(chosen), steps, -1).numpy(force=True)
