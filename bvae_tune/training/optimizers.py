"""Adagrad, Adam and RMSprop over parameters with a replica axis: PyTorch's updates, with a state of plain tensors.

All work element by element, so a bank's update is its replicas' updates. All state exists from the start, and
gradients are laid out before an update begins: where memory runs out, it does so before anything has changed, RMSprop
excepted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.optim.rmsprop import rmsprop

from bvae_tune.models.stack import some_of
from bvae_tune.training.config import TrainingConfig

Slots = Mapping[str, Mapping[str, Tensor]]
# From zero, as PyTorch has it, the first step moves every weight by the whole learning rate. At 1e-2 that throws the
# network of Table 1 far off: its next batch has a KL of 1e4 to 1e28 nats, or an infinite one, and the sums remember it.
ADAGRAD_START = 0.1
# What each slot of a fresh optimiser holds.
_SLOT_STARTS = {
    "adagrad": {"sum": ADAGRAD_START},
    "adam": {"mean": 0.0, "square": 0.0},
    "rmsprop": {"square": 0.0},
}


class Optimizer(Protocol):
    """Updates parameters in place."""

    def step(self, gradients: Sequence[Tensor], learning_rate: float, step: int) -> None:
        """One update; gradients of any precision in the order of the parameters, `step` 0 for the first."""
        ...


class _Elementwise:
    """What all have: parameters and slots as lists, and a step counter that stands for every parameter's.

    Adam's and Adagrad's updates are PyTorch's fused kernels, which only read it and want the update's number, from 1.
    PyTorch's functions around them would count for them, parameter by parameter, which with a small network takes
    longer than the update. RMSprop's counts, and looks at no counter.
    """

    def __init__(self, parameters: Mapping[str, Tensor], slots: Slots) -> None:
        self._parameters = list(parameters.values())
        self._slots = {slot: list(held.values()) for slot, held in slots.items()}
        self._counter = torch.zeros((), device=self._parameters[0].device)

    def _aligned(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Gradients in float32, each lying in memory as its parameter does.

        The fused updates walk raw memory and do not look at strides.
        """
        return [
            gradient.float() if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
            for gradient, parameter in zip(gradients, self._parameters, strict=True)
        ]

    def _counters(self, step: int) -> list[Tensor]:
        return [self._counter.fill_(step + 1)] * len(self._parameters)


class Adagrad(_Elementwise):
    """Duchi et al., 2011, without decay, eps 1e-10; its sums of squares begin at ADAGRAD_START, as in TensorFlow."""

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: float, step: int) -> None:
        """One update; gradients of any precision in the order of the parameters, `step` 0 for the first."""
        torch._fused_adagrad_(
            self._parameters,
            self._aligned(gradients),
            self._slots["sum"],
            self._counters(step),
            lr=learning_rate,
            weight_decay=0.0,
            lr_decay=0.0,
            eps=1e-10,
            maximize=False,
        )


class Adam(_Elementwise):
    """Kingma & Ba, 2014, with PyTorch's constants: 0.9, 0.999, eps 1e-8.

    Args:
        mean_decay: in place of 0.9.
    """

    def __init__(self, parameters: Mapping[str, Tensor], slots: Slots, mean_decay: float = 0.9) -> None:
        super().__init__(parameters, slots)
        self._mean_decay = mean_decay

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: float, step: int) -> None:
        """One update; gradients of any precision in the order of the parameters, `step` 0 for the first."""
        torch._fused_adam_(
            self._parameters,
            self._aligned(gradients),
            self._slots["mean"],
            self._slots["square"],
            [],
            self._counters(step),
            amsgrad=False,
            beta1=self._mean_decay,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


class RMSprop(_Elementwise):
    """Divide the gradient by a running average of its magnitude, with PyTorch's constants: 0.99, eps 1e-8.

    PyTorch has no fused one: it allocates as much as the parameters take after the average has changed.
    """

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], learning_rate: float, step: int) -> None:
        """One update; gradients of any precision in the order of the parameters, `step` 0 for the first."""
        rmsprop(
            self._parameters,
            self._aligned(gradients),
            self._slots["square"],
            [],
            [],
            self._counters(step),
            foreach=True,
            lr=learning_rate,
            alpha=0.99,
            eps=1e-8,
            weight_decay=0.0,
            momentum=0.0,
            centered=False,
        )


_OPTIMIZERS: Mapping[str, Callable[[Mapping[str, Tensor], Slots], Optimizer]] = {
    "adagrad": Adagrad,
    "adam": Adam,
    "rmsprop": RMSprop,
}


def initial_slots(training: TrainingConfig, parameters: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The state of a fresh optimiser: slot -> parameter's name -> its start, in the parameter's shape."""
    return {
        slot: {name: torch.full_like(values, start) for name, values in parameters.items()}
        for slot, start in _SLOT_STARTS[training.optimizer].items()
    }


def slots_of(slots: Slots, replicas: slice) -> Slots:
    """Views of the state of some replicas."""
    return {slot: some_of(held, replicas) for slot, held in slots.items()}


def build_optimizer(training: TrainingConfig, parameters: Mapping[str, Tensor], slots: Slots) -> Optimizer:
    """The optimiser of `training` over these parameters and this state, both of which it updates in place."""
    return _OPTIMIZERS[training.optimizer](parameters, slots)
