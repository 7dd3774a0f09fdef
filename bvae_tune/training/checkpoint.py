"""A trial's state as bytes: safetensors, with the result in its metadata. Nothing in it can run code."""

from __future__ import annotations

import json
from collections.abc import Mapping

import safetensors
import safetensors.torch
from torch import Tensor

from bvae_tune.errors import RunError


class CheckpointError(RunError):
    """A checkpoint that is truncated or not one; the one before it may be whole."""


def to_bytes(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """`state` (name -> tensor on the host) and `metadata` as one safetensors file."""
    return safetensors.torch.save({name: values.contiguous() for name, values in state.items()}, dict(metadata))


def from_bytes(data: bytes, origin: str = "checkpoint") -> tuple[dict[str, Tensor], dict[str, str]]:
    """State and metadata of what `to_bytes` gave.

    Raises:
        CheckpointError: the bytes are cut short or not a checkpoint; names `origin`.
    """
    try:
        state = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{origin} is cut short or damaged ({error})") from error
    # safetensors reads metadata from files only: its header is 8 bytes of length, then JSON.
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return state, metadata
