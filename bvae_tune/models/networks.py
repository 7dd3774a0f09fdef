"""The networks of Table 1."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bvae_tune.errors import InputError
from bvae_tune.models.codes import Codes, Decoder, Encoder, Trained
from bvae_tune.models.config import ModelConfig, beta_norm_of, beta_of, check_image_size
from bvae_tune.models.infogan import GenerativeNetwork, TrainedInfoGAN
from bvae_tune.models.layers import ParameterSpec, arranged, initialise
from bvae_tune.models.stack import Affine, Layer, MaxPooling, Parameters, Reshape, Stack, Unpooling, some_of

__all__ = ["Codes", "Decoder", "Encoder", "ModelConfig", "Network", "beta_norm_of", "beta_of", "build_network"]


@dataclass(frozen=True)
class Network:
    """An architecture for one image shape: what it computes with parameters, none of which it holds.

    Attributes:
        encoder: images (R, B, D) -> posterior mean and log variance side by side, (R, B, 2M).
        decoder: codes (R, B, M) -> (R, B, D): logits (Bernoulli) or means (Gaussian).
    """

    encoder: Stack
    decoder: Stack

    @property
    def specs(self) -> dict[str, ParameterSpec]:
        """All parameters, in order."""
        return self.encoder.specs | self.decoder.specs


def build_network(model: ModelConfig, channels: int, height: int, width: int) -> Network:
    """The network of `model` for images of this shape.

    Raises:
        InputError: "conv" or "dcign" with images that are not 64x64.
    """
    check_image_size(model, height, width)
    if model.architecture == "fc":
        return _fully_connected(model.layer_widths, model.latent_size, channels * height * width)
    build = _inverse_graphics if model.architecture == "dcign" else _convolutional
    return build(model.layer_widths, model.latent_size, channels)


def _fully_connected(widths: Sequence[int], latent_size: int, dimensions: int) -> Network:
    """Table 1, 2D shapes: D-1200-1200-2M with ReLU, M-1200-1200-1200-D with tanh."""
    up = [dimensions, *widths]
    encoder = [Affine("linear", f"encoder.{i}", *sizes, "relu") for i, sizes in enumerate(pairwise(up))]
    encoder.append(Affine("linear", f"encoder.{len(encoder)}", up[-1], 2 * latent_size, None))
    down = [latent_size, *reversed(widths), widths[0]]
    decoder = [Affine("linear", f"decoder.{i}", *sizes, "tanh") for i, sizes in enumerate(pairwise(down))]
    decoder.append(Affine("linear", f"decoder.{len(decoder)}", down[-1], dimensions, None))
    return Network(Stack(encoder), Stack(decoder))


def _convolutional(widths: Sequence[int], latent_size: int, channels: int) -> Network:
    """Table 1, chairs, celebA and 3D faces: four 4x4 convolutions of stride 2, one hidden layer, and their reverse."""
    *counts, hidden = widths
    images, smallest = (channels, 64, 64), (counts[-1], 4, 4)
    flat = counts[-1] * 16
    up = list(pairwise([channels, *counts]))
    encoder: list[Layer] = [
        Reshape("images", images),
        *(Affine("convolution", f"encoder.{i}", *sizes, "relu") for i, sizes in enumerate(up)),
        Reshape("vectors", smallest),
        Affine("linear", "encoder.4", flat, hidden, "relu"),
        Affine("linear", "encoder.5", hidden, 2 * latent_size, None),
    ]
    *down, last = pairwise([*reversed(counts), channels])
    decoder: list[Layer] = [
        Affine("linear", "decoder.0", latent_size, hidden, "relu"),
        Affine("linear", "decoder.1", hidden, flat, "relu"),
        Reshape("images", smallest),
        *(Affine("deconvolution", f"decoder.{i}", *sizes, "relu") for i, sizes in enumerate(down, start=2)),
        Affine("deconvolution", "decoder.5", *last, None),
        Reshape("vectors", images),
    ]
    return Network(Stack(encoder), Stack(decoder))


def _inverse_graphics(widths: Sequence[int], latent_size: int, channels: int) -> Network:
    """Table 1, 2D shapes (DC-IGN): 3x3 convolutions and max pooling, unpooling and 3x3 convolutions.

    Table 1 does not say how 8x8 feature maps and latents meet; here, as in Kulkarni et al. (2015), through one fully
    connected layer each way.
    """
    images, smallest = (channels, 64, 64), (widths[-1], 8, 8)
    flat = widths[-1] * 64
    encoder: list[Layer] = [Reshape("images", images)]
    for i, sizes in enumerate(pairwise([channels, *widths])):
        encoder += [Affine("same_convolution", f"encoder.{i}", *sizes, "relu"), MaxPooling()]
    encoder += [Reshape("vectors", smallest), Affine("linear", "encoder.3", flat, 2 * latent_size, None)]
    decoder: list[Layer] = [Affine("linear", "decoder.0", latent_size, flat, "relu"), Reshape("images", smallest)]
    *down, last = pairwise([*reversed(widths), channels])
    for i, sizes in enumerate(down, start=1):
        decoder += [Unpooling(), Affine("same_convolution", f"decoder.{i}", *sizes, "relu")]
    decoder += [Unpooling(), Affine("same_convolution", "decoder.3", *last, None), Reshape("vectors", images)]
    return Network(Stack(encoder), Stack(decoder))


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

    def only(self, replicas: slice) -> TrainedModel:
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
        """Images (R or 1, n, D) in [0, 1] -> codes (R, n, M), on the parameters' device."""
        both = [self.network.encoder.run(self._replica(r), images[r % len(images)][None]) for r in range(self.replicas)]
        mean, logvar = torch.cat(both).chunk(2, dim=-1)
        return Codes(mean, logvar)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (R, n, M) -> images (R, n, D) in [0, 1]: probabilities, or means cut to that range."""
        outputs = torch.cat([self.network.decoder.run(self._replica(r), codes[r][None]) for r in range(self.replicas)])
        return outputs.sigmoid() if self.model.likelihood == "bernoulli" else outputs.clamp(0, 1)

    def _replica(self, replica: int) -> Parameters:
        return some_of(self.parameters, slice(replica, replica + 1))


def parameter_count(model: ModelConfig, channels: int, height: int, width: int) -> int:
    """Parameters of one replica, without making them; raises InputError as `build_network` does."""
    if model.architecture == "infogan":
        specs = GenerativeNetwork(model.layer_widths, channels).specs
    else:
        specs = build_network(model, channels, height, width).specs
    return sum(math.prod(spec.shape) for spec in specs.values())


def load_model(
    weights: Mapping[str, Tensor], model: ModelConfig, channels: int, height: int, width: int, device: str = "cpu"
) -> Trained:
    """Encoder and decoder of saved weights (name -> (R, ...)), as `Bank.weights` gives them.

    Raises:
        InputError: the weights are not those of `model` for this image shape; names the first that differs.
    """
    if model.architecture == "infogan":
        check_image_size(model, height, width)
        generative = GenerativeNetwork(model.layer_widths, channels)
        return TrainedInfoGAN(generative, _placed(generative.specs, weights, device))
    network = build_network(model, channels, height, width)
    return TrainedModel(model, network, _placed(network.specs, weights, device))


def _placed(specs: Mapping[str, ParameterSpec], weights: Mapping[str, Tensor], device: str) -> dict[str, Tensor]:
    check_parameters(specs, weights)
    return {name: arranged(weights[name].to(device)) for name in specs}


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


def initial_parameters(
    network: Network | GenerativeNetwork, seeds: Sequence[int], device: str = "cpu"
) -> dict[str, Tensor]:
    """First parameters of one replica per seed, name -> (R, ...) float32."""
    return {name: arranged(values.to(device)) for name, values in initialise(network.specs, seeds).items()}
