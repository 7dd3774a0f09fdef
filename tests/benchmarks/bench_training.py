"""Training images/s of one replica against a textbook PyTorch loop on the same data, side by side.

Each contestant lives in a process of its own, as a person would run it, and waits while another is measured; a ratio
is taken within each round, and the table shows medians over rounds.

    python tests/benchmarks/bench_training.py [--rounds 7] [--threads 1 2] [--batch 64]
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from textbook import convolutional, fully_connected, loss
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from bvae_tune.data.sources import DatasetConfig, open_dataset
from bvae_tune.models.config import ModelConfig
from bvae_tune.training.bank import Bank
from bvae_tune.training.config import TrainingConfig

SAMPLE = 10_000  # images of the textbook's TensorDataset: all 737,280 would take 12 GB
LATENTS, BETA = 10, 4.0


@dataclass(frozen=True)
class Contest:
    """One network and how the paper, or the default search space, trains it."""

    name: str
    architecture: Literal["fc", "conv"]
    widths: tuple[int, ...]
    optimizer: Literal["adagrad", "adam"]
    learning_rate: float


CONTESTS = [
    Contest("fc 1200, Adagrad", "fc", (1200, 1200), "adagrad", 1e-2),
    Contest("conv 16-16-32-32, fc 128, Adam", "conv", (16, 16, 32, 32, 128), "adam", 1e-3),
    Contest("conv 8-8-16-16, fc 64, Adam", "conv", (8, 8, 16, 16, 64), "adam", 1e-3),
]
CONTESTANTS = ("textbook", "float32", "bfloat16")


def textbook_steps(contest: Contest, batch: int) -> Callable[[int], None]:
    """nn.Module, DataLoader over a TensorDataset, float32, default optimiser settings."""
    store = open_dataset(DatasetConfig())
    chosen = np.random.default_rng(0).choice(store.count, SAMPLE, replace=False)
    images = store.gather(chosen).view(SAMPLE, 1, 64, 64)
    loader = DataLoader(TensorDataset(images), batch_size=batch, shuffle=True, drop_last=True)
    a, b, *rest = contest.widths
    if contest.architecture == "fc":
        vae = fully_connected((a, b), LATENTS, store.dimensions)
    else:
        c, d, hidden = rest
        vae = convolutional((a, b, c, d, hidden), LATENTS, 1)
    optimizer_class = torch.optim.Adagrad if contest.optimizer == "adagrad" else torch.optim.Adam
    optimizer = optimizer_class(vae.parameters(), lr=contest.learning_rate)

    def batches() -> Iterator[Tensor]:
        while True:
            for (images,) in loader:
                yield images

    source = batches()

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss(vae, next(source), BETA, "bernoulli").backward()
            optimizer.step()

    return run


def bank_steps(contest: Contest, batch: int, precision: Literal["float32", "bfloat16"]) -> Callable[[int], None]:
    """One replica of our own, on all images."""
    model = ModelConfig(contest.architecture, contest.widths, latent_size=LATENTS, beta=BETA)
    training = TrainingConfig(
        contest.optimizer, contest.learning_rate, batch_size=batch, steps=1_000_000, precision=precision
    )
    bank = Bank(model, training, open_dataset(DatasetConfig()), [0])
    return lambda steps: bank.train(bank.step_count + steps) and None


def serve(link: Connection, contest: Contest, contestant: str, batch: int, threads: int) -> None:
    """Answer each number of steps with the seconds they took, until told to end by a zero."""
    torch.set_num_threads(threads)
    if contestant == "textbook":
        run = textbook_steps(contest, batch)
    else:
        run = bank_steps(contest, batch, contestant)  # type: ignore[arg-type]
    run(5)
    link.send(0.0)
    while steps := link.recv():
        began = time.perf_counter()
        run(steps)
        link.send(time.perf_counter() - began)


def measure(contest: Contest, batch: int, threads: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """Images/s of each contestant, a number per round."""
    context = multiprocessing.get_context("spawn")
    links: dict[str, Connection] = {}
    processes = []
    for contestant in CONTESTANTS:
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, contest, contestant, batch, threads), daemon=True)
        process.start()
        theirs.close()  # so that a contestant that dies is heard of
        ours.recv()
        links[contestant] = ours
        processes.append(process)
    speeds: dict[str, list[float]] = {contestant: [] for contestant in CONTESTANTS}
    for _ in range(rounds):
        for contestant, link in links.items():
            link.send(steps)
            speeds[contestant].append(steps * batch / link.recv())
    for link in links.values():
        link.send(0)
    for process in processes:
        process.join()
    return speeds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[64])
    arguments = parser.parse_args()
    open_dataset(DatasetConfig())
    table = Table(title="Training, images/s of one replica (times the textbook loop's, same round)")
    for column in ("network", "batch", "threads", *CONTESTANTS):
        table.add_column(column, justify="left" if column == "network" else "right")
    for contest in CONTESTS:
        for batch in arguments.batch:
            for threads in arguments.threads:
                speeds = measure(contest, batch, threads, arguments.rounds, arguments.steps)
                cells = [f"{median(speeds['textbook']):,.0f}"]
                for contestant in CONTESTANTS[1:]:
                    pairs = zip(speeds[contestant], speeds["textbook"], strict=True)
                    ratio = median(ours / theirs for ours, theirs in pairs)
                    cells.append(f"{median(speeds[contestant]):,.0f} ({ratio:.2f}x)")
                table.add_row(contest.name, str(batch), str(threads), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
