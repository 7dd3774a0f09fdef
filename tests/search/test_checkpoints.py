from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bvae_tune.search.checkpoints import CheckpointFolder, Latest
from bvae_tune.search.records import TrialRecord, TrialResult
from bvae_tune.search.storage import WEIGHTS, sees


@pytest.fixture
def result(make_record: Callable[..., TrialRecord]) -> TrialResult:
    found = make_record(replicas=2, step=100).result
    assert found is not None
    return found


def save(folder: CheckpointFolder, result: TrialResult, step: int, final: bool = False) -> None:
    state = {"weight": torch.full((2, 3), float(step)), "step": torch.tensor(step)}
    folder.save(state, dataclasses.replace(result, step=step), final)


def files(path: Path) -> list[str]:
    return sorted(item.name for item in (path / "trials/00000").iterdir())


@pytest.mark.parametrize("place", ["plain", "with space and ü", "percent%20"])
def test_two_latest_stay_while_a_trial_runs_and_the_weights_after_it(
    tmp_path: Path, result: TrialResult, place: str
) -> None:
    root = tmp_path / place
    root.mkdir()
    folder = CheckpointFolder(str(root), "trials/00000")
    assert folder.latest() == Latest(None, ())
    for step in (100, 200, 1000):
        save(folder, result, step)
    assert files(root) == ["step-0000000200.safetensors", "step-0000001000.safetensors"]
    latest = folder.latest().checkpoint
    assert latest is not None
    assert latest.result == dataclasses.replace(result, step=1000)
    assert not latest.final
    torch.testing.assert_close(latest.state["weight"], torch.full((2, 3), 1000.0))

    save(folder, result, 2000, final=True)
    assert files(root) == [WEIGHTS]
    last = folder.latest().checkpoint
    assert last is not None
    assert last.final
    assert last.result.step == 2000


@pytest.mark.parametrize("left", [0, 1, 7, 100, -1])
def test_a_truncated_checkpoint_gives_way_to_the_one_before(tmp_path: Path, result: TrialResult, left: int) -> None:
    folder = CheckpointFolder(str(tmp_path), "trials/00000")
    for step in (100, 200):
        save(folder, result, step)
    newest = tmp_path / "trials/00000/step-0000000200.safetensors"
    newest.write_bytes(newest.read_bytes()[:left])
    found = folder.latest()
    assert found.checkpoint is not None
    assert (found.checkpoint.result.step, found.damaged) == (100, (newest.name,))
    older = tmp_path / "trials/00000/step-0000000100.safetensors"
    older.write_bytes(b"")
    assert folder.latest() == Latest(None, (newest.name, older.name))


def test_truncated_weights_give_way_to_a_checkpoint(tmp_path: Path, result: TrialResult) -> None:
    folder = CheckpointFolder(str(tmp_path), "trials/00000")
    save(folder, result, 200, final=True)
    weights = tmp_path / "trials/00000" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-5])
    save(folder, result, 100)
    found = folder.latest().checkpoint
    assert found is not None
    assert (found.result.step, found.final) == (100, False)


def test_drafts_of_a_killed_worker_are_dropped(tmp_path: Path, result: TrialResult) -> None:
    folder = CheckpointFolder(str(tmp_path), "trials/00000")
    save(folder, result, 100)
    (tmp_path / "trials/00000/step-0000000200.safetensors.77.draft").write_bytes(b"half")
    assert folder.latest().checkpoint is not None
    assert len(files(tmp_path)) == 2  # who only reads leaves a draft alone, which may be in the making
    save(folder, result, 300)
    assert files(tmp_path) == ["step-0000000100.safetensors", "step-0000000300.safetensors"]


def test_a_node_sees_a_file_or_not(tmp_path: Path) -> None:
    (tmp_path / "probe").touch()
    assert sees(str(tmp_path), "probe")
    assert not sees(str(tmp_path), "other")
    assert not sees(str(tmp_path / "nowhere"), "probe")
