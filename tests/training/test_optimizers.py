from __future__ import annotations

from functools import partial

import pytest
import torch

from bvae_tune.training.config import TrainingConfig
from bvae_tune.training.optimizers import build_optimizer, initial_slots


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "rmsprop"])
def test_twenty_updates_are_those_of_torch_optim(optimizer: str) -> None:
    numbers = torch.Generator().manual_seed(0)
    parameters = {"weight": torch.randn(2, 5, 4, generator=numbers), "bias": torch.randn(2, 5, generator=numbers)}
    theirs = [values.clone().requires_grad_() for values in parameters.values()]
    adagrad = partial(torch.optim.Adagrad, initial_accumulator_value=0.1)
    classes = {"adam": torch.optim.Adam, "adagrad": adagrad, "rmsprop": torch.optim.RMSprop}
    reference = classes[optimizer](theirs, lr=1.0)
    training = TrainingConfig(optimizer)  # type: ignore[arg-type]
    ours = build_optimizer(training, parameters, initial_slots(training, parameters))
    for step in range(20):
        rate = 0.1 / (step + 1)
        gradients = [torch.randn(values.shape, generator=numbers) for values in theirs]
        ours.step(gradients, rate, step)
        reference.param_groups[0]["lr"] = rate
        for values, gradient in zip(theirs, gradients, strict=True):
            values.grad = gradient
        reference.step()
        for values, expected in zip(parameters.values(), theirs, strict=True):
            torch.testing.assert_close(values, expected.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "rmsprop"])
def test_gradients_in_another_layout_update_the_same_numbers(optimizer: str) -> None:
    gradient = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(1))
    training = TrainingConfig(optimizer)  # type: ignore[arg-type]
    results = []
    for laid_out in (gradient, gradient.mT.contiguous().mT):
        parameters = {"weight": torch.zeros(1, 5, 4)}
        build_optimizer(training, parameters, initial_slots(training, parameters)).step([laid_out], 0.1, 0)
        results.append(parameters["weight"])
    assert torch.equal(*results)
