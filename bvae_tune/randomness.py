"""Every random number of the project is a function of (seed, purpose, block): no generator has a state to save."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str, block: int = 0) -> np.random.Generator:
    """A Philox generator that depends on nothing but its three arguments.

    Args:
        seed: any non-negative integer.
        purpose: what the numbers are for ("init", "batches", "latent noise", "pairs", ...); other purposes are
            independent streams.
        block: which block of steps, or which repetition, of that purpose.
    """
    entropy = [seed, zlib.crc32(purpose.encode()), block]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def derive_seed(seed: int, purpose: str, number: int = 0) -> int:
    """A 31-bit seed for something below `seed`: replica `number` of a trial, say."""
    return int(generator(seed, purpose, number).integers(2**31))
