from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from bvae_tune.errors import InputError
from bvae_tune.models.linear import RawPixels, independent_components, pixel_moments, principal_components

N, D, M = 400, 30, 4


def _images(seed: int) -> torch.Tensor:
    numbers = np.random.default_rng(seed)
    images = 0.5 + 0.1 * numbers.normal(size=(N, M)) @ numbers.normal(size=(M, D)) + 0.01 * numbers.normal(size=(N, D))
    images[:, 7] = 0.25  # a pixel that never changes
    return torch.from_numpy(images.clip(0, 1)).float()


@pytest.mark.parametrize("standardise", [False, True])
def test_components_are_scikit_learns(standardise: bool) -> None:
    images = _images(seed=1)
    ours = principal_components(pixel_moments(images.split(64)), M, standardise)
    prepared = StandardScaler().fit_transform(images) if standardise else images.numpy()
    theirs = PCA(M, svd_solver="full").fit(prepared)
    assert ours.explained == pytest.approx(theirs.explained_variance_ratio_.sum(), rel=1e-4)
    codes, expected = ours.encode(images[None]).mean[0].numpy(), theirs.transform(prepared)
    signs = np.sign((codes * expected).sum(0))
    np.testing.assert_allclose(codes * signs, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("standardise", [False, True])
def test_codes_of_unit_variance(standardise: bool) -> None:
    images = _images(seed=1)
    components = principal_components(pixel_moments([images]), M, standardise, unit_variance=True)
    codes = components.encode(images[None]).mean[0].double()
    np.testing.assert_allclose(codes.T @ codes / N, np.eye(M), atol=1e-3)


def test_moments_of_parts_add_up() -> None:
    images = _images(seed=5)
    whole = pixel_moments([images])
    parts = pixel_moments([images[:100]]) + pixel_moments(images[100:].split(90))
    assert parts.count == whole.count
    torch.testing.assert_close(parts.total, whole.total)
    torch.testing.assert_close(parts.squares, whole.squares, rtol=1e-6, atol=0)


def test_components_are_the_same_each_time() -> None:
    moments = pixel_moments([_images(seed=2)])
    first, second = (principal_components(moments, M) for _ in range(2))
    assert torch.equal(first.directions, second.directions)


def test_more_components_than_pixels_is_an_error() -> None:
    with pytest.raises(InputError, match="30 of 400 images"):
        principal_components(pixel_moments([_images(seed=3)]), D)


def test_raw_pixels_are_their_own_codes() -> None:
    images = _images(seed=4)[None]
    codes = RawPixels().encode(images)
    assert torch.equal(codes.mean, images)
    assert codes.logvar is None


def test_independent_components_find_the_sources() -> None:
    numbers = np.random.default_rng(6)
    sources = numbers.uniform(-1, 1, (4000, M))
    images = torch.from_numpy(0.5 + 0.1 * sources @ numbers.normal(size=(M, D))).float()
    components = principal_components(pixel_moments([images]), M, unit_variance=True)
    found = independent_components(components, components.encode(images[None]).mean[0], seed=0)
    assert found.converged
    codes = found.encode(images[None]).mean[0].numpy()
    match = np.abs(np.corrcoef(codes.T, sources.T)[:M, M:])
    assert (np.sort(match.max(axis=0)) > 0.98).all()
    assert sorted(match.argmax(axis=1)) == list(range(M))
    mixed = np.abs(np.corrcoef(components.encode(images[None]).mean[0].T, sources.T)[:M, M:])
    assert mixed.max(axis=0).min() < 0.9  # principal components alone do not
