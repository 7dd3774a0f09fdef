"""How long a person waits: `--help`, the first build of the images, opening them, and the first trained step.

Beside each time stands the least that it takes here, measured in turns in the same run. For the first step that is
what the libraries need: Ray's start, and a trial of Ray Tune that imports torch. For the build it is
filling the images' bytes, their digest, and writing them to disk. Seed: the space's.

    python tests/benchmarks/bench_cold.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import table
from measuring import seconds

from bvae_tune.data.shapes import build_shapes
from bvae_tune.data.sources import DatasetConfig, open_dataset
from bvae_tune.search.study import Study

COMMAND = Path(sys.executable).with_name("bvae-tune")
BARE_START = """
import pathlib
import ray
from ray import tune

class Trainer(tune.Trainable):
    def step(self):
        import torch
        pathlib.Path({answer!r}).write_text(str(torch.ones(1).sum().item()))
        return dict(done=True)

ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
tune.run(Trainer, storage_path={storage!r}, verbose=0)
"""
# The default search with trials of one step: two workers start at once on two cores, one for the untrained network and
# one for β = 1, whose first checkpoint comes after its step and its evaluation; the seconds of the latter are recorded.
SMALL = {
    "training.steps": 1,
    "training.report_every": 1,
    "metric.train_points": 100,
    "metric.test_points": 100,
    "search.trials": 1,
}


def until(there: Callable[[], bool], *command: str | Path) -> float:
    """Seconds from a command's start until something is there; the command then runs to its end, uncounted."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not there():
            if process.poll() is not None:
                sys.exit(process.stderr.read() if process.stderr else "ended too early")
            time.sleep(0.02)
        taken = time.perf_counter() - start
        process.communicate()
    return taken


def bare_start() -> float:
    """Seconds until a trial of Ray Tune has imported torch and used it."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        return until(answer.exists, sys.executable, "-c", BARE_START.format(answer=str(answer), storage=folder))


def run(*command: str | Path) -> None:
    """Run a command to its end, silently."""
    subprocess.run(command, check=True, capture_output=True)


def first_step() -> float:
    """Seconds from the start of `bvae-tune search` to the end of the first step that it trains."""
    settings = [argument for key, value in SMALL.items() for argument in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as storage:
        study = Path(storage) / "bench"
        trained = study / "controls" / "00001"
        command = [COMMAND, "search", "--space", "shapes", "--storage", storage, "--name", "bench", *settings]
        taken = until(lambda: trained.is_dir() and any(trained.iterdir()), *command)
        record = Study.open(study).controls[1]
    assert record.result is not None
    return taken - record.result.seconds_evaluating


def bare_build(folder: Path) -> None:
    """As many bytes filled, digested and written."""
    images = np.full((737_280, 512), 1, np.uint8)
    hashlib.sha256(images).hexdigest()
    with (folder / "bytes").open("wb") as file:
        file.write(images.data)
        file.flush()
        os.fsync(file.fileno())


def bare_opening() -> float:
    """Seconds of mapping the file and reading its table, without a check."""
    path = str(open_dataset(DatasetConfig()).path)
    return seconds(lambda: pa.ipc.open_file(pa.memory_map(path)).get_batch(0))


def in_fresh_folder(work: Callable[[Path], object]) -> float:
    """Seconds of `work` on a folder of its own, which is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        return seconds(lambda: work(Path(folder)))


@dataclass(frozen=True)
class Wait:
    """Something a person waits for, how to measure it, and the least that it can take."""

    what: str
    ours: Callable[[], float]
    limit: Callable[[], float]
    limit_is: str
    target: str


WAITS = (
    Wait(
        "bvae-tune --help",
        lambda: seconds(lambda: run(COMMAND, "--help")),
        lambda: seconds(lambda: run(sys.executable, "-c", "import typer.main, rich.console")),
        "typer and rich alone",
        "< 0.3 s",
    ),
    Wait("command to first trained step", first_step, bare_start, "Ray Tune and torch alone", "< 8 s"),
    Wait(
        "opening the images",
        lambda: seconds(lambda: open_dataset(DatasetConfig())),
        bare_opening,
        "pyarrow alone",
        "< 0.05 s",
    ),
    Wait(
        "building the images",
        lambda: in_fresh_folder(lambda folder: build_shapes(folder / "shapes.arrow")),
        lambda: in_fresh_folder(bare_build),
        "fill, digest, write",
        "< 20 s",
    ),
)


def lines(arguments: argparse.Namespace) -> Iterator[table.Line]:
    """Ours and the limit in turns, after one turn that brings the files into memory."""
    open_dataset(DatasetConfig())
    for wait in WAITS:
        wait.ours(), wait.limit()
        turns = [(wait.ours(), wait.limit()) for _ in range(arguments.rounds)]
        ours, limit = (list(column) for column in zip(*turns, strict=True))
        yield table.line(wait.what, "s", ours, limit=limit, limit_is=wait.limit_is, target=wait.target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    table.main(lines, parser, "What a person waits for")
