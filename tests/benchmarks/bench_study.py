"""A whole study: where its time goes, and how it compares with the pattern of Ray Tune's tutorial.

The pattern is in `tutorial.py`. Both train trials of equal steps at the default space's settings, two at once with a
core each (and half of a GPU), and score them once, at their end. A trial of 10 s is one that trains for 10 s in ours.
The two take turns; short studies run so many rounds, of a minute a trial or more they run once, being long enough to be
their own mean. Seeds: the space's.

With `--study FOLDER` the breakdown is that of this finished study; without, of the one that was just run.

    python tests/benchmarks/bench_study.py [--seconds 10 60] [--trials 4] [--rounds 3] [--study FOLDER] [--device cuda]
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import table
import torch
from measuring import apart
from tutorial import Run, tutorial

from bvae_tune.search.study import Study
from bvae_tune.space import StudyConfig, load_space


def settings(steps: int, trials: int, device: str) -> list[str]:
    """The default space with trials of one replica and so many steps, scored at their end only."""
    return [
        f"training.steps={steps}",
        f"training.report_every={steps}",
        f"search.trials={trials}",
        "search.baselines=[]",
        "protocol.replicas=1",
        "protocol.classifier_seeds=1",
        "metric.profile=[]",
        "resources.cpus_per_trial=1",
        f"resources.gpus_per_trial={0.5 * (device != 'cpu')}",
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


def steps_a_second(device: str) -> float:
    """Of ours, alone, on one thread."""
    from bvae_tune.data.sources import open_dataset
    from bvae_tune.training.bank import Bank

    torch.set_num_threads(1)
    space = load_space("shapes")
    bank = Bank(space.model, space.training, open_dataset(space.dataset), [0], [4.0], device=device)
    bank.train(50)
    return 300 / bank.train(350).seconds


def against_the_tutorial(arguments: argparse.Namespace, storage: str) -> Iterator[table.Line]:
    """Trials an hour, and the seconds of a trial by what they went into."""
    device, name = arguments.device, "the tutorial's pattern"
    rate = apart(steps_a_second, device)
    for length in arguments.seconds:
        steps = max(1, round(length * rate))
        space = load_space("shapes", settings(steps, arguments.trials, device))
        mine, rivals = [], []
        for turn in range(arguments.rounds if length < 60 else 1):
            mine.append(apart(ours, space, f"{storage}/{length}-{turn}"))
            rivals.append(apart(tutorial, space, f"{storage}/tutorial-{length}-{turn}", device))
        what = f"trials of {length} s ({steps:,} steps)"
        for told, unit, figure in (
            (what, "trials/h", lambda run: 3600 * run.trials / run.wall),
            (f"{what}: training", "s a trial", lambda run: run.training / run.trials),
            (f"{what}: scoring", "s a trial", lambda run: run.scoring / run.trials),
            (f"{what}: all else, on its core", "s a trial", lambda run: run.rest),
        ):
            yield table.line(told, unit, list(map(figure, mine)), list(map(figure, rivals)), name)


def breakdown(path: Path) -> Iterator[table.Line]:
    """Where a finished study's time x cores went, in percent of it, and what its parts cost here."""
    study = Study.open(path)
    sessions = study.sessions
    cores = sessions[0]["cores"]
    wall = sum(session["end"] - session["start"] for session in sessions)
    stored = [trial for record in (study.searched, study.control_trials) for trial in record.get_trials(deepcopy=False)]
    starts = [trial.datetime_start.timestamp() for trial in stored if trial.datetime_start]
    cpus, held = sessions[0]["cpus_per_trial"], cpus_held(study)
    results = [record.result for record in (*study.trials, *study.controls) if record.result]
    training = cpus * sum(result.seconds_training for result in results)
    scoring = cpus * sum(result.seconds_evaluating for result in results)
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


def cpus_held(study: Study) -> float:
    """Cores x seconds that trials had; those of a bank hold one's cores together."""
    together = study.config.resources.trials_per_bank
    spans: dict[tuple[str, int], list[float]] = {}
    for kind, record, size in (("search", study.searched, together), ("control", study.control_trials, 1)):
        for trial in record.get_trials(deepcopy=False):
            if trial.datetime_start and trial.datetime_complete:
                times = [trial.datetime_start.timestamp(), trial.datetime_complete.timestamp()]
                spans.setdefault((kind, trial.number // size), []).extend(times)
    return study.sessions[0]["cpus_per_trial"] * sum(max(times) - min(times) for times in spans.values())


def parts(path: Path) -> dict[str, float]:
    """Seconds of what a trial takes besides training and evaluation: each part, alone on this machine."""
    import ray

    from bvae_tune.data.sources import load_labels, open_dataset
    from bvae_tune.search.checkpoints import CheckpointFolder
    from bvae_tune.search.cluster import ray_session
    from bvae_tune.search.journal import create_record, open_record
    from bvae_tune.search.task import check_fingerprints
    from bvae_tune.search.tensorboard import TensorBoardLog
    from bvae_tune.training.bank import Bank

    found, began = {}, time.perf_counter()

    def done(what: str) -> None:
        nonlocal began
        found[what], began = time.perf_counter() - began, time.perf_counter()

    with ray_session(None):
        done("driver: Ray's start")
        actor = ray.remote(type("Actor", (), {"ping": lambda self: None})).remote()
        ray.get(actor.ping.remote())
        done("an actor's start")
    began = time.perf_counter()
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
        began = time.perf_counter()
        CheckpointFolder(folder, "trials/00000").save(bank.state(), record.result, False)
        done("a checkpoint")
        create_record(Path(folder) / "record")
        searched, _ = open_record(Path(folder) / "record")
        trial, log = searched.ask(), TensorBoardLog(Path(folder), study.config.space, print)
        log.write_result(record, record.result)  # the first one also makes the files
        began = time.perf_counter()
        log.write_result(record, dataclasses.replace(record.result, step=record.result.step + 1))
        done("driver: a report's way to TensorBoard")
        trial.set_user_attr("result", record.result.to_dict())
        trial.report(record.result.score.score, record.result.step)
        done("driver: a report's way into the record")
    return found


def lines(arguments: argparse.Namespace) -> Iterator[table.Line]:
    """The comparison, and the breakdown."""
    with tempfile.TemporaryDirectory() as storage:
        yield from against_the_tutorial(arguments, storage)
        path = arguments.study or Path(storage) / f"{arguments.seconds[-1]}-0" / "study"
        yield from breakdown(path)
        for what, taken in apart(parts, path).items():
            yield table.line(f"besides: {what}", "ms", [1e3 * taken])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 60])
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--study", type=Path)
    table.main(lines, parser, "A study")
