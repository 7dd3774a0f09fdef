"""The least time that a training step can take on this machine: what it must compute and move, at measured rates.

Every layer has three passes (forward, backward to its inputs, backward to its weights), each one matrix product at a
shape that the layer dictates, and each with bytes that it has to read and write once. A pass takes the longer of its
product, timed alone at that shape and precision, and its bytes at the rate of a plain copy. The optimiser, the loss
over all pixels and the gather of the batch only move bytes.

The strict floor gives every product the rate of the fastest of them. Nobody reaches it: a layer of 8 channels makes
products too thin to be fast, and a convolution's reads each value 16 times over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from bvae_tune.models import layers
from bvae_tune.models.config import ModelConfig
from bvae_tune.models.networks import build_network
from bvae_tune.models.stack import Affine, Reshape, Stack
from bvae_tune.training.config import TrainingConfig
from bvae_tune.training.memory import keep_freed_memory

PIXELS = (1, 64, 64)
# Images of which the products of a larger batch may be made up, where those are faster: they stay in the cache.
PART = 64
# Reads and writes of a parameter's update: the gradient, the parameter and each slot of the state, in and out.
UPDATE_VALUES = {"adagrad": 5, "adam": 7}


@dataclass(frozen=True)
class Pass:
    """A matrix product (m, k) @ (k, n) and the values that it reads and writes."""

    m: int
    k: int
    n: int
    values: int


def passes(stack: Stack, batch: int, first_needs_inputs: bool) -> Iterator[Pass]:
    """The passes of one replica's step through an encoder or a decoder."""
    pixels, needs_inputs = 1, first_needs_inputs
    for layer in stack.layers:
        if isinstance(layer, Reshape):
            pixels = layer.shape[1] * layer.shape[2] if layer.into == "images" else 1
        if not isinstance(layer, Affine):
            continue
        # Between many pixels and a quarter of them, the product has a row for each of the fewer ones; the 16 taps of
        # the kernel count where the many are.
        after, taps_in, taps_out = {
            "linear": (1, 1, 1),
            "convolution": (pixels // 4, 16, 1),
            "deconvolution": (pixels * 4, 1, 16),
        }[layer.kind]
        rows, inputs, outputs = batch * min(pixels, after), taps_in * layer.inputs, taps_out * layer.outputs
        values = batch * (pixels * layer.inputs + after * layer.outputs) + inputs * outputs
        yield Pass(rows, inputs, outputs, values)
        yield Pass(inputs, rows, outputs, values)
        if needs_inputs:
            yield Pass(rows, outputs, inputs, values)
        pixels, needs_inputs = after, True


class Floor:
    """Times a step's floor: for R replicas, at these settings, on this device with this process's threads."""

    def __init__(self, model: ModelConfig, training: TrainingConfig, replicas: int, device: str) -> None:
        keep_freed_memory()  # as in a bank: not every product is written into a tensor that is there
        self._dtype = torch.bfloat16 if training.precision == "bfloat16" else torch.float32
        self._device, self._replicas, batch = device, replicas, training.batch_size
        network = build_network(model, *PIXELS)

        def both(images: int) -> list[Pass]:
            return [*passes(network.encoder, images, False), *passes(network.decoder, images, True)]

        self._passes = both(batch)
        self._ways = [[(1, one)] for one in self._passes]  # to make each product: of so many parts
        if batch % PART == 0 and batch > PART:
            for ways, part in zip(self._ways, both(PART), strict=True):
                ways.append((batch // PART, part))
        parameters = sum(math.prod(spec.shape) for spec in network.specs.values())
        image = math.prod(PIXELS)
        gathered = image // 8 + 4 * image  # bits in, float32 out
        lost = (2 * self._dtype.itemsize + 4) * image  # the outputs and the images in, the gradient out
        self._moved = 4 * UPDATE_VALUES[training.optimizer] * parameters + batch * (gathered + lost)

    def seconds(self, strict: bool = False) -> float:
        """Measure the rates, and add up the step."""
        rate = self._copy_rate()
        products = [min(count * self._product(part) for count, part in ways) for ways in self._ways]
        work = [one.m * one.k * one.n for one in self._passes]
        if strict:
            fastest = max(amount / product for amount, product in zip(work, products, strict=True))
            products = [amount / fastest for amount in work]
        moving = [self._replicas * one.values * self._dtype.itemsize / rate for one in self._passes]
        return self._replicas * self._moved / rate + sum(map(max, products, moving))

    def _copy_rate(self) -> float:
        """Bytes a second, read and written both counted."""
        source = torch.zeros(32 * 2**20, device=self._device)
        target = torch.empty_like(source)
        return 2 * source.numel() * source.itemsize / self._best(lambda: target.copy_(source), 5)

    def _product(self, one: Pass) -> float:
        """Seconds of the fastest: in the layouts that the second factor may lie in, by PyTorch and by our `product`."""
        left, right, out = (
            torch.rand(self._replicas, *shape, dtype=self._dtype, device=self._device)
            for shape in ((one.m, one.k), (one.k, one.n), (one.m, one.n))
        )
        factors = (right, right.mT.contiguous().mT)
        ways = [partial(torch.bmm, left, factor, out=out) for factor in factors]
        ways += [partial(layers.product, left, factor) for factor in factors]
        return min(self._best(way, 3) for way in ways)

    def _best(self, work: Callable[[], object], times: int) -> float:
        """The shortest time of a call, over so many tries after a first one.

        A GPU gets many calls at a time: alone, a small product would be timed with its launch.
        """
        best, calls = float("inf"), 50 if torch.device(self._device).type == "cuda" else 1
        work()
        for _ in range(times):
            wait(self._device)
            began = time.perf_counter()
            for _ in range(calls):
                work()
            wait(self._device)
            best = min(best, (time.perf_counter() - began) / calls)
        return best


def wait(device: str) -> None:
    """Until the device has done what it was asked; a CPU always has."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
