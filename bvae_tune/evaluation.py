"""The one place where models meet metrics: encode the labelled images once, then score the codes."""

from __future__ import annotations

import torch

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.labels import WeakLabels
from bvae_tune.metrics.config import MetricConfig, ProtocolConfig
from bvae_tune.metrics.protocol import TrialScore, score_codes
from bvae_tune.models.networks import Codes, Encoder


def encode_labelled(encoder: Encoder, store: ImageStore, labels: WeakLabels, batch: int = 128) -> Codes:
    """Codes of every labelled image, in the order of `labels.indices`, on the CPU.

    Args:
        encoder: R replicas.
        store: where the images are.
        labels: which images.
        batch: images encoded at a time; of more, the activations leave the cache.

    Returns:
        mean (R, n, M) and logvar (R, n, M) or None, float32.
    """
    device = getattr(encoder, "device", "cpu")  # encoders without parameters have none
    parts = []
    with torch.inference_mode():
        for start in range(0, len(labels.indices), batch):
            images = store.gather(labels.indices[start : start + batch], device=device)
            parts.append(encoder.encode(images[None]))
    mean = torch.cat([part.mean for part in parts], dim=1).float().cpu()
    logvars = [part.logvar for part in parts if part.logvar is not None]
    return Codes(mean, torch.cat(logvars, dim=1).float().cpu() if logvars else None)


def score(codes: Codes, labels: WeakLabels, metric: MetricConfig, protocol: ProtocolConfig, seed: int) -> TrialScore:
    """Score codes of the labelled images (see `metrics.protocol.score_codes`).

    Args:
        codes: as `encode_labelled` gives them.
        labels: the images they are of.
        metric, protocol: how.
        seed: of pairs and batches; one seed asks the same questions of every model.

    Raises:
        InputError: codes that are not finite, or fewer than two usable factors.
    """
    return score_codes(
        codes.mean.numpy(),
        labels.factors,
        labels.names,
        metric,
        protocol,
        seed,
        logvar=None if codes.logvar is None else codes.logvar.numpy(),
    )
