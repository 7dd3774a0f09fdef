"""A learner's tensors under flat names: what a checkpoint holds, and how it is taken over again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bvae_tune.errors import InputError
from bvae_tune.models.layers import ParameterSpec
from bvae_tune.models.networks import check_parameters
from bvae_tune.training.optimizers import Slots

ALL = slice(None)  # replicas

_MODEL, _OPTIMIZER = "model/", "optimizer/"


def named(parameters: Mapping[str, Tensor], slots: Slots) -> dict[str, Tensor]:
    """Parameters (model/...) and optimiser state (optimizer/slot/...): the tensors themselves."""
    tensors = {f"{_MODEL}{name}": values for name, values in parameters.items()}
    for slot, held in slots.items():
        tensors |= {f"{_OPTIMIZER}{slot}/{name}": values for name, values in held.items()}
    return tensors


def parameters_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters, under their own names, of a state that `named` gave."""
    return {name.removeprefix(_MODEL): values for name, values in state.items() if name.startswith(_MODEL)}


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies on the host."""
    return {
        name: values.to("cpu", memory_format=torch.contiguous_format, copy=True) for name, values in tensors.items()
    }


def take_over(tensors: Mapping[str, Tensor], specs: Mapping[str, ParameterSpec], state: Mapping[str, Tensor]) -> None:
    """Write a state into the tensors of that name.

    Args:
        tensors: of a learner, as `named` gives them.
        specs: of its parameters.
        state: what `on_host` gave of the tensors of another such learner.

    Raises:
        InputError: the state belongs to another configuration or another number of replicas.
    """
    check_parameters(specs, parameters_of(state))
    if tensors.keys() != state.keys() or any(tensors[name].shape != state[name].shape for name in tensors):
        raise InputError("checkpoint: its optimiser or its number of replicas is not that of the configuration")
    for name, values in tensors.items():
        values.copy_(state[name])
