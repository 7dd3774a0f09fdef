"""Replica-batched layers, forward and backward: every tensor has a replica axis R, and replica r meets its parameters.

The axis is the contract; how a layer runs is private to this file and chosen by measurement. The backward passes are
written out, because automatic differentiation took a tenth of a small network's step.
Parameters come in the precision of the images; gradients to them go out in it, but those to biases are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bvae_tune.randomness import generator

_STRIDE, _PADDING = (2, 2), (1, 1)
_FEW_CHANNELS = 8
# Multiplications of a matrix product from which on oneDNN's slower call pays (see `product`).
LARGE_PRODUCT = 2_000_000


@dataclass(frozen=True)
class ParameterSpec:
    """Shape of a parameter of one replica, and the fan-in that scales its first values.

    Attributes:
        value: that all of them have at first, in place of random ones.
    """

    shape: tuple[int, ...]
    fan_in: int
    value: float | None = None


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


def same_convolution_specs(name: str, inputs: int, outputs: int) -> dict[str, ParameterSpec]:
    """Weight (outputs, inputs, 3, 3) and bias of a convolution that keeps the size, as in torch.nn.Conv2d."""
    return {
        f"{name}.weight": ParameterSpec((outputs, inputs, 3, 3), 9 * inputs),
        f"{name}.bias": ParameterSpec((outputs,), 9 * inputs),
    }


def initialise(specs: dict[str, ParameterSpec], seeds: Sequence[int]) -> dict[str, Tensor]:
    """First values (R, *shape), float32: a spec's own, or uniform in ±1/sqrt(fan-in), PyTorch's default for all layers.

    Each replica's numbers depend on its own seed and the parameter's name only, so that a replica in a bank begins
    like the same seed alone.
    """
    parameters = {}
    for name, spec in specs.items():
        if spec.value is not None:
            parameters[name] = torch.full((len(seeds), *spec.shape), spec.value)
            continue
        values = torch.empty(len(seeds), *spec.shape)
        for replica, seed in enumerate(seeds):
            uniform = generator(seed, f"init {name}").random(spec.shape, dtype=np.float32)
            values[replica] = torch.from_numpy(uniform)
        parameters[name] = values.sub_(0.5).mul_(2 / spec.fan_in**0.5)
    return parameters


def arranged(values: Tensor) -> Tensor:
    """A parameter in the memory layout that its layer wants: kernels (R, O, C, k, k) with the channels C last."""
    if values.dim() < 5:
        return values.contiguous()
    return values.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def linear(inputs_RBI: Tensor, weight_ROI: Tensor, bias_RO: Tensor) -> Tensor:
    """Fully connected layer, (R, B, I) -> (R, B, O)."""
    return product(inputs_RBI, weight_ROI.mT, bias_RO)


def linear_backward(
    gradient_RBO: Tensor, inputs_RBI: Tensor, weight_ROI: Tensor, to_inputs: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients to the inputs (where wanted), the weight and the bias."""
    return (
        product(gradient_RBO, weight_ROI) if to_inputs else None,
        product(gradient_RBO.mT, inputs_RBI),
        gradient_RBO.sum(1, dtype=torch.float32),
    )


def product(left_RMK: Tensor, right_RKN: Tensor, bias_RN: Tensor | None = None) -> Tensor:
    """Matrix products (R, M, N), with a row added to each where it is given; automatic differentiation stops here.

    On a CPU PyTorch leaves float32 to MKL, which has no AVX-512 for processors other than Intel's. oneDNN, which does
    PyTorch's convolutions, takes half the time for a large product there. Its call takes too long for a small one, and
    it is a thousand times slower where a replica's right factor lies in memory with gaps.
    """
    if _faster_by_onednn(left_RMK, right_RKN):
        dense = right_RKN[0].is_contiguous() or right_RKN[0].mT.is_contiguous()
        rights_RNK = (right_RKN if dense else right_RKN.contiguous()).mT
        biases = [None] * len(left_RMK) if bias_RN is None else bias_RN.contiguous()
        each = zip(left_RMK, rights_RNK, biases, strict=True)
        products = [torch.ops.mkldnn._linear_pointwise(*operands, "none", [], "") for operands in each]
        return products[0][None] if len(products) == 1 else torch.stack(products)
    if bias_RN is None:
        return left_RMK @ right_RKN
    return torch.baddbmm(bias_RN[:, None], left_RMK, right_RKN)


def _faster_by_onednn(left_RMK: Tensor, right_RKN: Tensor) -> bool:
    large = left_RMK.shape[1:].numel() * right_RKN.shape[2] >= LARGE_PRODUCT
    return large and left_RMK.dtype == torch.float32 and left_RMK.device.type == "cpu" and _has_both_libraries()


@cache
def _has_both_libraries() -> bool:
    # Where PyTorch has no MKL, as on ARM, its products and oneDNN's have not been compared.
    has_mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return has_mkl and hasattr(torch.ops.mkldnn, "_linear_pointwise")


# Convolutions keep the replicas side by side as channels, (B, R*C, H, W), channels last in memory: that is a grouped
# convolution, and on a CPU half the time of the usual layout.


def to_grouped(images_RBD: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(R, B, C*H*W) -> (B, R*C, H, W), channels last, for C, H, W = `shape`."""
    R, B = images_RBD.shape[:2]
    C, H, W = shape
    return images_RBD.reshape(R, B, C, H, W).permute(1, 3, 4, 0, 2).reshape(B, H, W, R * C).permute(0, 3, 1, 2)


def from_grouped(images: Tensor, channels: int) -> Tensor:
    """(B, R*C, H, W) -> (R, B, C*H*W), for C = `channels`."""
    return images.reshape(images.shape[0], images.shape[1] // channels, -1).transpose(0, 1)


def convolution(images: Tensor, weight_ROCkk: Tensor, bias_RO: Tensor) -> Tensor:
    """4x4 convolution of stride 2, padding 1: (B, R*C, H, W) -> (B, R*O, H/2, W/2)."""
    return _halved(images, weight_ROCkk, bias_RO)


def convolution_backward(
    gradient: Tensor, images: Tensor, weight_ROCkk: Tensor, to_images: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients to the images (where wanted), the weight and the bias."""
    return (
        _doubled(gradient, weight_ROCkk, None) if to_images else None,
        _to_weight(images, gradient, weight_ROCkk),
        _to_bias(gradient, weight_ROCkk.shape[0]),
    )


def deconvolution(images: Tensor, weight_RCOkk: Tensor, bias_RO: Tensor) -> Tensor:
    """The transpose of `convolution`: (B, R*C, H, W) -> (B, R*O, 2H, 2W)."""
    return _doubled(images, weight_RCOkk, bias_RO)


def deconvolution_backward(
    gradient: Tensor, images: Tensor, weight_RCOkk: Tensor, to_images: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients to the images (where wanted), the weight and the bias."""
    return (
        _halved(gradient, weight_RCOkk, None) if to_images else None,
        _to_weight(gradient, images, weight_RCOkk),
        _to_bias(gradient, weight_RCOkk.shape[0]),
    )


def same_convolution(images: Tensor, weight_ROCkk: Tensor, bias_RO: Tensor) -> Tensor:
    """3x3 convolution of stride 1, padding 1: (B, R*C, H, W) -> (B, R*O, H, W)."""
    groups = weight_ROCkk.shape[0]
    return functional.conv2d(images, _kernels(weight_ROCkk), bias_RO.flatten(), padding=_PADDING, groups=groups)


def same_convolution_backward(
    gradient: Tensor, images: Tensor, weight_ROCkk: Tensor, to_images: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients to the images (where wanted), the weight and the bias."""
    back, to_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        images,
        _kernels(weight_ROCkk),
        None,
        (1, 1),
        _PADDING,
        (1, 1),
        False,
        (0, 0),
        weight_ROCkk.shape[0],
        (to_images, True, False),
    )
    return (
        back if to_images else None,
        to_weight.view(weight_ROCkk.shape),
        _to_bias(gradient, weight_ROCkk.shape[0]),
    )


def max_pooling(images: Tensor) -> Tensor:
    """The largest of each 2x2 pixels: (B, R*C, H, W) -> (B, R*C, H/2, W/2)."""
    return torch.max_pool2d(images, 2)


def max_pooling_backward(gradient: Tensor, images: Tensor) -> Tensor:
    """Gradient to the images: each block's goes to its largest pixel, the first of equals."""
    places = functional.max_pool2d(images, 2, return_indices=True)[1]
    back: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
        gradient, images, (2, 2), (2, 2), (0, 0), (1, 1), False, places
    )
    return back


def unpooling(images: Tensor) -> Tensor:
    """Each pixel four times: (B, R*C, H, W) -> (B, R*C, 2H, 2W)."""
    return functional.interpolate(images, scale_factor=2, mode="nearest")


def unpooling_backward(gradient: Tensor) -> Tensor:
    """Gradient to the images: the sum over each pixel's four."""
    return functional.avg_pool2d(gradient, 2, divisor_override=1)


def _halved(images: Tensor, weight: Tensor, bias_RO: Tensor | None) -> Tensor:
    bias = None if bias_RO is None else bias_RO.flatten()
    return functional.conv2d(images, _kernels(weight), bias, _STRIDE, _PADDING, groups=weight.shape[0])


def _doubled(images: Tensor, weight: Tensor, bias_RO: Tensor | None) -> Tensor:
    """The transposed convolution. For few output channels PyTorch's own is two to four times slower than this.

    The pixels of even and odd rows and columns (four phases) are each a 2x2 convolution of the images, and all four
    together one with four times the channels.
    """
    R, C, outputs = weight.shape[:3]
    if outputs > _FEW_CHANNELS:
        bias = None if bias_RO is None else bias_RO.flatten()
        return functional.conv_transpose2d(images, _kernels(weight), bias, _STRIDE, _PADDING, groups=R)
    B, _, H, W = images.shape
    taps = weight.permute(0, 1, 3, 4, 2).reshape(R, -1).index_select(1, _phase_taps(C, outputs, weight.device))
    taps = taps.view(R * 4 * outputs, 2, 2, C).permute(0, 3, 1, 2)
    bias = None if bias_RO is None else bias_RO.repeat(1, 4).flatten()
    phases = functional.conv2d(images, taps, bias, padding=1, groups=R).permute(0, 2, 3, 1)
    woven = phases.reshape(B, H + 1, W + 1, R, 2, 2, outputs).permute(0, 1, 4, 2, 5, 3, 6)
    return woven.reshape(B, 2 * H + 2, 2 * W + 2, R * outputs)[:, 1:-1, 1:-1].permute(0, 3, 1, 2)


@cache
def _phase_taps(channels: int, outputs: int, device: torch.device) -> Tensor:
    """Where the taps of the phases' 2x2 kernels (2, 2, O, 2, 2, C) lie in a kernel (C, 4, 4, O), flattened.

    Row k = 2 (1 - t) + p of the kernel is tap t of phase p, and its columns likewise.
    """
    places = torch.arange(channels * 16 * outputs, device=device).view(channels, 2, 2, 2, 2, outputs)
    return places.flip(1, 3).permute(2, 4, 5, 1, 3, 0).flatten()


def _to_weight(images: Tensor, halved: Tensor, weight: Tensor) -> Tensor:
    """Gradient to the kernels between `images` and `halved`, whichever of the two came in."""
    # torch.nn.grad.conv2d_weight is this call without the weight, from which it would take the layout.
    gradient: Tensor = torch.ops.aten.convolution_backward(
        halved,
        images,
        _kernels(weight),
        None,
        _STRIDE,
        _PADDING,
        (1, 1),
        False,
        (0, 0),
        weight.shape[0],
        (False, True, False),
    )[1]
    return gradient.view(weight.shape)


def _kernels(weight: Tensor) -> Tensor:
    """Kernels (R, O, C, k, k) as (R*O, C, k, k)."""
    kernels = weight.flatten(0, 1)
    k = kernels.shape[-1]
    # With one channel both layouts fit, and strides that do not say which cost the whole convolution its speed.
    return kernels if kernels.shape[1] > 1 else kernels.as_strided(kernels.shape, (k * k, 1, k, 1))


def _to_bias(gradient: Tensor, replicas: int) -> Tensor:
    return gradient.sum((0, 2, 3), dtype=torch.float32).view(replicas, -1)
