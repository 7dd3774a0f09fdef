"""What an encoder and a decoder are, whatever network they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Codes:
    """Posterior means (R, n, M) and log variances (R, n, M), float32; None where an encoder has no variance."""

    mean: Tensor
    logvar: Tensor | None


class Encoder(Protocol):
    """Images (R or 1, n, D) in [0, 1] -> codes of R replicas."""

    def encode(self, images: Tensor) -> Codes:
        """Codes with mean (R, n, M)."""
        ...


class Decoder(Protocol):
    """Codes (R, n, M) -> images (R, n, D): probabilities (Bernoulli) or means (Gaussian), in [0, 1]."""

    def decode(self, codes: Tensor) -> Tensor:
        """Images (R, n, D), float32."""
        ...


class Trained(Encoder, Decoder, Protocol):
    """An Encoder and a Decoder of R replicas, with the parameters that they compute with."""

    def only(self, replicas: slice) -> Trained:
        """Some of the replicas; the parameters are views."""
        ...

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Name -> (R, ...) float32: what is kept of a trained model."""
        ...

    @property
    def replicas(self) -> int:
        """R."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and images and codes should be."""
        ...
