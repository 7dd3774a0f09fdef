"""Adagrad and Adam over parameters with a replica axis, with PyTorch's fused updates and a state that is plain tensors.

Both are elementwise, so a bank's update is its replicas' updates. All state exists from the start, so that a step
allocates nothing and a step that ran out of memory has changed nothing.
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
    """Updates parameters in place."""

    slots: dict[str, dict[str, Tensor]]

    def step(self, gradients: list[Tensor], learning_rate: float, step: int) -> None:
        """One update; gradients in the order of the parameters, `step` 0 for the first."""
        ...


class Adagrad:
    """Duchi et al., 2011; no decay, eps 1e-10."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = list(parameters.values())
        self.slots = {"sum": {name: torch.zeros_like(values) for name, values in parameters.items()}}

    def step(self, gradients: list[Tensor], learning_rate: float, step: int) -> None:
        """One update."""
        adagrad(
            self._parameters,
            gradients,
            list(self.slots["sum"].values()),
            [torch.tensor(float(step)) for _ in self._parameters],
            fused=self._parameters[0].device.type == "cpu",
            lr=learning_rate,
            weight_decay=0.0,
            lr_decay=0.0,
            eps=1e-10,
            maximize=False,
        )


class Adam:
    """Kingma & Ba, 2014; 0.9, 0.999, eps 1e-8."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = list(parameters.values())
        self.slots = {
            slot: {name: torch.zeros_like(values) for name, values in parameters.items()} for slot in ("mean", "square")
        }

    def step(self, gradients: list[Tensor], learning_rate: float, step: int) -> None:
        """One update."""
        device = self._parameters[0].device
        adam(
            self._parameters,
            gradients,
            list(self.slots["mean"].values()),
            list(self.slots["square"].values()),
            [],
            [torch.full((), float(step), device=device) for _ in self._parameters],
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
