"""Encoders without training steps, baselines of Sec. 4.2: raw pixels, principal and independent components (A.3)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bvae_tune.errors import InputError
from bvae_tune.models.networks import Codes

_ICA_ITERATIONS = 200


@dataclass(frozen=True)
class RawPixels:
    """Every pixel is a latent."""

    def encode(self, images: Tensor) -> Codes:
        """Images (R, n, D) -> codes with mean (R, n, D): themselves."""
        return Codes(images, None)


@dataclass(frozen=True)
class Moments:
    """Sums over images from which principal components follow; those of a dataset's parts add up to its own.

    Attributes:
        count: images.
        total: (D,) float64, their sum.
        squares: (D, D) float64, the sum of their outer products.
    """

    count: int
    total: Tensor
    squares: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)


@dataclass(frozen=True)
class PrincipalComponents:
    """Projection on the directions of largest variance.

    Attributes:
        centre: (D,) mean image.
        directions: (M, D) float32, by falling variance; of unit length over the (standardised) pixels, or such that
            every code has unit variance.
        explained: share of the variance of the (standardised) pixels that the M directions hold, in [0, 1].
    """

    centre: Tensor
    directions: Tensor
    explained: float

    def encode(self, images: Tensor) -> Codes:
        """Images (R, n, D) -> codes with mean (R, n, M)."""
        return Codes((images - self.centre) @ self.directions.T, None)


@dataclass(frozen=True)
class IndependentComponents:
    """A linear map of principal components to codes as independent as it can make them.

    Attributes:
        components: the principal components.
        centre: (M,) mean of their codes.
        unmixing: (M, M) float32.
        converged: whether FastICA met its tolerance.
    """

    components: PrincipalComponents
    centre: Tensor
    unmixing: Tensor
    converged: bool

    def encode(self, images: Tensor) -> Codes:
        """Images (R, n, D) -> codes with mean (R, n, M)."""
        return Codes((self.components.encode(images).mean - self.centre) @ self.unmixing.T, None)


def pixel_moments(batches: Iterable[Tensor]) -> Moments:
    """Moments of images that need not be in memory at once, exact but for the rounding of float32 within a batch.

    Args:
        batches: images (b, D) in [0, 1], some at a time; at least one batch.
    """
    moments: Moments | None = None
    for images in batches:
        part = Moments(len(images), images.sum(0, dtype=torch.float64), (images.T @ images).double())
        moments = part if moments is None else moments + part
    assert moments is not None
    return moments


def principal_components(
    moments: Moments, components: int = 10, standardise: bool = False, unit_variance: bool = False
) -> PrincipalComponents:
    """Principal components of the images whose moments these are.

    Args:
        moments: of at least two images.
        components: M.
        standardise: give every pixel unit variance first; pixels that never change are left out.
        unit_variance: scale every code to unit variance.

    Raises:
        InputError: fewer than two images, or not fewer components than pixels.
    """
    from scipy.sparse.linalg import eigsh

    count, total = moments.count, moments.total
    if count < 2 or not 1 <= components < len(total):
        raise InputError(
            f"principal components: {components} of {count} images; takes at least two images and fewer components "
            "than pixels"
        )
    centre = total / count
    covariance = moments.squares / count - torch.outer(centre, centre)
    scale = torch.ones_like(centre)
    if standardise:
        variance = covariance.diagonal()
        scale = torch.where(variance > 0, variance.clamp_min(1e-12).rsqrt(), 0)
        covariance = covariance * torch.outer(scale, scale)
    # A fixed start, so that the same images give the same components.
    variances, vectors = eigsh(covariance.numpy(), k=components, v0=np.ones(len(covariance)))
    order = np.argsort(-variances)
    directions = torch.from_numpy(vectors[:, order].T.copy()) * scale
    if unit_variance:
        directions = directions / torch.from_numpy(variances[order].copy()).sqrt()[:, None]
    explained = float(variances.sum() / covariance.trace())
    return PrincipalComponents(centre.float(), directions.float(), explained)


def independent_components(components: PrincipalComponents, codes: Tensor, seed: int) -> IndependentComponents:
    """FastICA (scikit-learn, parallel, log cosh) on principal components.

    Args:
        components: whose codes they are.
        codes: (n, M) of the images to learn from.
        seed: of its start.
    """
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    ica = FastICA(whiten="unit-variance", random_state=seed, max_iter=_ICA_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is in `converged`
        ica.fit(codes.double().numpy())
    unmixing, centre = torch.from_numpy(ica.components_).float(), torch.from_numpy(ica.mean_).float()
    return IndependentComponents(components, centre, unmixing, ica.n_iter_ < _ICA_ITERATIONS)
