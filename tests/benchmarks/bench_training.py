"""Training speed of one replica: against PyTorch as a textbook writes it, as a tuner of loops writes it, and the floor.

Each contestant lives in a process of its own, as a person would run it, and waits while another is measured; a ratio
is taken within each round, and the table shows medians over rounds. What the floor is, `floor.py` says.

    python tests/benchmarks/bench_training.py [--rounds 5] [--threads 1 2] [--batch 64 256] [--device cuda]
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection

import numpy as np
import table
import torch
from floor import Floor, wait
from textbook import convolutional, fully_connected, loss
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from bvae_tune.data.sources import DatasetConfig, open_dataset
from bvae_tune.models.config import ModelConfig
from bvae_tune.space import load_space
from bvae_tune.training.bank import Bank
from bvae_tune.training.config import TrainingConfig

SAMPLE = 10_000  # images of the rivals' TensorDataset: all 737,280 would take 12 GB
ROUND_SECONDS = 0.6  # of each contestant


@dataclass(frozen=True)
class Contest:
    """One network and how it is trained, on this many threads."""

    name: str
    model: ModelConfig
    training: TrainingConfig
    threads: int
    device: str
    target: str


def contests(batches: list[int], threads: list[int], device: str) -> Iterator[Contest]:
    """The paper's network for the 2D shapes and that of the default search space."""
    fc = ModelConfig("fc", (1200, 1200), latent_size=10, beta=4.0), TrainingConfig("adagrad", 1e-2)
    default = load_space("shapes")
    conv = replace(default.model, beta=4.0), default.training
    for name, (model, training), target in (
        ("fc 1200, Adagrad", fc, "1.4x the limit"),
        ("conv of `shapes`, Adam", conv, "2.5x the limit"),
    ):
        for batch in batches:
            for count in threads:
                setting = replace(training, batch_size=batch, steps=1_000_000, warmup=0.0)
                label = f"{name}, batch {batch}, {count} thread{'s' * (count > 1)}"
                yield Contest(label, model, setting, count, device, target)


def loop(contest: Contest, tuned: bool) -> Callable[[int], object]:
    """nn.Module, DataLoader over a TensorDataset, float32, default optimiser settings.

    The tuned one has bfloat16 products (autocast) and a fused optimiser.
    """
    store = open_dataset(DatasetConfig())
    chosen = np.random.default_rng(0).choice(store.count, SAMPLE, replace=False)
    images = store.gather(chosen).view(SAMPLE, 1, 64, 64)
    loader = DataLoader(TensorDataset(images), batch_size=contest.training.batch_size, shuffle=True, drop_last=True)
    model = contest.model
    if model.architecture == "fc":
        vae = fully_connected(model.layer_widths, model.latent_size, store.dimensions).to(contest.device)
    else:
        vae = convolutional(model.layer_widths, model.latent_size, store.channels).to(contest.device)
    optimizer_class = torch.optim.Adagrad if contest.training.optimizer == "adagrad" else torch.optim.Adam
    optimizer = optimizer_class(vae.parameters(), lr=contest.training.learning_rate, fused=tuned)

    def batches() -> Iterator[Tensor]:
        while True:
            for (images,) in loader:
                yield images.to(contest.device)

    source = batches()

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(contest.device, torch.bfloat16, enabled=tuned):
                value = loss(vae, next(source), 4.0, "bernoulli")
            value.backward()
            optimizer.step()

    return run


def bank(contest: Contest) -> Callable[[int], object]:
    """One replica of our own, on all images."""
    ours = Bank(contest.model, contest.training, open_dataset(DatasetConfig()), [0], device=contest.device)
    return lambda steps: ours.train(ours.step_count + steps)


def contestants(contest: Contest) -> dict[str, Callable[[], Callable[[], float]]]:
    """Name -> what prepares a function that measures the seconds of a step."""
    rounded = replace(contest, training=replace(contest.training, precision="bfloat16"))
    return {
        "textbook": lambda: stepping(loop(contest, tuned=False), contest.device),
        "tuned": lambda: stepping(loop(contest, tuned=True), contest.device),
        "float32": lambda: stepping(bank(contest), contest.device),
        "bfloat16": lambda: stepping(bank(rounded), contest.device),
        "float32 limit": lambda: Floor(contest.model, contest.training, 1, contest.device).seconds,
        "bfloat16 limit": lambda: Floor(contest.model, rounded.training, 1, contest.device).seconds,
    }


def stepping(run: Callable[[int], object], device: str) -> Callable[[], float]:
    """Measures a step as the mean of so many as fill a round."""

    def timed(steps: int) -> float:
        began = time.perf_counter()
        run(steps)
        wait(device)
        return (time.perf_counter() - began) / steps

    timed(3)
    return partial(timed, max(1, round(ROUND_SECONDS / timed(3))))


def serve(link: Connection, contest: Contest, name: str) -> None:
    """Answer each request with the seconds of a step, until told to end."""
    torch.set_num_threads(contest.threads)
    answer = contestants(contest)[name]()
    link.send(None)
    while link.recv():
        link.send(answer())


def measure(contest: Contest, rounds: int) -> dict[str, list[float]]:
    """Images/s of each contestant and of the limits, a number per round."""
    context = multiprocessing.get_context("spawn")
    links: dict[str, Connection] = {}
    processes = []
    for name in contestants(contest):
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, contest, name), daemon=True)
        process.start()
        theirs.close()  # so that a contestant that dies is heard of
        ours.recv()
        links[name] = ours
        processes.append(process)
    speeds: dict[str, list[float]] = {name: [] for name in links}
    for _ in range(rounds):
        for name, link in links.items():
            link.send(True)
            speeds[name].append(contest.training.batch_size / link.recv())
    for link in links.values():
        link.send(False)
    for process in processes:
        process.join()
    return speeds


def lines(arguments: argparse.Namespace) -> Iterator[table.Line]:
    """Both precisions, each against both rivals."""
    open_dataset(DatasetConfig())
    for contest in contests(arguments.batch, arguments.threads, arguments.device):
        speeds = measure(contest, arguments.rounds)
        for ours in ("float32", "bfloat16"):
            for rival in ("textbook", "tuned"):
                yield table.line(
                    f"{contest.name}, {ours}", "images/s", speeds[ours], speeds[rival], rival,
                    speeds[f"{ours} limit"], "floor", contest.target,
                )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    table.main(lines, parser, "Training, one replica")
