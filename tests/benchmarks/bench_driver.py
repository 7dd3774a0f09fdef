"""What a trial costs the driver: studies of instant trials through the real search, beside Ray Tune and TPE alone.

A trial is an untrained network of six pixels, scored on a handful of points and written down, so that nearly all of
its time is ours, Tune's or Optuna's. Tune alone runs a trainable that ends at once, TPE alone asks and tells in
memory, on the same space. Each is a process of its own; its time counts from the first trial's start to the last
one's end. They take turns; a study of a thousand trials or more runs once, being its own mean. The exponent of growth
is that of what time and memory gain over those of the fewest trials; 1 is linear. No pruner, and no terminal. Seeds:
the space's.

    python tests/benchmarks/bench_driver.py [--trials 100 500 2000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import table
from measuring import apart, peak_memory
from rich.console import Console

SPACE = {"beta": {"loguniform": [0.25, 128]}, "latent_size": {"int": [2, 20]}}


def tiny_space(folder: Path, trials: int) -> dict[str, Any]:
    """A study whose trials take no time."""
    from bvae_tune.data.sources import import_arrays

    factors = np.array([(a, b) for a in range(2) for b in range(2)] * 25)
    images = np.random.default_rng(0).integers(256, size=(100, 3, 2), dtype=np.uint8)
    path = folder / "tiny.arrow"
    import_arrays(images, name="tiny", factors=factors, factor_names=["a", "b"], path=path)
    return {
        "dataset": {"source": "arrow", "path": str(path)},
        "labels": {"seed": 0},
        "model": {"architecture": "fc", "widths": [4], "latent_size": 2},
        "training": {"steps": 0},
        "metric": {"train_points": 20, "test_points": 20, "profile": []},
        "protocol": {"classifier_seeds": 1},
        "space": SPACE,
        "search": {"trials": trials, "baselines": []},
        "resources": {"cpus_per_trial": 1, "concurrent_trials": 2},
    }


def study(trials: int) -> dict[str, float]:
    """Ours: seconds, those that trials spent scoring, and bytes of the folder."""
    import bvae_tune

    with tempfile.TemporaryDirectory() as storage, open(os.devnull, "w") as nowhere:
        space, console = tiny_space(Path(storage), trials), Console(file=nowhere)
        done = bvae_tune.search(space, name="driver", storage=storage, console=console)
        stored = done.searched.get_trials(deepcopy=False)
        began = min(trial.datetime_start for trial in stored if trial.datetime_start)
        ended = max(trial.datetime_complete for trial in stored if trial.datetime_complete)
        scoring = sum(record.seconds or 0.0 for record in done.trials) / 2  # two at a time
        return {"seconds": (ended - began).total_seconds(), "scoring": scoring, "folder": done.size_bytes}


def tune_alone(trials: int) -> dict[str, float]:
    """Ray Tune with a trainable that ends at once, and a searcher that has nothing to think about."""
    from bvae_tune.search.cluster import ray_session

    with ray_session(None), tempfile.TemporaryDirectory() as storage:
        from ray import tune
        from ray.tune.search import Searcher

        class Instant(tune.Trainable):
            def setup(self, config: dict[str, Any]) -> None:
                """Nothing."""

            def reset_config(self, new_config: dict[str, Any]) -> bool:
                return True

            def step(self) -> dict[str, Any]:
                return {"score": 0.0, "done": True}

        class Counting(Searcher):
            asked = 0
            began = ended = 0.0

            def suggest(self, trial_id: str) -> Any:
                self.began = self.began or time.perf_counter()
                self.asked += 1
                return {"number": self.asked} if self.asked <= trials else Searcher.FINISHED

            def on_trial_complete(
                self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
            ) -> None:
                self.ended = time.perf_counter()

        searcher = Counting()
        tune.run(
            Instant,
            storage_path=storage,
            resources_per_trial={"cpu": 1},
            search_alg=searcher,
            num_samples=-1,
            max_concurrent_trials=2,
            reuse_actors=True,
            verbose=0,
        )
        return {"seconds": searcher.ended - searcher.began}


def tpe_alone(trials: int) -> dict[str, float]:
    """Optuna's TPE as the study sets it up, in memory."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=0)
    asked = optuna.create_study(direction="maximize", sampler=sampler)
    scores = np.random.default_rng(0).random(trials)
    began = time.perf_counter()
    for score in scores:
        trial = asked.ask()
        trial.suggest_float("beta", 0.25, 128, log=True)
        trial.suggest_int("latent_size", 2, 20)
        asked.tell(trial, score)
    return {"seconds": time.perf_counter() - began}


CONTESTANTS = {"study": study, "tune": tune_alone, "tpe": tpe_alone}


def figures(name: str, trials: int) -> dict[str, float]:
    """A contestant's figures, and the highest memory of the process that runs it, in bytes."""
    return CONTESTANTS[name](trials) | {"memory": peak_memory()}


def lines(arguments: argparse.Namespace) -> Iterator[table.Line]:
    """Time, memory and size a trial, and how they grow."""
    counts = sorted(arguments.trials)
    runs = {
        count: [
            {name: apart(figures, name, count) for name in CONTESTANTS}
            for _ in range(arguments.rounds if count < 1_000 else 1)
        ]
        for count in counts
    }

    def of(count: int, name: str, key: str, scale: float = 1.0) -> list[float]:
        return [scale * run[name][key] for run in runs[count]]

    for count in counts:
        ours, tune, tpe = (of(count, name, "seconds", 1e3 / count) for name in CONTESTANTS)
        both = [one + other for one, other in zip(tune, tpe, strict=True)]
        yield table.line(f"{count:,} instant trials", "ms a trial", ours, tune, "Tune alone", both, "and TPE")
        yield table.line(f"{count:,}: TPE's share", "ms a trial", tpe)
        yield table.line(f"{count:,}: the trial itself", "ms a trial", of(count, "study", "scoring", 1e3 / count))
        memory = (of(count, name, "memory", 1e-6) for name in ("study", "tune"))
        yield table.line(f"{count:,}: driver's memory", "MB", *memory, "Tune alone")
        yield table.line(f"{count:,}: folder", "kB a trial", of(count, "study", "folder", 1e-3 / count))
    if len(counts) > 2:
        for what, name, key in (
            ("time", "study", "seconds"),
            ("memory", "study", "memory"),
            ("memory of Tune alone", "tune", "memory"),
            ("folder", "study", "folder"),
        ):
            grown = [table.exponent(counts, [median(of(count, name, key)) for count in counts])]
            yield table.line(f"growth of {what} with trials", "exponent", grown, target="1 or less")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 500, 2000])
    parser.add_argument("--rounds", type=int, default=3)
    table.main(lines, parser, "The driver")
