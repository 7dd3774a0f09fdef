"""Adagrad and Adam over parameters with a replica axis: PyTorch's fused updates, with a state of plain tensors.

Both work element by element, so a bank's update is its replicas' updates. All state exists from the start, so that an
update allocates nothing: where memory runs out, it does so before anything has changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam

from bvae_tune.training.config import TrainingConfig


class Optimizer(Protocol):
    """Updates parameters in place; `slots` is its state, slot -> parameter's name -> (R, ...)."""

    slots: dict[str, dict[str, Tensor]]

    def step(self, gradients: Mapping[str, Tensor], learning_rate: float, step: int, some: slice) -> None:
        """Update the replicas in `some`; gradients name -> (those, ...), `step` 0 for the first."""
        ...


class Adagrad:
    """Duchi et al., 2011, with PyTorch's constants: no decay, eps 1e-10."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = parameters
        self.slots = {"sum": _zeros(parameters)}

    def step(self, gradients: Mapping[str, Tensor], learning_rate: float, step: int, some: slice) -> None:
        """Update the replicas in `some`."""
        with torch.no_grad():
            adagrad(
                _some(self._parameters, some),
                _aligned(gradients),
                _some(self.slots["sum"], some),
                _counters(self._parameters, step),
                fused=True,
                lr=learning_rate,
                weight_decay=0.0,
                lr_decay=0.0,
                eps=1e-10,
                maximize=False,
            )


class Adam:
    """Kingma & Ba, 2014, with PyTorch's constants: 0.9, 0.999, eps 1e-8."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = parameters
        self.slots = {"mean": _zeros(parameters), "square": _zeros(parameters)}

    def step(self, gradients: Mapping[str, Tensor], learning_rate: float, step: int, some: slice) -> None:
        """Update the replicas in `some`."""
        with torch.no_grad():
            adam(
                _some(self._parameters, some),
                _aligned(gradients),
                _some(self.slots["mean"], some),
                _some(self.slots["square"], some),
                [],
                _counters(self._parameters, step),
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=learning_rate,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )


def build_optimizer(training: TrainingConfig, parameters: Mapping[str, Tensor]) -> Optimizer:
    """The optimiser of `training` for these parameters."""
    return Adagrad(parameters) if training.optimizer == "adagrad" else Adam(parameters)


def _zeros(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(values) for name, values in parameters.items()}


def _some(tensors: Mapping[str, Tensor], some: slice) -> list[Tensor]:
    return [values[some] for values in tensors.values()]


def _aligned(gradients: Mapping[str, Tensor]) -> list[Tensor]:
    # The fused updates walk raw memory and do not look at strides.
    return [values.contiguous() for values in gradients.values()]


def _counters(parameters: Mapping[str, Tensor], step: int) -> list[Tensor]:
    # One per parameter: each is incremented in place.
    return [torch.full((), float(step), device=values.device) for values in parameters.values()]
