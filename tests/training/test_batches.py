from __future__ import annotations

import numpy as np
import torch

from bvae_tune.training.batches import BLOCK_STEPS, StepNumbers, UniformBatches


def test_batches_are_a_function_of_seed_and_step() -> None:
    forward = UniformBatches(1000, 16)
    batches = {step: forward.batch(step, [4, 9]).indices.clone() for step in range(2 * BLOCK_STEPS + 1)}
    backward = UniformBatches(1000, 16)
    for step in (2 * BLOCK_STEPS, BLOCK_STEPS + 1, BLOCK_STEPS, BLOCK_STEPS - 1, 0):
        assert torch.equal(backward.batch(step, [4, 9]).indices, batches[step])
        assert torch.equal(backward.batch(step, [9]).indices[0], batches[step][1])
    assert len({tuple(indices.flatten().tolist()) for indices in batches.values()}) == len(batches)


def test_batches_are_uniform() -> None:
    plan = UniformBatches(10, 500)
    drawn = torch.stack([plan.batch(step, [1]).indices for step in range(40)])
    counts = torch.bincount(drawn.flatten(), minlength=10).numpy()
    expected = 500 * 40 / 10
    # Chi-square with 9 degrees of freedom: above 27.9 once in a thousand; the seed is fixed.
    assert ((counts - expected) ** 2 / expected).sum() < 27.9


def test_purposes_are_independent_streams() -> None:
    streams = [StepNumbers(purpose, lambda numbers: numbers.random((BLOCK_STEPS, 4)), "cpu") for purpose in ("a", "b")]
    first, second = (stream.at(3, [1]).numpy() for stream in streams)
    assert not np.isin(first, second).any()
