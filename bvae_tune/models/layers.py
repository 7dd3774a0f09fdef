"""Replica-batched layers: every tensor has a leading replica axis R, and replica r meets parameters r only.

The axis is the contract; how a layer runs (one product, a batched product, grouped convolutions) is private to this
file and chosen by measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bvae_tune.randomness import generator

_STRIDE, _PADDING = (2, 2), (1, 1)
_FEW_CHANNELS = 8


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


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs_RBI: Tensor, weight_ROI: Tensor, bias_RO: Tensor) -> Tensor:
        weight_ROI = weight_ROI.to(inputs_RBI.dtype)
        ctx.save_for_backward(inputs_RBI, weight_ROI)
        return torch.baddbmm(bias_RO[:, None].to(inputs_RBI.dtype), inputs_RBI, weight_ROI.mT)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        (gradient_RBO,) = gradients
        inputs_RBI, weight_ROI = ctx.saved_tensors
        to_inputs = gradient_RBO @ weight_ROI if ctx.needs_input_grad[0] else None
        return to_inputs, (gradient_RBO.mT @ inputs_RBI).float(), gradient_RBO.sum(1, dtype=torch.float32)


def linear(inputs_RBI: Tensor, weight_ROI: Tensor, bias_RO: Tensor) -> Tensor:
    """Fully connected layer, (R, B, I) -> (R, B, O), in the precision of the inputs; float32 parameters."""
    result: Tensor = _Linear.apply(inputs_RBI, weight_ROI, bias_RO)  # type: ignore[no-untyped-call]
    return result


# Convolutions keep the replicas side by side as channels, (B, R*C, H, W), channels last: that is a grouped convolution,
# and on a CPU half the time of the usual layout.


def to_grouped(images_RBD: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(R, B, C*H*W) -> (B, R*C, H, W), channels last, for C, H, W = `shape`."""
    R, B = images_RBD.shape[:2]
    grouped = images_RBD.reshape(R, B, *shape).transpose(0, 1).reshape(B, R * shape[0], *shape[1:])
    return grouped.contiguous(memory_format=torch.channels_last)


def from_grouped(images: Tensor, replicas: int) -> Tensor:
    """(B, R*C, H, W) -> (R, B, C*H*W)."""
    return images.reshape(len(images), replicas, -1).transpose(0, 1)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight_ROCkk: Tensor, bias_RO: Tensor) -> Tensor:
        weight = _kernel(weight_ROCkk, images)
        ctx.save_for_backward(images, weight)
        ctx.groups = len(weight_ROCkk)
        return _halved(images, weight, bias_RO.flatten().to(images.dtype), ctx.groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        (gradient,) = gradients
        images, weight = ctx.saved_tensors
        to_images = _doubled(gradient, weight, None, ctx.groups) if ctx.needs_input_grad[0] else None
        return to_images, _to_weight(images, gradient, weight, ctx.groups), _to_bias(gradient, ctx.groups)


class _Deconvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight_RCOkk: Tensor, bias_RO: Tensor) -> Tensor:
        weight = _kernel(weight_RCOkk, images)
        ctx.save_for_backward(images, weight)
        ctx.groups = len(weight_RCOkk)
        return _doubled(images, weight, bias_RO.to(images.dtype), ctx.groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (gradient,) = gradients
        images, weight = ctx.saved_tensors
        to_images = _halved(gradient, weight, None, ctx.groups)
        return to_images, _to_weight(gradient, images, weight, ctx.groups), _to_bias(gradient, ctx.groups)


def convolution(images: Tensor, weight_ROCkk: Tensor, bias_RO: Tensor) -> Tensor:
    """4x4 convolution of stride 2, padding 1: (B, R*C, H, W) -> (B, R*O, H/2, W/2), in the precision of the images."""
    result: Tensor = _Convolution.apply(images, weight_ROCkk, bias_RO)  # type: ignore[no-untyped-call]
    return result


def deconvolution(images: Tensor, weight_RCOkk: Tensor, bias_RO: Tensor) -> Tensor:
    """The transpose of `convolution`: (B, R*C, H, W) -> (B, R*O, 2H, 2W), in the precision of the images."""
    result: Tensor = _Deconvolution.apply(images, weight_RCOkk, bias_RO)  # type: ignore[no-untyped-call]
    return result


def _halved(images: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    return functional.conv2d(images, weight, bias, _STRIDE, _PADDING, groups=groups)


def _doubled(images: Tensor, weight: Tensor, bias_RO: Tensor | None, groups: int) -> Tensor:
    """The transposed convolution. For few output channels PyTorch's own is two to four times slower than this.

    The pixels of even and odd rows and columns (four phases) are each a 2x2 convolution of the images, and all four
    together one with four times the channels.
    """
    B, channels, H, W = images.shape
    outputs = weight.shape[1]
    if outputs > _FEW_CHANNELS:
        bias = None if bias_RO is None else bias_RO.flatten()
        return functional.conv_transpose2d(images, weight, bias, _STRIDE, _PADDING, groups=groups)
    # Kernel row k = 2 (1 - t) + p is tap t of phase p.
    taps = weight.reshape(groups, channels // groups, outputs, 2, 2, 2, 2).flip(3, 5).permute(0, 4, 6, 2, 1, 3, 5)
    taps = taps.reshape(-1, channels // groups, 2, 2).contiguous(memory_format=torch.channels_last)
    bias = None if bias_RO is None else bias_RO[:, None].expand(-1, 4, -1).flatten()
    phases = functional.conv2d(images, taps, bias, padding=1, groups=groups).permute(0, 2, 3, 1)
    woven = phases.reshape(B, H + 1, W + 1, groups, 2, 2, outputs).permute(0, 1, 4, 2, 5, 3, 6)
    return woven.reshape(B, 2 * H + 2, 2 * W + 2, groups * outputs)[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


def _to_weight(images: Tensor, halved: Tensor, weight: Tensor, groups: int) -> Tensor:
    """Gradient to the kernels between `images` and `halved`, whichever of the two came in: (R, O, C, 4, 4), float32."""
    # torch.nn.grad.conv2d_weight is this call without the weight, from which it would take the layout.
    gradient: Tensor = torch.ops.aten.convolution_backward(
        halved, images, weight, None, _STRIDE, _PADDING, (1, 1), False, (0, 0), groups, (False, True, False)
    )[1]
    return gradient.float().view(groups, -1, *weight.shape[1:])


def _to_bias(gradient: Tensor, groups: int) -> Tensor:
    return gradient.sum((0, 2, 3), dtype=torch.float32).view(groups, -1)


def _kernel(weight: Tensor, images: Tensor) -> Tensor:
    """Kernels (R, O, C, 4, 4) as (R*O, C, 4, 4), channels last, in the precision of the images."""
    weight = weight.flatten(0, 1).to(images.dtype).contiguous(memory_format=torch.channels_last)
    # With one channel both layouts fit, and strides that do not say which cost the whole convolution its speed.
    return weight if weight.shape[1] > 1 else weight.as_strided(weight.shape, (16, 1, 4, 1))
