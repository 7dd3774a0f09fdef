"""How long a person waits for the command line: `--help`, and from the command to the first trained step.

Beside each time stands what the libraries alone need here, measured in turns in the same run, and their ratio. With
`--study FOLDER` also the share of that study's time x cores that went into training and evaluation. Seed: the space's.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

COMMAND = Path(sys.executable).with_name("bvae-tune")
# Ray's start, an actor of it that has imported torch, and an answer from it: no search can train sooner.
BARE_START = """
import ray, torch

@ray.remote
class Trainer:
    def step(self):
        import torch
        return torch.ones(1).sum().item()

ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
ray.get(Trainer.remote().step.remote())
"""
# One trial of one step, evaluated at little cost: its first checkpoint comes right after its first step.
SMALL = {
    "training.steps": 1,
    "training.report_every": 1,
    "metric.train_points": 100,
    "metric.test_points": 100,
    "search.trials": 1,
    "search.baselines": "[]",
}


def seconds(work: Callable[[], None]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run(*command: str | Path) -> None:
    """Run a command to its end, silently."""
    subprocess.run(command, check=True, capture_output=True)


def first_step() -> float:
    """Seconds from the start of `bvae-tune search` to the first checkpoint of its first trial."""
    settings = [argument for key, value in SMALL.items() for argument in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as storage:
        trial = Path(storage) / "bench" / "trials" / "00000"
        command = [COMMAND, "search", "--space", "shapes", "--storage", storage, "--name", "bench", *settings]
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while not (trial.is_dir() and any(trial.iterdir())):
                if process.poll() is not None:
                    sys.exit(process.stderr.read() if process.stderr else "the search ended before its first step")
                time.sleep(0.02)
            taken = time.perf_counter() - start
            process.communicate()
    return taken


def report(what: str, ours: list[float], limit: list[float], target: str) -> None:
    """One line: the medians, their ratio and the target."""
    mine, theirs = statistics.median(ours), statistics.median(limit)
    print(f"{what:<34} {mine:6.2f} s   libraries alone {theirs:6.2f} s   ratio {mine / theirs:5.2f}   target {target}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, help="a finished study's folder")
    parser.add_argument("--runs", type=int, default=5, help="of each pair")
    arguments = parser.parse_args()

    run(COMMAND, "data", "build")
    run(COMMAND, "--help")
    pairs = [
        (seconds(lambda: run(COMMAND, "--help")), seconds(lambda: run(sys.executable, "-c", "import ray, torch")))
        for _ in range(arguments.runs)
    ]
    report("bvae-tune --help", *map(list, zip(*pairs, strict=True)), target="< 0.4 s")

    pairs = [
        (first_step(), seconds(lambda: run(sys.executable, "-c", BARE_START))) for _ in range(min(3, arguments.runs))
    ]
    report("command to first trained step", *map(list, zip(*pairs, strict=True)), target="< 10 s")

    if arguments.study is not None:
        import bvae_tune

        share = bvae_tune.load(arguments.study).share_of_work
        shown = "unknown (a run of it was killed or goes on)" if share is None else f"{share:.1%}"
        print(f"{'training and evaluation':<34} {shown} of time x cores   target >= 85%")


if __name__ == "__main__":
    main()
