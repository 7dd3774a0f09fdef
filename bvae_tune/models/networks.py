"""The networks of Table 1, and what an encoder and a decoder are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from bvae_tune.errors import InputError
from bvae_tune.models.config import ModelConfig, beta_norm_of, beta_of, check_image_size
from bvae_tune.models.layers import (
    ParameterSpec,
    convolution,
    convolution_specs,
    deconvolution,
    deconvolution_specs,
    from_grouped,
    initialise,
    linear,
    linear_specs,
    to_grouped,
)

__all__ = ["Codes", "Decoder", "Encoder", "ModelConfig", "Network", "beta_norm_of", "beta_of", "build_network"]

Parameters = Mapping[str, Tensor]


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


class Network(Protocol):
    """An architecture for one image shape: which parameters it has, and what it computes with them. Holds none."""

    specs: dict[str, ParameterSpec]

    def encode(self, parameters: Parameters, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (R, B, D) -> posterior mean and log variance, (R, B, M) each."""
        ...

    def decode(self, parameters: Parameters, codes: Tensor) -> Tensor:
        """Codes (R, B, M) -> (R, B, D): logits (Bernoulli) or means (Gaussian)."""
        ...


class FullyConnected:
    """Table 1, 2D shapes: D-1200-1200-2M with ReLU, M-1200-1200-1200-D with tanh."""

    def __init__(self, widths: Sequence[int], latent_size: int, dimensions: int) -> None:
        encoder = [dimensions, *widths, 2 * latent_size]
        decoder = [latent_size, *reversed(widths), widths[0], dimensions]
        self.specs: dict[str, ParameterSpec] = {}
        for side, sizes in (("encoder", encoder), ("decoder", decoder)):
            for layer, (inputs, outputs) in enumerate(pairwise(sizes)):
                self.specs |= linear_specs(f"{side}.{layer}", inputs, outputs)
        self._encoder_layers, self._decoder_layers = len(encoder) - 1, len(decoder) - 1

    def encode(self, parameters: Parameters, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (R, B, D) -> mean and log variance (R, B, M)."""
        hidden = images
        for layer in range(self._encoder_layers - 1):
            hidden = functional.relu(_linear(parameters, f"encoder.{layer}", hidden), inplace=True)
        mean, logvar = _linear(parameters, f"encoder.{self._encoder_layers - 1}", hidden).float().chunk(2, dim=-1)
        return mean, logvar

    def decode(self, parameters: Parameters, codes: Tensor) -> Tensor:
        """Codes (R, B, M) -> logits or means (R, B, D)."""
        hidden = codes
        for layer in range(self._decoder_layers - 1):
            hidden = torch.tanh(_linear(parameters, f"decoder.{layer}", hidden))
        return _linear(parameters, f"decoder.{self._decoder_layers - 1}", hidden)


class Convolutional:
    """Table 1, chairs, celebA and 3D faces: four 4x4 convolutions of stride 2, one hidden layer, and their reverse."""

    def __init__(self, widths: Sequence[int], latent_size: int, channels: int) -> None:
        *counts, hidden = widths
        self._shape, self._last = (channels, 64, 64), (counts[-1], 4, 4)
        flat = counts[-1] * 16
        self.specs: dict[str, ParameterSpec] = {}
        for layer, (inputs, outputs) in enumerate(pairwise([channels, *counts])):
            self.specs |= convolution_specs(f"encoder.{layer}", inputs, outputs)
        self.specs |= linear_specs("encoder.4", flat, hidden) | linear_specs("encoder.5", hidden, 2 * latent_size)
        self.specs |= linear_specs("decoder.0", latent_size, hidden) | linear_specs("decoder.1", hidden, flat)
        upward = [*reversed(counts), channels]
        for layer, (inputs, outputs) in enumerate(pairwise(upward)):
            self.specs |= deconvolution_specs(f"decoder.{layer + 2}", inputs, outputs)

    def encode(self, parameters: Parameters, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (R, B, D) -> mean and log variance (R, B, M)."""
        hidden = to_grouped(images, self._shape)
        for layer in range(4):
            weight, bias = parameters[f"encoder.{layer}.weight"], parameters[f"encoder.{layer}.bias"]
            hidden = functional.relu(convolution(hidden, weight, bias), inplace=True)
        hidden = functional.relu(_linear(parameters, "encoder.4", from_grouped(hidden, len(images))), inplace=True)
        mean, logvar = _linear(parameters, "encoder.5", hidden).float().chunk(2, dim=-1)
        return mean, logvar

    def decode(self, parameters: Parameters, codes: Tensor) -> Tensor:
        """Codes (R, B, M) -> logits or means (R, B, D)."""
        hidden = functional.relu(_linear(parameters, "decoder.0", codes), inplace=True)
        hidden = functional.relu(_linear(parameters, "decoder.1", hidden), inplace=True)
        hidden = to_grouped(hidden, self._last)
        for layer in range(2, 5):
            weight, bias = parameters[f"decoder.{layer}.weight"], parameters[f"decoder.{layer}.bias"]
            hidden = functional.relu(deconvolution(hidden, weight, bias))
        hidden = deconvolution(hidden, parameters["decoder.5.weight"], parameters["decoder.5.bias"])
        return from_grouped(hidden, len(codes))


def build_network(model: ModelConfig, channels: int, height: int, width: int) -> Network:
    """The network of `model` for images of this shape.

    Raises:
        InputError: "conv" with images that are not 64x64.
    """
    check_image_size(model, height, width)
    if model.architecture == "fc":
        return FullyConnected(model.layer_widths, model.latent_size, channels * height * width)
    return Convolutional(model.layer_widths, model.latent_size, channels)


def _linear(parameters: Parameters, name: str, inputs: Tensor) -> Tensor:
    return linear(inputs, parameters[f"{name}.weight"], parameters[f"{name}.bias"])


@dataclass(frozen=True)
class TrainedModel:
    """A network with its parameters: an Encoder and a Decoder of R replicas.

    Attributes:
        model: the configuration it was built from.
        parameters: name -> (R, ...) float32.
    """

    model: ModelConfig
    network: Network
    parameters: Parameters

    @property
    def replicas(self) -> int:
        """R."""
        return len(next(iter(self.parameters.values())))

    @property
    def device(self) -> torch.device:
        """Where the parameters are, and images and codes should be."""
        return next(iter(self.parameters.values())).device

    @torch.no_grad()
    def encode(self, images: Tensor) -> Codes:
        """Images (R or 1, n, D) in [0, 1] -> codes (R, n, M), on the parameters' device."""
        pairs = [self.network.encode(self._replica(r), images[r % len(images)][None]) for r in range(self.replicas)]
        return Codes(torch.cat([mean for mean, _ in pairs]), torch.cat([logvar for _, logvar in pairs]))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (R, n, M) -> images (R, n, D) in [0, 1]: probabilities, or means cut to that range."""
        outputs = torch.cat([self.network.decode(self._replica(r), codes[r][None]) for r in range(self.replicas)])
        return outputs.sigmoid() if self.model.likelihood == "bernoulli" else outputs.clamp(0, 1)

    def _replica(self, replica: int) -> Parameters:
        return {name: values[replica : replica + 1] for name, values in self.parameters.items()}


def load_model(
    weights: Mapping[str, Tensor], model: ModelConfig, channels: int, height: int, width: int, device: str = "cpu"
) -> TrainedModel:
    """Encoder and decoder of saved weights (name -> (R, ...)), as `Bank.weights` gives them.

    Raises:
        InputError: the weights are not those of `model` for this image shape; names the first that differs.
    """
    network = build_network(model, channels, height, width)
    check_parameters(network.specs, weights)
    return TrainedModel(model, network, {name: weights[name].to(device) for name in network.specs})


def check_parameters(specs: Mapping[str, ParameterSpec], weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that do not fit.

    Raises:
        InputError: a parameter is missing, unknown, of another shape, or of another number of replicas.
    """
    if unknown := sorted(weights.keys() - specs.keys()) or sorted(specs.keys() - weights.keys()):
        raise InputError(f"weights: {unknown[0]!r} is on one side only; they belong to another model configuration")
    replicas = len(weights[next(iter(specs))])
    for name, spec in specs.items():
        if weights[name].shape != (replicas, *spec.shape):
            raise InputError(
                f"weights: {name!r} has shape {list(weights[name].shape)}, the model configuration asks for "
                f"{[replicas, *spec.shape]}"
            )


def initial_parameters(network: Network, seeds: Sequence[int], device: str = "cpu") -> dict[str, Tensor]:
    """First parameters of one replica per seed, name -> (R, ...) float32."""
    return {name: values.to(device) for name, values in initialise(network.specs, seeds).items()}
