"""Replica-batched layers: every tensor has a leading replica axis R, and replica r meets parameters r only.

The axis is the contract; how a layer runs (one product, a batched product, grouped convolutions) is private to this
file and chosen by measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bvae_tune.randomness import generator


@dataclass(frozen=True)
class ParameterSpec:
    """Shape of a parameter of one replica, and the fan-in that scales its first values."""

    shape: tuple[int, ...]
    fan_in: int


def linear_specs(name: str, inputs: int, outputs: int) -> dict[str, ParameterSpec]:
    """Weight (outputs, inputs) and bias of a fully connected layer, as in torch.nn.Linear."""
    return {
        f"{name}.weight": ParameterSpec((outputs, inputs), inputs),
        f"{name}.bias": ParameterSpec((outputs,), inputs),
    }


def convolution_specs(name: str, inputs: int, outputs: int) -> dict[str, ParameterSpec]:
    """Weight (outputs, inputs, 4, 4) and bias of a convolution, as in torch.nn.Conv2d."""
    return {
        f"{name}.weight": ParameterSpec((outputs, inputs, 4, 4), 16 * inputs),
        f"{name}.bias": ParameterSpec((outputs,), 16 * inputs),
    }


def deconvolution_specs(name: str, inputs: int, outputs: int) -> dict[str, ParameterSpec]:
    """Weight (inputs, outputs, 4, 4) and bias, as in torch.nn.ConvTranspose2d, whose fan-in counts the outputs."""
    return {
        f"{name}.weight": ParameterSpec((inputs, outputs, 4, 4), 16 * outputs),
        f"{name}.bias": ParameterSpec((outputs,), 16 * outputs),
    }


def initialise(specs: dict[str, ParameterSpec], seeds: Sequence[int]) -> dict[str, Tensor]:
    """First values (R, *shape), float32: uniform in ±1/sqrt(fan-in), PyTorch's default for all layers here.

    Each replica's numbers depend on its own seed and the parameter's name only, so that a replica in a bank begins
    like the same seed alone.
    """
    parameters = {}
    for name, spec in specs.items():
        values = torch.empty(len(seeds), *spec.shape)
        for replica, seed in enumerate(seeds):
            uniform = generator(seed, f"init {name}").random(spec.shape, dtype=np.float32)
            values[replica] = torch.from_numpy(uniform)
        parameters[name] = values.sub_(0.5).mul_(2 / spec.fan_in**0.5)
    return parameters


def linear(inputs_RBI: Tensor, weight_ROI: Tensor, bias_RO: Tensor) -> Tensor:
    """Fully connected layer: (R, B, I) -> (R, B, O)."""
    if len(weight_ROI) == 1:
        return functional.linear(inputs_RBI[0], weight_ROI[0], bias_RO[0])[None]
    return torch.baddbmm(bias_RO[:, None], inputs_RBI, weight_ROI.mT)


def convolution(images_RBCHW: Tensor, weight: Tensor, bias_RO: Tensor) -> Tensor:
    """4x4 convolution of stride 2, padding 1: halves height and width; weight (R, O, C, 4, 4)."""
    if len(weight) == 1:
        return functional.conv2d(images_RBCHW[0], weight[0], bias_RO[0], stride=2, padding=1)[None]
    R, B = images_RBCHW.shape[:2]
    grouped = images_RBCHW.transpose(0, 1).flatten(1, 2)
    result = functional.conv2d(grouped, weight.flatten(0, 1), bias_RO.flatten(), stride=2, padding=1, groups=R)
    return result.view(B, R, -1, *result.shape[2:]).transpose(0, 1)


def deconvolution(images_RBCHW: Tensor, weight: Tensor, bias_RO: Tensor) -> Tensor:
    """The transpose of `convolution`: doubles height and width; weight (R, C, O, 4, 4)."""
    if len(weight) == 1:
        return functional.conv_transpose2d(images_RBCHW[0], weight[0], bias_RO[0], stride=2, padding=1)[None]
    R, B = images_RBCHW.shape[:2]
    grouped = images_RBCHW.transpose(0, 1).flatten(1, 2)
    result = functional.conv_transpose2d(
        grouped, weight.flatten(0, 1), bias_RO.flatten(), stride=2, padding=1, groups=R
    )
    return result.view(B, R, -1, *result.shape[2:]).transpose(0, 1)
