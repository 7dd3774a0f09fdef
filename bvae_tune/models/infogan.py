"""InfoGAN of Table 1 and Sec. A.2 (Chen et al., 2016): what its three networks compute for one replica.

The generator draws images from five noise variables z and five codes c, all uniform in (-1, 1). The discriminator tells
its images from the real ones, and the recognition network, which shares all but its last layers with the discriminator,
infers c from an image: these means are the model's codes. Images are in [-1, 1] here.

Table 1 names the layers and leaves open how they fit together. Here, as A.2 says, as in Radford et al. (2015):

- The generator is FC 256, FC 256, deconvolutions 128x4x4 and 64x4x4, and one more of the same kind to the image's
  channels, all deconvolutions of stride 2: three of them make 64 pixels of 8, so the 256 values of the second FC layer
  are read as 4 maps of 8x8. ReLU; tanh at the images.
- The discriminator is that in reverse: convolutions of stride 2 to 64, 128 and 4 maps, flattened to 256 values, FC 256,
  and FC 1. Leaky ReLU with slope 0.2; the sigmoid is part of the loss.
- The recognition network takes the 256 features to FC 128 and FC 5: means of Gaussians. Their standard deviations are
  one parameter each, the same for all images, that starts at that of the codes themselves.
- Batch normalisation is in all layers except the last of the generator and the first of the discriminator (A.2), and
  the last of discriminator and recognition, whose outputs would say nothing if each batch were moved to the same mean.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from bvae_tune.models.codes import Codes
from bvae_tune.models.layers import ParameterSpec, convolution_specs, deconvolution_specs, linear_specs
from bvae_tune.models.stack import Parameters, some_of

NOISE: Final = 5
CODES: Final = 5
_MAP: Final = 8  # the side of the smallest maps
_LEAK: Final = 0.2
_MOMENTUM: Final = 0.1

# Where the mean and variance that normalise a layer come from: the batch; the batch, which also moves the running ones
# a tenth of the way; or these.
Statistics = Literal["batch", "tracked", "running"]


@dataclass(frozen=True)
class GenerativeNetwork:
    """Generator, discriminator and recognition for 64x64 images; holds no parameters.

    Attributes:
        widths: of the generator's FC layers, its hidden deconvolutions, and the recognition's FC layer.
        channels: of the images.
    """

    widths: tuple[int, ...]
    channels: int

    @cached_property
    def generator_specs(self) -> dict[str, ParameterSpec]:
        """Parameters and running statistics of the generator."""
        first, second, third, fourth, _ = self.widths
        specs = _normalised(linear_specs("generator.0", NOISE + CODES, first), first)
        specs |= _normalised(linear_specs("generator.1", first, second), second)
        for i, (inputs, outputs) in enumerate(pairwise([second // _MAP**2, third, fourth]), start=2):
            specs |= _normalised(deconvolution_specs(f"generator.{i}", inputs, outputs), outputs)
        return specs | deconvolution_specs("generator.4", fourth, self.channels)

    @cached_property
    def inference_specs(self) -> dict[str, ParameterSpec]:
        """Parameters and running statistics of discriminator and recognition."""
        first, second, third, fourth, recognition = self.widths
        specs = convolution_specs("discriminator.0", self.channels, fourth)
        for i, (inputs, outputs) in enumerate(pairwise([fourth, third, second // _MAP**2]), start=1):
            specs |= _normalised(convolution_specs(f"discriminator.{i}", inputs, outputs), outputs)
        specs |= _normalised(linear_specs("discriminator.3", second, first), first)
        specs |= linear_specs("discriminator.4", first, 1)
        specs |= _normalised(linear_specs("recognition.0", first, recognition), recognition)
        specs |= linear_specs("recognition.1", recognition, CODES)
        return specs | {"recognition.logvar": ParameterSpec((CODES,), CODES, math.log(1 / 3))}

    @cached_property
    def specs(self) -> dict[str, ParameterSpec]:
        """All parameters and running statistics, in order."""
        return self.generator_specs | self.inference_specs

    def generate(self, parameters: Parameters, latents: Tensor, statistics: Statistics) -> Tensor:
        """z and c side by side (B, 10) -> images (B, D) in [-1, 1]."""
        values = latents
        for i in (0, 1):
            values = functional.linear(values, parameters[f"generator.{i}.weight"])
            values = torch.relu(_normalise(parameters, f"generator.{i}", values, statistics))
        values = values.view(len(values), -1, _MAP, _MAP)
        for i in (2, 3):
            values = functional.conv_transpose2d(values, parameters[f"generator.{i}.weight"], stride=2, padding=1)
            values = torch.relu(_normalise(parameters, f"generator.{i}", values, statistics))
        weight, bias = parameters["generator.4.weight"], parameters["generator.4.bias"]
        return torch.tanh(functional.conv_transpose2d(values, weight, bias, stride=2, padding=1)).flatten(1)

    def features(self, parameters: Parameters, images: Tensor, statistics: Statistics) -> Tensor:
        """Images (B, D) in [-1, 1] -> what discriminator and recognition share (B, first width)."""
        side = 8 * _MAP
        weight, bias = parameters["discriminator.0.weight"], parameters["discriminator.0.bias"]
        values = functional.conv2d(images.view(-1, self.channels, side, side), weight, bias, stride=2, padding=1)
        values = functional.leaky_relu(values, _LEAK)
        for i in (1, 2):
            values = functional.conv2d(values, parameters[f"discriminator.{i}.weight"], stride=2, padding=1)
            values = functional.leaky_relu(_normalise(parameters, f"discriminator.{i}", values, statistics), _LEAK)
        values = functional.linear(values.flatten(1), parameters["discriminator.3.weight"])
        return functional.leaky_relu(_normalise(parameters, "discriminator.3", values, statistics), _LEAK)

    def judge(self, parameters: Parameters, features: Tensor) -> Tensor:
        """Features (B, ...) -> logits (B,) of being real."""
        weight, bias = parameters["discriminator.4.weight"], parameters["discriminator.4.bias"]
        return functional.linear(features, weight, bias)[:, 0]

    def recognise(self, parameters: Parameters, features: Tensor, statistics: Statistics) -> Tensor:
        """Features (B, ...) -> inferred means of the codes (B, 5)."""
        values = functional.linear(features, parameters["recognition.0.weight"])
        values = functional.leaky_relu(_normalise(parameters, "recognition.0", values, statistics), _LEAK)
        return functional.linear(values, parameters["recognition.1.weight"], parameters["recognition.1.bias"])


def information_bound(mean: Tensor, logvar: Tensor, codes: Tensor) -> Tensor:
    """Lower bound on the mutual information of codes and images: E[log q(c|x)] + H(c), in nats (Chen et al., Eq. 5).

    At most as much as the codes have; 5 (log 2 - ½ log(2πe/3)) = -0.88 where nothing is inferred.

    Args:
        mean: (B, 5), inferred from the images that were drawn from `codes`.
        logvar: (5,) of the Gaussians.
        codes: (B, 5) uniform in (-1, 1).
    """
    log_likelihood = -0.5 * ((codes - mean).square() * (-logvar).exp() + logvar + math.log(2 * math.pi))
    return log_likelihood.sum(1).mean() + codes.shape[1] * math.log(2)


def is_statistic(name: str) -> bool:
    """Whether it is a running statistic, which no gradient reaches."""
    return name.endswith((".running_mean", ".running_variance"))


@dataclass(frozen=True)
class TrainedInfoGAN:
    """InfoGAN with its parameters: an Encoder (inferred means of the codes) and a Decoder (z = 0) of R replicas.

    Both normalise by the running statistics, so an image's code does not depend on the others of its batch.

    Attributes:
        parameters: name -> (R, ...) float32, running statistics among them.
    """

    network: GenerativeNetwork
    parameters: Parameters

    def only(self, replicas: slice) -> TrainedInfoGAN:
        """Some of the replicas; the parameters are views."""
        return dataclasses.replace(self, parameters=some_of(self.parameters, replicas))

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
        """Images (R or 1, n, D) in [0, 1] -> codes (R, n, 5) without a variance, on the parameters' device."""
        means = []
        for r in range(self.replicas):
            parameters = replica_of(self.parameters, r)
            features = self.network.features(parameters, 2 * images[r % len(images)] - 1, "running")
            means.append(self.network.recognise(parameters, features, "running"))
        return Codes(torch.stack(means), None)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (R, n, 5) -> images (R, n, D) in [0, 1], drawn with all noise variables at 0, the middle of theirs."""
        latents = torch.cat([codes.new_zeros(*codes.shape[:2], NOISE), codes], dim=-1)
        drawn = [
            self.network.generate(replica_of(self.parameters, r), latents[r], "running") for r in range(self.replicas)
        ]
        return (torch.stack(drawn) + 1) / 2


def replica_of(parameters: Parameters, replica: int) -> dict[str, Tensor]:
    """One replica's parameters, without the replica axis."""
    return {name: values[replica] for name, values in parameters.items()}


def _normalised(specs: dict[str, ParameterSpec], width: int) -> dict[str, ParameterSpec]:
    """A layer's weight, and in place of its bias what batch normalisation has."""
    ((weight, spec), (bias, _)) = specs.items()
    name = bias.removesuffix(".bias")
    starts = {"scale": 1.0, "shift": 0.0, "running_mean": 0.0, "running_variance": 1.0}
    return {weight: spec} | {f"{name}.{part}": ParameterSpec((width,), width, start) for part, start in starts.items()}


def _normalise(parameters: Parameters, name: str, values: Tensor, statistics: Statistics) -> Tensor:
    running = None if statistics == "batch" else parameters[f"{name}.running_mean"]
    variance = None if statistics == "batch" else parameters[f"{name}.running_variance"]
    scale, shift = parameters[f"{name}.scale"], parameters[f"{name}.shift"]
    return functional.batch_norm(values, running, variance, scale, shift, statistics != "running", _MOMENTUM)
