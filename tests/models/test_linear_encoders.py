from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from bvae_tune.errors import InputError
from bvae_tune.models.linear import RawPixels, fit_principal_components

N, D, M = 400, 30, 4


def _images(seed: int) -> torch.Tensor:
    numbers = np.random.default_rng(seed)
    images = 0.5 + 0.1 * numbers.normal(size=(N, M)) @ numbers.normal(size=(M, D)) + 0.01 * numbers.normal(size=(N, D))
    images[:, 7] = 0.25  # a pixel that never changes
    return torch.from_numpy(images.clip(0, 1)).float()


@pytest.mark.parametrize("standardise", [False, True])
def test_components_are_scikit_learns(standardise: bool) -> None:
    images = _images(seed=1)
    ours = fit_principal_components(images.split(64), M, standardise)
    prepared = StandardScaler().fit_transform(images) if standardise else images.numpy()
    theirs = PCA(M, svd_solver="full").fit(prepared)
    assert ours.explained == pytest.approx(theirs.explained_variance_ratio_.sum(), rel=1e-4)
    codes, expected = ours.encode(images[None]).mean[0].numpy(), theirs.transform(prepared)
    signs = np.sign((codes * expected).sum(0))
    np.testing.assert_allclose(codes * signs, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())


def test_components_are_the_same_each_time() -> None:
    images = _images(seed=2)
    first, second = (fit_principal_components([images], M) for _ in range(2))
    assert torch.equal(first.directions, second.directions)


def test_more_components_than_pixels_is_an_error() -> None:
    with pytest.raises(InputError, match="30 of 400 images"):
        fit_principal_components([_images(seed=3)], D)


def test_raw_pixels_are_their_own_codes() -> None:
    images = _images(seed=4)[None]
    codes = RawPixels().encode(images)
    assert torch.equal(codes.mean, images)
    assert codes.logvar is None
