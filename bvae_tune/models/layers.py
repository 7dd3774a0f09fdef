"""Parameters of replica-batched layers, and the fully connected layer, forward and backward.

Every tensor has a replica axis R, and replica r meets its parameters. The axis is the contract; how a layer runs is
private to this file and `convolutions.py`, and chosen by measurement. The backward passes are written out, because
automatic differentiation took a tenth of a small network's step.
Parameters come in the precision of the images; gradients to them go out in it, but those to biases are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from bvae_tune.randomness import generator

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
        return torch.bmm(left_RMK, right_RKN)
    return torch.baddbmm(bias_RN[:, None], left_RMK, right_RKN)


def _faster_by_onednn(left_RMK: Tensor, right_RKN: Tensor) -> bool:
    large = left_RMK.shape[1:].numel() * right_RKN.shape[2] >= LARGE_PRODUCT
    return large and left_RMK.dtype == torch.float32 and left_RMK.device.type == "cpu" and _has_both_libraries()


@cache
def _has_both_libraries() -> bool:
    # Where PyTorch has no MKL, as on ARM, its products and oneDNN's have not been compared.
    has_mkl: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return has_mkl and hasattr(torch.ops.mkldnn, "_linear_pointwise")
