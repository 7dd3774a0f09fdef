from __future__ import annotations

import pytest
import torch

from bvae_tune.training.checkpoint import CheckpointError, from_bytes, to_bytes

STATE = {"model/a": torch.arange(6.0).view(2, 3), "step": torch.tensor(17)}
METADATA = {"result": '{"score": 0.9, "name": "β"}'}


def test_state_and_metadata_come_back() -> None:
    state, metadata = from_bytes(to_bytes(STATE, METADATA))
    assert metadata == METADATA
    assert state.keys() == STATE.keys()
    for name, values in STATE.items():
        assert torch.equal(state[name], values)
        assert state[name].dtype == values.dtype


def test_every_truncation_is_detected_and_named() -> None:
    data = to_bytes(STATE, METADATA)
    for length in range(len(data)):
        with pytest.raises(CheckpointError, match="step-17 is cut short or damaged"):
            from_bytes(data[:length], "step-17")


def test_what_is_not_a_checkpoint_is_named() -> None:
    with pytest.raises(CheckpointError, match="notes"):
        from_bytes(b"not a checkpoint at all, only words", "notes")
