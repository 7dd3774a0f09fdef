"""Random numbers of a training by blocks of steps: drawn on the host, sent to the device once a block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bvae_tune.data.factors import FactorSpace
from bvae_tune.randomness import generator

BLOCK_STEPS = 32


@dataclass(frozen=True)
class Batch:
    """Images of one step.

    Attributes:
        indices: (R, B) int64, on the device; each replica draws its own.
        factor: (R,) int64, on the device: which factor of the images' grid varies within the batch; None where all do.
    """

    indices: Tensor
    factor: Tensor | None = None


class BatchPlan(Protocol):
    """Which images a step sees: a function of (seed, step)."""

    def batch(self, step: int, seeds: Sequence[int]) -> Batch:
        """The batch of step `step` for replicas with these seeds."""
        ...


class StepNumbers:
    """Random numbers per (seed, step), made a block of steps at a time.

    Args:
        purpose: names the stream.
        draw: a generator -> (BLOCK_STEPS, ...) array: the numbers of one replica for a block of steps.
    """

    def __init__(self, purpose: str, draw: Callable[[np.random.Generator], npt.NDArray[Any]], device: str) -> None:
        self._purpose, self._draw, self._device = purpose, draw, device
        self._held: tuple[int, tuple[int, ...]] | None = None
        self._numbers = torch.empty(0)

    def at(self, step: int, seeds: Sequence[int]) -> Tensor:
        """Numbers of step `step`, (R, ...), on the device."""
        block = step // BLOCK_STEPS
        if self._held != (block, tuple(seeds)):
            drawn = [self._draw(generator(seed, self._purpose, block)) for seed in seeds]
            self._numbers = torch.from_numpy(np.stack(drawn, axis=1)).to(self._device)
            self._held = (block, tuple(seeds))
        return self._numbers[step % BLOCK_STEPS]


class UniformBatches:
    """Every image with equal chance, with replacement."""

    def __init__(self, image_count: int, batch_size: int, device: str = "cpu") -> None:
        def draw(numbers: np.random.Generator) -> npt.NDArray[np.int64]:
            return numbers.integers(image_count, size=(BLOCK_STEPS, batch_size))

        self._indices = StepNumbers("batches", draw, device)

    def batch(self, step: int, seeds: Sequence[int]) -> Batch:
        """Batch with indices (R, B)."""
        return Batch(self._indices.at(step, seeds))


class OneFactorBatches:
    """Images that differ in one factor alone, as DC-IGN is shown them (Kulkarni et al., 2015, Sec. 3.2).

    The factor is drawn with equal chance, then the values that the others keep, then B of its own values, with
    replacement. (Kulkarni et al. show the factor of most latents ten times as often; the paper says nothing of it.)

    Args:
        space: the grid of all images, in order.
    """

    def __init__(self, space: FactorSpace, batch_size: int, device: str = "cpu") -> None:
        sizes = np.array(space.sizes)
        strides = np.array([int(np.prod(sizes[k + 1 :])) for k in range(len(sizes))])

        def draw(numbers: np.random.Generator) -> npt.NDArray[np.int64]:
            factor = numbers.integers(len(sizes), size=(BLOCK_STEPS, 1))
            point = numbers.integers(space.count, size=(BLOCK_STEPS, 1))
            value = numbers.integers(sizes[factor], size=(BLOCK_STEPS, batch_size))
            kept = point - point // strides[factor] % sizes[factor] * strides[factor]
            return np.concatenate([factor, kept + value * strides[factor]], axis=1)

        self._numbers = StepNumbers("one-factor batches", draw, device)

    def batch(self, step: int, seeds: Sequence[int]) -> Batch:
        """Batch with indices (R, B) and factor (R,)."""
        numbers = self._numbers.at(step, seeds)
        return Batch(numbers[:, 1:], numbers[:, 0])
