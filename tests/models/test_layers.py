from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bvae_tune.models.convolutions import (
    convolution,
    convolution_backward,
    deconvolution,
    deconvolution_backward,
    from_grouped,
    max_pooling,
    max_pooling_backward,
    same_convolution,
    same_convolution_backward,
    to_grouped,
    unpooling,
    unpooling_backward,
)
from bvae_tune.models.layers import (
    LARGE_PRODUCT,
    ParameterSpec,
    arranged,
    initialise,
    linear,
    linear_backward,
    linear_specs,
)

B, SIZE = 5, 8


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _assert_gradients_match(
    ours: tuple[Tensor | None, Tensor, Tensor], reference: Tensor, leaves: tuple[Tensor, ...], pull: Tensor
) -> None:
    for gradient, expected in zip(ours, torch.autograd.grad(reference, leaves, pull), strict=True):
        assert gradient is not None
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


# On a CPU the columns of a single replica fold where a register holds two outputs or more, as far as they divide: those
# of 1, 3 and perhaps 8 outputs, by 16 at most.
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("outputs", [1, 3, 8, 12, 20])  # up to 16 and above: two ways to transpose a convolution
@pytest.mark.parametrize("size", [(8, 8), (4, 64), (6, 12)])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_and_their_gradients_are_pytorchs(
    replicas: int, channels: int, outputs: int, size: tuple[int, int], transposed: bool
) -> None:
    shape = (channels, *size)
    images = _random(replicas, B, math.prod(shape), seed=1).requires_grad_()
    kernel = (channels, outputs) if transposed else (outputs, channels)
    weight = _random(replicas, *kernel, 4, 4, seed=2).requires_grad_()
    bias = _random(replicas, outputs, seed=3).requires_grad_()
    theirs: Callable[..., Tensor] = functional.conv_transpose2d if transposed else functional.conv2d
    reference = torch.stack(
        [theirs(images[r].view(B, *shape), weight[r], bias[r], stride=2, padding=1).flatten(1) for r in range(replicas)]
    )

    forward, backward = (deconvolution, deconvolution_backward) if transposed else (convolution, convolution_backward)
    with torch.no_grad():
        grouped = to_grouped(images, shape)
        result = forward(grouped, arranged(weight), bias)
        torch.testing.assert_close(from_grouped(result, outputs), reference, rtol=1e-4, atol=1e-5)
        # The last layer's gradient comes in one layout, those of layers before it in others.
        assert torch.allclose(forward(grouped.contiguous(), arranged(weight), bias), result, rtol=1e-4, atol=1e-5)

        pull = _random(*reference.shape, seed=4)
        to_images, to_weight, to_bias = backward(
            to_grouped(pull, (outputs, *result.shape[2:])), grouped, arranged(weight), True
        )
        assert to_images is not None
        assert backward(torch.zeros_like(result), grouped, arranged(weight), False)[0] is None
    _assert_gradients_match(
        (from_grouped(to_images, channels), to_weight, to_bias), reference, (images, weight, bias), pull
    )


@pytest.mark.parametrize("outputs", [1, 20])
def test_gradients_in_bfloat16_are_rounded_once(outputs: int) -> None:
    images, pull = (
        _random(1, B, 2 * SIZE**2, seed=1).bfloat16(),
        _random(1, B, outputs * SIZE**2 // 4, seed=2).bfloat16(),
    )
    weight = arranged(_random(1, outputs, 2, 4, 4, seed=3).bfloat16())

    def to_weight(dtype: torch.dtype) -> Tensor:
        grouped, gradient = (
            to_grouped(values.to(dtype), (channels, side, side))
            for values, channels, side in ((images, 2, SIZE), (pull, outputs, SIZE // 2))
        )
        return convolution_backward(gradient, grouped, weight.to(dtype), False)[1]

    rounded, exact = to_weight(torch.bfloat16), to_weight(torch.float32)
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).norm() < 0.004 * exact.norm()


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize(
    ("sizes", "atol"),  # two ways on a CPU, the second with sums of 300 products, up to 70
    [((B, 7, 6), 1e-5), ((40, 300, LARGE_PRODUCT // 12_000 + 1), 3e-5)],
)
def test_linear_and_its_gradients_are_pytorchs(replicas: int, sizes: tuple[int, int, int], atol: float) -> None:
    images, width, outputs = sizes
    # In memory the replicas of an image lie side by side, as after convolutions.
    inputs = _random(images, replicas, width, seed=1).transpose(0, 1).requires_grad_()
    weight = _random(replicas, outputs, width, seed=2).requires_grad_()
    bias = _random(replicas, outputs, seed=3).requires_grad_()
    reference = torch.stack([functional.linear(inputs[r], weight[r], bias[r]) for r in range(replicas)])
    pull = _random(replicas, images, outputs, seed=4)
    with torch.no_grad():
        torch.testing.assert_close(linear(inputs, weight, bias), reference, rtol=1.3e-6, atol=atol)
        gradients = linear_backward(pull, inputs, weight, True)
        assert linear_backward(pull, inputs, weight, False)[0] is None
    _assert_gradients_match(gradients, reference, (inputs, weight, bias), pull)


def test_grouped_layout_is_undone() -> None:
    images = _random(3, B, 2 * SIZE**2, seed=5)
    grouped = to_grouped(images, (2, SIZE, SIZE))
    assert grouped.shape == (B, 6, SIZE, SIZE)
    assert grouped.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(grouped[:, 4:6].flatten(1), images[2])
    torch.testing.assert_close(from_grouped(grouped, 2), images)


def test_arranging_changes_the_layout_only() -> None:
    kernels = _random(2, 5, 3, 4, 4, seed=6)
    assert torch.equal(arranged(kernels), kernels)
    assert arranged(kernels)[1].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(arranged(arranged(kernels)), kernels)


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


@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("channels", [1, 4])
def test_same_convolutions_and_their_gradients_are_pytorchs(replicas: int, channels: int) -> None:
    shape, outputs = (channels, SIZE, SIZE), 3
    images = _random(replicas, B, channels * SIZE**2, seed=1).requires_grad_()
    weight = _random(replicas, outputs, channels, 3, 3, seed=2).requires_grad_()
    bias = _random(replicas, outputs, seed=3).requires_grad_()
    reference = torch.stack(
        [
            functional.conv2d(images[r].view(B, *shape), weight[r], bias[r], padding=1).flatten(1)
            for r in range(replicas)
        ]
    )
    with torch.no_grad():
        grouped = to_grouped(images, shape)
        result = same_convolution(grouped, arranged(weight), bias)
        torch.testing.assert_close(from_grouped(result, outputs), reference, rtol=1e-4, atol=1e-5)
        pull = _random(*reference.shape, seed=4)
        grouped_pull = to_grouped(pull, (outputs, SIZE, SIZE))
        to_images, to_weight, to_bias = same_convolution_backward(grouped_pull, grouped, arranged(weight), True)
        assert to_images is not None
        assert same_convolution_backward(grouped_pull, grouped, arranged(weight), False)[0] is None
    _assert_gradients_match(
        (from_grouped(to_images, channels), to_weight, to_bias), reference, (images, weight, bias), pull
    )


@pytest.mark.parametrize("pooled", [False, True])
def test_pooling_and_unpooling_and_their_gradients_are_pytorchs(pooled: bool) -> None:
    # Whole numbers from 0 to 3: many blocks have several largest pixels, as a blank background has.
    images = _random(B, 6, SIZE, SIZE, seed=1).mul(2).round().clamp(0, 3).requires_grad_()
    theirs = functional.max_pool2d(images, 2) if pooled else functional.interpolate(images, scale_factor=2)
    pull = _random(*theirs.shape, seed=2)
    (expected,) = torch.autograd.grad(theirs, images, pull)
    with torch.no_grad():
        assert torch.equal(max_pooling(images) if pooled else unpooling(images), theirs)
        back = max_pooling_backward(pull, images) if pooled else unpooling_backward(pull)
    torch.testing.assert_close(back, expected)
