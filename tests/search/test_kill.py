"""Nothing lost, nothing twice: a seeded killer ends the command and all its Ray processes with SIGKILL.

`make test` kills 5 times, `make soak` 50 times, and 20 times while three trials share a bank; BVAE_TUNE_KILL_SEED
chooses other moments than those of seed 0.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from bvae_tune.search.checkpoints import CheckpointFolder
from bvae_tune.search.runner import search
from bvae_tune.search.study import Study, TrialRecord

MakeSpace = Callable[..., dict[str, Any]]

COMMAND = """
import sys
from bvae_tune.search.runner import resume, search
storage, action = sys.argv[1:]
if action == "search":
    search(storage + "/space.yaml", name="study", storage=storage)
else:
    resume(storage + "/study")
"""


class Killer:
    """Starts the command on a study and kills it; every random choice comes from the seed.

    Attributes:
        storage, study: folders.
        written: for each checkpoint of an unfinished trial that was seen, the times at which it was written.
    """

    def __init__(self, storage: Path, seed: tuple[int, int]) -> None:
        self.storage = storage
        self.study = storage / "study"
        self.written: dict[Path, set[int]] = {}
        self._random = np.random.default_rng(seed)

    def run(self, kill: bool) -> bool:
        """Search or resume; whether it was killed before its end."""
        action = "resume" if self.study.exists() else "search"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with (self.storage / "output").open("w") as output:
            command = subprocess.Popen(
                [sys.executable, "-c", COMMAND, str(self.storage), action],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
            if kill and self._wait(command):
                self._kill(command)
                return True
            end = time.monotonic() + 600
            while command.poll() is None and time.monotonic() < end:
                self._watch()
        assert command.returncode == 0, (self.storage / "output").read_text()
        return False

    def _wait(self, command: subprocess.Popen[bytes]) -> bool:
        """Until the chosen moment; False if the command ends before."""
        if self._random.random() < 0.2:  # any time from the start on: imports, Ray's start, the first workers
            return self._sleep(command, self._random.uniform(0, 15))
        # When the journal has so many more lines than now, give or take a write.
        lines = self._lines() + int(self._random.integers(1, 40))
        while self._lines() < lines:
            if command.poll() is not None:
                return False
            self._watch()
        return self._sleep(command, self._random.choice([0.0, 0.001, 0.01, 0.1]))

    def _sleep(self, command: subprocess.Popen[bytes], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if command.poll() is not None:
                return False
            self._watch()
        return command.poll() is None

    def _watch(self) -> None:
        """One look at the checkpoints, and a moment's rest."""
        with suppress(FileNotFoundError):  # files and folders go while one looks at them
            for trials in ("trials", "controls"):
                for checkpoint in self.study.glob(f"{trials}/*/step-*.safetensors"):
                    self.written.setdefault(checkpoint, set()).add(checkpoint.stat().st_mtime_ns)
        time.sleep(0.002)

    def _lines(self) -> int:
        journal = self.study / "optuna.journal"
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    def _kill(self, command: subprocess.Popen[bytes]) -> None:
        """The command first; in one of four kills Ray has to notice by itself that its driver is gone."""
        parent = psutil.Process(command.pid)
        children = parent.children(recursive=True)
        command.kill()
        command.wait()
        if self._random.random() < 0.75:
            for process in children:
                if process.is_running():
                    process.kill()
            psutil.wait_procs(children, timeout=30)


def outcome(study: Study) -> list[tuple[Any, ...]]:
    """All of the record that is a function of the seed."""
    return [
        (r.kind, r.number, r.label, r.state, r.parameters, r.intermediate, r.score, r.reason, _numbers(r))
        for r in (*study.controls, *study.trials)
    ]


def _numbers(record: TrialRecord) -> dict[str, Any] | None:
    if record.result is None:  # it failed before its first report
        return None
    return record.result.to_dict() | {"images_per_second": 0, "seconds_training": 0, "seconds_evaluating": 0}


def finished(study: Study) -> dict[tuple[str, int], TrialRecord]:
    """Ended trials, with the seconds that they took."""
    return {
        (record.kind, record.number): record
        for record in (*study.controls, *study.trials)
        if record.state in ("complete", "pruned", "failed")
    }


def check_interrupted(study: Study, ended_before: dict[tuple[str, int], TrialRecord], at_once: int) -> None:
    """After a kill: no ended trial has changed, and no report is recorded that its checkpoint does not hold."""
    ended = finished(study)
    assert {key: ended[key] for key in ended_before} == ended_before
    unfinished = [record for record in (*study.controls, *study.trials) if record.state == "interrupted"]
    assert len(unfinished) <= at_once
    for record in unfinished:
        place = f"{'trials' if record.kind == 'search' else 'controls'}/{record.number:05d}"
        checkpoint = CheckpointFolder(str(study.path), place).latest().checkpoint
        trained = checkpoint.result.step if checkpoint else 0
        assert max(record.intermediate, default=0) <= trained


def kill_until_finished(
    storage: Path, space: dict[str, Any], seed: tuple[int, int], kills: int, at_once: int
) -> tuple[Study, int]:
    """A study with at most so many kills, and how many there were; `at_once` trials run at a time."""
    storage.mkdir()
    (storage / "space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    killer = Killer(storage, seed)
    done = 0
    ended: dict[tuple[str, int], TrialRecord] = {}
    while killer.run(kill=done < kills):
        done += 1
        if killer.study.exists():
            study = Study.open(killer.study)
            check_interrupted(study, ended, at_once)
            ended = finished(study)
    # A trial that began anew, or further back than its last checkpoint, would have written one of them again.
    assert {path: times for path, times in killer.written.items() if len(times) > 1} == {}
    assert killer.written
    return Study.open(killer.study), done


PRUNED = {
    "search": {"trials": 8, "startup_trials": 3, "pruner": "halving", "min_resource": 10},
    "training": {"steps": 40},
}
BANKS = {
    "space": {"latent_size": {"grid": [2, 3]}, "beta": {"grid": [1, 1e39, 4]}},
    "search": {"trials": 6, "sampler": "grid"},
    "training": {"steps": 40},
    "resources": {"trials_per_bank": 3},
}


@pytest.mark.parametrize(
    ("settings", "at_once", "states", "kills"),
    [
        pytest.param(PRUNED, 1, {"complete", "pruned"}, 5, id="5 kills"),
        pytest.param(PRUNED, 1, {"complete", "pruned"}, 50, marks=pytest.mark.soak, id="50 kills"),
        pytest.param(BANKS, 3, {"complete", "failed"}, 20, marks=pytest.mark.soak, id="20 kills of banks"),
    ],
)
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("embedded_ray")
def test_a_killed_study_ends_as_an_undisturbed_one(
    make_space: MakeSpace, tmp_path: Path, settings: dict[str, Any], at_once: int, states: set[str], kills: int
) -> None:
    space = make_space(**settings)
    undisturbed = search(space, name="undisturbed", storage=tmp_path)
    expected = outcome(undisturbed)
    assert {record.state for record in undisturbed.trials} == states

    seed = int(os.environ.get("BVAE_TUNE_KILL_SEED", "0"))
    done = studies = 0
    while done < kills:
        # A study that is finished cannot be killed: the next killer goes on with another of the same seed. On a fast
        # machine a study may even end before its first kill.
        assert studies < kills + 10
        study, found = kill_until_finished(tmp_path / f"study {studies}", space, (seed, studies), kills - done, at_once)
        studies += 1
        assert outcome(study) == expected
        assert study.finished
        assert study.best is not None
        assert undisturbed.best is not None
        assert study.best.number == undisturbed.best.number
        done += found
