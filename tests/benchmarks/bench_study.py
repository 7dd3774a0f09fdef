"""A whole study: where its time goes, and how it compares with the pattern of Ray Tune's tutorial.

The pattern is in `tutorial.py`. Both train trials of equal steps at the default space's settings, two at once with a
core each, and score them once, at their end. A trial of 10 s is one that trains for 10 s in ours. Seeds: the space's.

With `--study FOLDER` the breakdown is that of this finished study; without, of the one that was just run.

    python tests/benchmarks/bench_study.py [--seconds 10 60] [--trials 4] [--study FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import table
from measuring import apart
from tutorial import Run, tutorial

from bvae_tune.search.study import Study
from bvae_tune.space import StudyConfig, load_space


def settings(steps: int, trials: int) -> list[str]:
    """The default space with trials of so many steps, scored at their end only."""
    return [
        f"training.steps={steps}",
        f"training.report_every={steps}",
        f"search.trials={trials}",
        "search.baselines=[]",
        "protocol.classifier_seeds=1",
        "metric.profile=[]",
        "resources.cpus_per_trial=1",
        "resources.concurrent_trials=2",
    ]


def ours(space: StudyConfig, storage: str) -> Run:
    """By `bvae_tune.search`."""
    import bvae_tune

    began = time.perf_counter()
    study = bvae_tune.search(space, name="study", storage=storage)
    results = [record.result for record in study.trials if record.result]
    return Run(
        len(results),
        time.perf_counter() - began,
        sum(result.seconds_training for result in results),
        sum(result.seconds_evaluating for result in results),
    )


def steps_a_second() -> float:
    """Of ours, on one thread."""
    import torch

    from bvae_tune.data.sources import open_dataset
    from bvae_tune.training.bank import Bank

    torch.set_num_threads(1)
    space = load_space("shapes")
    bank = Bank(space.model, space.training, open_dataset(space.dataset), [0], [4.0])
    bank.train(50)
    return 300 / bank.train(350).seconds


def against_the_tutorial(arguments: argparse.Namespace, storage: str) -> Iterator[table.Line]:
    """Trials an hour, and the seconds of a trial by what they went into."""
    rate = apart(steps_a_second)
    for length in arguments.seconds:
        steps = max(1, round(length * rate))
        space = load_space("shapes", settings(steps, arguments.trials))
        mine = apart(ours, space, f"{storage}/{length}")
        rival = apart(tutorial, space, f"{storage}/tutorial-{length}")
        name = "the tutorial's pattern"
        what = f"trials of {length} s ({steps:,} steps)"
        hourly = [3600 * run.trials / run.wall for run in (mine, rival)]
        yield table.line(what, "trials/h", hourly[:1], hourly[1:], name)
        for part in ("training", "scoring"):
            values = [getattr(run, part) / run.trials for run in (mine, rival)]
            yield table.line(f"{what}: {part}", "s a trial", values[:1], values[1:], name)
        rest = [2 * run.wall / run.trials - (run.training + run.scoring) / run.trials for run in (mine, rival)]
        yield table.line(f"{what}: all else, on its core", "s a trial", rest[:1], rest[1:], name)


def breakdown(path: Path) -> Iterator[table.Line]:
    """Where a finished study's time x cores went, in percent of it, and what its parts cost here."""
    study = Study.open(path)
    sessions = study.sessions
    cores = sessions[0]["cores"]
    wall = sum(session["end"] - session["start"] for session in sessions)
    stored = [trial for record in (study.searched, study.control_trials) for trial in record.get_trials(deepcopy=False)]
    starts = [trial.datetime_start.timestamp() for trial in stored if trial.datetime_start]
    ends = [trial.datetime_complete.timestamp() for trial in stored if trial.datetime_complete]
    held = sum(ends) - sum(starts)
    results = [record.result for record in (*study.trials, *study.controls) if record.result]
    training = sum(result.seconds_training for result in results)
    scoring = sum(result.seconds_evaluating for result in results)
    first = sum(
        min((t for t in starts if t >= session["start"]), default=session["end"]) - session["start"]
        for session in sessions
    )
    shares = {
        "training": training,
        "evaluation": scoring,
        "in trials besides: worker's start, imports, opening, checkpoints, reports": held - training - scoring,
        "before the first trial: Ray, driver": first * cores,
        "a core without a trial: between trials, and while the last one ends": wall * cores - held - first * cores,
    }
    for what, value in shares.items():
        yield table.line(f"{study.name}: {what}", "% of time x cores", [100 * value / (wall * cores)])
    total = 100 * (training + scoring) / (wall * cores)
    yield table.line(f"{study.name}: training and evaluation together", "% of time x cores", [total], target=">= 92 %")


def parts(path: Path) -> dict[str, float]:
    """Seconds of what a trial does besides training and evaluation, without Ray."""
    from bvae_tune.data.sources import load_labels, open_dataset
    from bvae_tune.search.checkpoints import CheckpointFolder
    from bvae_tune.search.task import check_fingerprints
    from bvae_tune.training.bank import Bank

    found, began = {}, time.perf_counter()

    def done(what: str) -> None:
        nonlocal began
        found[what], began = time.perf_counter() - began, time.perf_counter()

    subprocess.run([sys.executable, "-c", "import bvae_tune.search.trial_run, bvae_tune.evaluation"], check=True)
    done("a worker's imports")
    study = Study.open(path)
    record = study.trials[0]
    assert record.result is not None
    model, training = study.configuration(record)
    began = time.perf_counter()
    store = open_dataset(study.config.dataset)
    labels = load_labels(study.config.labels, store)
    check_fingerprints(store, labels, (study.facts["images"], study.facts["labels"]))
    done("opening images and labels")
    bank = Bank(model, training, store, [0])
    done("setting up a network")
    with tempfile.TemporaryDirectory() as folder:
        CheckpointFolder(folder, "trials/00000").save(bank.state(), record.result, False)
    done("a checkpoint")
    json.dumps(record.result.to_dict())
    done("a report's text")
    return found


def lines(arguments: argparse.Namespace) -> Iterator[table.Line]:
    """The comparison, and the breakdown."""
    with tempfile.TemporaryDirectory() as storage:
        yield from against_the_tutorial(arguments, storage)
        path = arguments.study or Path(storage) / str(arguments.seconds[-1]) / "study"
        yield from breakdown(path)
        for what, taken in apart(parts, path).items():
            yield table.line(f"in a trial besides: {what}", "ms", [1e3 * taken])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 60])
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--study", type=Path)
    table.main(lines, parser, "A study")
