"""What a trained model's latents mean: arrays for a person to look at. Draws nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bvae_tune.data.image_store import ImageStore
from bvae_tune.errors import InputError
from bvae_tune.models.likelihoods import kl_divergence
from bvae_tune.models.networks import Codes, Decoder, Encoder


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


@dataclass(frozen=True)
class Activations:
    """What each latent of one replica answers to (Fig. 6).

    Attributes:
        means: for each group of factors (M, *numbers of their values), the latents' mean code, the other factors
            averaged out; NaN where no image had those values.
        variance: (M,) of the latents' posteriors, mean over the images; None where the encoder has none.
    """

    means: tuple[npt.NDArray[np.float64], ...]
    variance: npt.NDArray[np.float64] | None


def mean_activations(
    encoder: Encoder,
    store: ImageStore,
    groups: Sequence[tuple[str, ...]],
    images: npt.NDArray[np.integer],
    batch: int = 1024,
) -> Activations:
    """Encode images and average their codes by some of their factors.

    Args:
        encoder: of one replica.
        store: images that are the complete grid of their factors.
        groups: of factor names, as ("position_y", "position_x").
        images: (n,) which images of the store.
        batch: images encoded at a time.

    Raises:
        InputError: the store is no complete grid, or has not these factors.
    """
    sizes, positions = _axes_of(store, groups)
    device = getattr(encoder, "device", "cpu")
    totals = [np.zeros((1, math.prod(shape))) for shape in sizes]  # (M, cells) after the first batch
    counts = [np.zeros(math.prod(shape)) for shape in sizes]
    variances = []
    for start in range(0, len(images), batch):
        some = images[start : start + batch]
        with torch.inference_mode():
            codes = encoder.encode(store.gather(some, device=device)[None])
        mean = codes.mean[0].double().cpu().numpy()
        if codes.logvar is not None:
            variances.append(codes.logvar[0].double().exp().sum(0).cpu().numpy())
        factors = store.factors(some)
        for number, (shape, at) in enumerate(zip(sizes, positions, strict=True)):
            cells, wanted = np.ravel_multi_index(tuple(factors[:, at].T), shape), math.prod(shape)
            totals[number] = totals[number] + np.stack([np.bincount(cells, column, wanted) for column in mean.T])
            counts[number] += np.bincount(cells, minlength=wanted)
    with np.errstate(invalid="ignore"):
        means = [(total / count).reshape(-1, *shape) for total, count, shape in zip(totals, counts, sizes, strict=True)]
    return Activations(tuple(means), np.sum(variances, axis=0) / len(images) if variances else None)


def _axes_of(store: ImageStore, groups: Sequence[tuple[str, ...]]) -> tuple[list[tuple[int, ...]], list[list[int]]]:
    """For each group the sizes of its factors, and their positions among the store's."""
    wanted = list(dict.fromkeys(name for group in groups for name in group))
    space = store.factor_space
    missing = wanted if space is None else [name for name in wanted if name not in space.names]
    if space is None or missing:
        known = ", ".join(store.factor_names) or "none"
        raise InputError(
            f"{store.name}: takes images that are the complete grid of their factors, {', '.join(wanted)} among them; "
            f"this dataset knows {known}{'' if space else ', and is no complete grid'}"
        )
    positions = [[space.names.index(name) for name in group] for group in groups]
    return [tuple(space.sizes[position] for position in at) for at in positions], positions
