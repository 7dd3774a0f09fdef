from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from bvae_tune.models.layers import (
    ParameterSpec,
    convolution,
    deconvolution,
    from_grouped,
    initialise,
    linear,
    linear_specs,
    to_grouped,
)

B, SIZE = 5, 8


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("outputs", [1, 3, 8, 12])  # up to 8 and above: two ways to transpose a convolution
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_and_their_gradients_are_pytorchs(replicas: int, outputs: int, transposed: bool) -> None:
    channels = 4
    images = _random(replicas, B, channels * SIZE**2, seed=1).requires_grad_()
    kernel = (channels, outputs) if transposed else (outputs, channels)
    weight = _random(replicas, *kernel, 4, 4, seed=2).requires_grad_()
    bias = _random(replicas, outputs, seed=3).requires_grad_()

    ours = deconvolution if transposed else convolution
    theirs = functional.conv_transpose2d if transposed else functional.conv2d
    result = from_grouped(ours(to_grouped(images, (channels, SIZE, SIZE)), weight, bias), replicas)
    reference = torch.stack(
        [
            theirs(images[r].view(B, channels, SIZE, SIZE), weight[r], bias[r], stride=2, padding=1).flatten(1)
            for r in range(replicas)
        ]
    )

    torch.testing.assert_close(result, reference)
    pull = _random(*result.shape, seed=4)
    for gradient, expected in zip(
        torch.autograd.grad(result, (images, weight, bias), pull),
        torch.autograd.grad(reference, (images, weight, bias), pull),
        strict=True,
    ):
        # Gradients to parameters are float32 whatever the precision of the images.
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("replicas", [1, 3])
def test_linear_and_its_gradients_are_pytorchs(replicas: int) -> None:
    inputs = _random(replicas, B, 7, seed=1).requires_grad_()
    weight = _random(replicas, 6, 7, seed=2).requires_grad_()
    bias = _random(replicas, 6, seed=3).requires_grad_()
    result = linear(inputs, weight, bias)
    reference = torch.stack([functional.linear(inputs[r], weight[r], bias[r]) for r in range(replicas)])
    torch.testing.assert_close(result, reference)
    for gradient, expected in zip(
        torch.autograd.grad(result.square().sum(), (inputs, weight, bias)),
        torch.autograd.grad(reference.square().sum(), (inputs, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)


def test_grouped_layout_is_undone() -> None:
    images = _random(3, B, 2 * SIZE**2, seed=5)
    grouped = to_grouped(images, (2, SIZE, SIZE))
    assert grouped.shape == (B, 6, SIZE, SIZE)
    torch.testing.assert_close(grouped[:, 4:6].flatten(1), images[2])
    torch.testing.assert_close(from_grouped(grouped, 3), images)


def test_first_values_follow_pytorchs_distribution() -> None:
    values = initialise({"layer.weight": ParameterSpec((400, 100), 100)}, [11])["layer.weight"]
    bound = 1 / np.sqrt(100)
    assert values.abs().max() <= bound
    assert values.mean().item() == pytest.approx(0, abs=4 * bound / np.sqrt(3 * values.numel()))
    assert values.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.02)


def test_first_values_depend_on_the_replicas_own_seed_only() -> None:
    specs = linear_specs("layer", 10, 20)
    together, alone = initialise(specs, [5, 9, 5]), initialise(specs, [9])
    for name in specs:
        assert torch.equal(together[name][1:2], alone[name])
        assert torch.equal(together[name][0], together[name][2])
        assert not torch.equal(together[name][0], together[name][1])
