from __future__ import annotations

import numpy as np
import torch

from bvae_tune.data.factors import FactorSpace
from bvae_tune.training.batches import BLOCK_STEPS, OneFactorBatches, StepNumbers, UniformBatches


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


SPACE = FactorSpace(("a", "b", "c"), ((0.0, 1.0, 2.0), (0.0, 1.0), tuple(map(float, range(5)))))


def test_one_factor_varies_within_a_batch_and_is_named() -> None:
    plan = OneFactorBatches(SPACE, 40)
    seen = set()
    for step in range(60):
        batch = plan.batch(step, [4, 9])
        assert batch.factor is not None
        for indices, factor in zip(batch.indices.numpy(), batch.factor.tolist(), strict=True):
            values = SPACE.factors(indices)
            levels = [len(np.unique(column)) for column in values.T]
            assert levels == [SPACE.sizes[k] if k == factor else 1 for k in range(3)]
            seen.add((factor, *np.delete(values[0], factor).tolist()))
    # Every factor, at every value of the others: 2 x 5, 3 x 5 and 3 x 2 of them.
    assert len(seen) == 10 + 15 + 6


def test_one_factor_batches_are_a_function_of_seed_and_step() -> None:
    forward, backward = OneFactorBatches(SPACE, 7), OneFactorBatches(SPACE, 7)
    batches = {step: forward.batch(step, [4, 9]) for step in range(2 * BLOCK_STEPS)}
    for step in (BLOCK_STEPS, BLOCK_STEPS - 1, 0):
        alone = backward.batch(step, [9])
        assert alone.factor is not None
        assert torch.equal(alone.indices[0], batches[step].indices[1])
        assert torch.equal(alone.factor[0], batches[step].factor[1])  # type: ignore[index]


def test_factors_take_turns_with_equal_chance() -> None:
    plan = OneFactorBatches(SPACE, 1)
    drawn = torch.stack([plan.batch(step, range(20)).factor for step in range(3 * BLOCK_STEPS)])  # type: ignore[misc]
    counts = torch.bincount(drawn.flatten(), minlength=3).numpy()
    expected = counts.sum() / 3
    # Chi-square with 2 degrees of freedom: above 13.8 once in a thousand; the seeds are fixed.
    assert ((counts - expected) ** 2 / expected).sum() < 13.8
