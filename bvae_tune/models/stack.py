"""Layers one after the other, and the way back: what an encoder or a decoder is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

from bvae_tune.models import convolutions, layers
from bvae_tune.models.layers import ParameterSpec

Parameters = Mapping[str, Tensor]


def some_of(tensors: Parameters, replicas: slice) -> dict[str, Tensor]:
    """Views of some replicas of tensors (R, ...)."""
    return {name: values[replicas] for name, values in tensors.items()}


class Layer(Protocol):
    """A step of a stack. Holds no parameters; knows their names and shapes."""

    @property
    def specs(self) -> dict[str, ParameterSpec]:
        """Its parameters, by name."""
        ...

    def forward(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """The layer's outputs, activation included."""
        ...

    def backward(
        self, parameters: Parameters, inputs: Tensor, outputs: Tensor, gradient: Tensor, to_inputs: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Gradients to the inputs (where wanted) and to the parameters, from the one to the outputs."""
        ...


_SPECS = {
    "linear": layers.linear_specs,
    "convolution": layers.convolution_specs,
    "deconvolution": layers.deconvolution_specs,
    "same_convolution": layers.same_convolution_specs,
}
_FORWARD = {
    "linear": layers.linear,
    "convolution": convolutions.convolution,
    "deconvolution": convolutions.deconvolution,
    "same_convolution": convolutions.same_convolution,
}
_BACKWARD = {
    "linear": layers.linear_backward,
    "convolution": convolutions.convolution_backward,
    "deconvolution": convolutions.deconvolution_backward,
    "same_convolution": convolutions.same_convolution_backward,
}


@dataclass(frozen=True)
class Affine:
    """A fully connected layer, a convolution or its transpose, and the activation after it."""

    kind: Literal["linear", "convolution", "deconvolution", "same_convolution"]
    name: str
    inputs: int
    outputs: int
    activation: Literal["relu", "tanh"] | None

    @property
    def specs(self) -> dict[str, ParameterSpec]:
        """Weight and bias."""
        return _SPECS[self.kind](self.name, self.inputs, self.outputs)

    def forward(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """The layer's outputs, activation included."""
        result = _FORWARD[self.kind](inputs, parameters[f"{self.name}.weight"], parameters[f"{self.name}.bias"])
        if self.activation is None:
            return result
        return torch.relu(result) if self.activation == "relu" else torch.tanh(result)

    def backward(
        self, parameters: Parameters, inputs: Tensor, outputs: Tensor, gradient: Tensor, to_inputs: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Gradients to the inputs (where wanted) and to the parameters, from the one to the outputs."""
        if self.activation == "relu":
            gradient = torch.ops.aten.threshold_backward(gradient, outputs, 0)
        elif self.activation == "tanh":
            gradient = torch.ops.aten.tanh_backward(gradient, outputs)
        back, weight, bias = _BACKWARD[self.kind](gradient, inputs, parameters[f"{self.name}.weight"], to_inputs)
        return back, {f"{self.name}.weight": weight, f"{self.name}.bias": bias}


@dataclass(frozen=True)
class Reshape:
    """Between vectors (R, B, C*H*W) and images (B, R*C, H, W), as convolutions take them; `shape` is C, H, W."""

    into: Literal["images", "vectors"]
    shape: tuple[int, int, int]

    @property
    def specs(self) -> dict[str, ParameterSpec]:
        """No parameters."""
        return {}

    def forward(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """The same numbers."""
        if self.into == "images":
            return convolutions.to_grouped(inputs, self.shape)
        return convolutions.from_grouped(inputs, self.shape[0])

    def backward(
        self, parameters: Parameters, inputs: Tensor, outputs: Tensor, gradient: Tensor, to_inputs: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The same numbers, the other way."""
        if self.into == "images":
            return convolutions.from_grouped(gradient, self.shape[0]), {}
        return convolutions.to_grouped(gradient, self.shape), {}


@dataclass(frozen=True)
class MaxPooling:
    """Images (B, R*C, H, W) at half their size: the largest of each 2x2 pixels."""

    @property
    def specs(self) -> dict[str, ParameterSpec]:
        """No parameters."""
        return {}

    def forward(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """(B, R*C, H/2, W/2)."""
        return convolutions.max_pooling(inputs)

    def backward(
        self, parameters: Parameters, inputs: Tensor, outputs: Tensor, gradient: Tensor, to_inputs: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Each gradient at the pixel that it came from, zero elsewhere."""
        return convolutions.max_pooling_backward(gradient, inputs), {}


@dataclass(frozen=True)
class Unpooling:
    """Images (B, R*C, H, W) at twice their size: each pixel becomes 2x2 equal ones."""

    @property
    def specs(self) -> dict[str, ParameterSpec]:
        """No parameters."""
        return {}

    def forward(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """(B, R*C, 2H, 2W)."""
        return convolutions.unpooling(inputs)

    def backward(
        self, parameters: Parameters, inputs: Tensor, outputs: Tensor, gradient: Tensor, to_inputs: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The sum over the equal ones."""
        return convolutions.unpooling_backward(gradient), {}


@dataclass(frozen=True)
class Stack:
    """Layers one after the other."""

    layers: Sequence[Layer]

    @cached_property
    def specs(self) -> dict[str, ParameterSpec]:
        """All parameters, in order."""
        return {name: spec for layer in self.layers for name, spec in layer.specs.items()}

    @cached_property
    def _first_with_parameters(self) -> int:
        return next(place for place, layer in enumerate(self.layers) if layer.specs)

    def run(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """The last layer's outputs."""
        for layer in self.layers:
            inputs = layer.forward(parameters, inputs)
        return inputs

    def forward(self, parameters: Parameters, inputs: Tensor) -> list[Tensor]:
        """The inputs and every layer's outputs, as `backward` takes them."""
        passed = [inputs]
        for layer in self.layers:
            passed.append(layer.forward(parameters, passed[-1]))
        return passed

    def backward(
        self, parameters: Parameters, passed: Sequence[Tensor], gradient: Tensor, to_inputs: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Gradients to the inputs (where wanted) and to the parameters, from the one to the last outputs."""
        gradients: dict[str, Tensor] = {}
        back: Tensor | None = gradient
        for place in reversed(range(len(self.layers))):
            if back is None:
                break
            needed = to_inputs or place > self._first_with_parameters
            back, found = self.layers[place].backward(parameters, passed[place], passed[place + 1], back, needed)
            gradients |= found
        return back, {name: gradients[name] for name in self.specs}
