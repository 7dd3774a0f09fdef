"""Encoders without training steps, the baselines of Sec. 4.2: raw pixels and principal components (A.3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from bvae_tune.errors import InputError
from bvae_tune.models.networks import Codes


@dataclass(frozen=True)
class RawPixels:
    """Every pixel is a latent."""

    def encode(self, images: Tensor) -> Codes:
        """Images (R, n, D) -> codes with mean (R, n, D): themselves."""
        return Codes(images, None)


@dataclass(frozen=True)
class PrincipalComponents:
    """Projection on the directions of largest variance.

    Attributes:
        centre: (D,) mean image.
        directions: (M, D) float32, by falling variance; of unit length, over standardised pixels where those were
            asked for.
        explained: share of the variance of the (standardised) pixels that the M directions hold, in [0, 1].
    """

    centre: Tensor
    directions: Tensor
    explained: float

    def encode(self, images: Tensor) -> Codes:
        """Images (R, n, D) -> codes with mean (R, n, M)."""
        return Codes((images - self.centre) @ self.directions.T, None)


def fit_principal_components(
    batches: Iterable[Tensor], components: int = 10, standardise: bool = False
) -> PrincipalComponents:
    """Principal components of images that need not be in memory at once.

    Args:
        batches: images (b, D) in [0, 1], some at a time.
        components: M.
        standardise: give every pixel unit variance first; pixels that never change are left out.

    Raises:
        InputError: fewer than two images, or not fewer components than pixels.
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for images in batches:
        count += len(images)
        total = total + images.sum(0, dtype=torch.float64)
        squares = squares + (images.T @ images).double()
    if count < 2 or not 1 <= components < len(total):
        raise InputError(
            f"principal components: {components} of {count} images; takes at least two images and fewer components "
            "than pixels"
        )
    centre = total / count
    covariance = squares / count - torch.outer(centre, centre)
    scale = torch.ones_like(centre)
    if standardise:
        variance = covariance.diagonal()
        scale = torch.where(variance > 0, variance.clamp_min(1e-12).rsqrt(), 0)
        covariance = covariance * torch.outer(scale, scale)
    # A fixed start, so that the same images give the same components.
    variances, vectors = eigsh(covariance.numpy(), k=components, v0=np.ones(len(covariance)))
    order = np.argsort(-variances)
    directions = torch.from_numpy(vectors[:, order].T.copy()) * scale
    explained = float(variances.sum() / covariance.trace())
    return PrincipalComponents(centre.float(), directions.float(), explained)
