"""Contestants of a training benchmark, each in a process of its own, measured in turns; and what they train.

A contestant waits while another is measured, and a ratio is taken within each round, so that a machine that slows down
or speeds up meanwhile meets all of them. Several processes may be one contestant: those run at the same time.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import torch
from floor import Floor, wait
from textbook import convolutional, fully_connected, loader, loss
from torch import Tensor

from bvae_tune.data.sources import DatasetConfig, open_dataset
from bvae_tune.models.config import ModelConfig
from bvae_tune.space import load_space
from bvae_tune.training.bank import Bank, has_bfloat16
from bvae_tune.training.config import TrainingConfig
from bvae_tune.training.optimizers import ADAGRAD_START

ROUND_SECONDS = 0.6
# Our training ends with a report, for which all weights are checked; in a study one comes every thousands of steps.
LEAST_STEPS = 20

Measure = Callable[[], float]


@dataclass(frozen=True)
class Setting:
    """What is trained, and where."""

    model: ModelConfig
    training: TrainingConfig
    device: str = "cpu"


@dataclass(frozen=True)
class Contestant:
    """`prepare` is called in the contestant's process and gives what measures images/s; it must be picklable."""

    prepare: Callable[[], Measure]
    threads: int = 1
    processes: int = 1


def networks(batch: int, device: str) -> dict[str, Setting]:
    """The paper's network for the 2D shapes and that of the default search space, by name."""
    default = load_space("shapes")
    both = {
        "fc 1200, Adagrad": (
            ModelConfig("fc", (1200, 1200), latent_size=10),
            TrainingConfig("adagrad", 1e-2, batch_size=batch, steps=10**6),
        ),
        "conv of `shapes`, Adam": (
            default.model,
            TrainingConfig("adam", default.training.learning_rate, batch_size=batch, steps=10**6),
        ),
    }
    return {name: Setting(model, training, device) for name, (model, training) in both.items()}


def textbook(setting: Setting, tuned: bool = False) -> Measure:
    """nn.Module, DataLoader over a TensorDataset, float32, default optimiser settings, but Adagrad begun as ours is.

    The tuned one has a fused optimiser, and bfloat16 products (autocast) where the device has them.
    """
    store = open_dataset(DatasetConfig())
    model, training, device = setting.model, setting.training, setting.device
    if model.architecture == "fc":
        vae = fully_connected(model.layer_widths, model.latent_size, store.dimensions).to(device)
    else:
        vae = convolutional(model.layer_widths, model.latent_size, store.channels).to(device)
    adagrad = partial(torch.optim.Adagrad, initial_accumulator_value=ADAGRAD_START)
    optimizer_class = adagrad if training.optimizer == "adagrad" else torch.optim.Adam
    optimizer = optimizer_class(vae.parameters(), lr=training.learning_rate, fused=True if tuned else None)

    images_by_batch = loader(store, training.batch_size)

    def batches() -> Iterator[Tensor]:
        while True:
            for (images,) in images_by_batch:
                yield images.to(device)

    source = batches()

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=tuned and has_bfloat16(device)):
                value = loss(vae, next(source), 4.0, "bernoulli")
            value.backward()
            optimizer.step()

    return stepping(run, training.batch_size, device)


def bank(setting: Setting, replicas: int = 1) -> Measure:
    """Our own, on all images."""
    ours = _bank(setting, range(replicas))

    def run(steps: int) -> None:
        ours.train(ours.step_count + steps)

    return stepping(run, replicas * setting.training.batch_size, setting.device)


def in_turns(setting: Setting, replicas: int) -> Measure:
    """The same replicas, each alone in a bank, one after the other."""
    alone = [_bank(setting, [seed]) for seed in range(replicas)]

    def run(steps: int) -> None:
        for one in alone:
            one.train(one.step_count + steps)

    return stepping(run, replicas * setting.training.batch_size, setting.device)


def _bank(setting: Setting, seeds: range | list[int]) -> Bank:
    store = open_dataset(DatasetConfig())
    return Bank(setting.model, setting.training, store, list(seeds), [4.0] * len(seeds), device=setting.device)


def limit(setting: Setting, replicas: int = 1, strict: bool = False) -> Measure:
    """What the machine allows."""
    floor = Floor(setting.model, setting.training, replicas, setting.device)
    return lambda: replicas * setting.training.batch_size / floor.seconds(strict)


def stepping(run: Callable[[int], object], images: int, device: str) -> Measure:
    """Measures a run of so many steps as fill a round, of `images` images each."""

    def timed(steps: int) -> float:
        began = time.perf_counter()
        run(steps)
        wait(device)
        return (time.perf_counter() - began) / steps

    timed(2)
    steps = max(LEAST_STEPS, round(ROUND_SECONDS / timed(2)))
    return lambda: images / timed(steps)


def measure(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Images/s of each contestant, a number per round; those of its processes together."""
    open_dataset(DatasetConfig())
    context = multiprocessing.get_context("spawn")
    links: dict[str, list[Connection]] = {}
    processes: list[BaseProcess] = []
    for name, contestant in contestants.items():
        links[name] = []
        for _ in range(contestant.processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, contestant), daemon=True)
            process.start()
            theirs.close()  # so that a contestant that dies is heard of
            ours.recv()
            links[name].append(ours)
            processes.append(process)
    speeds: dict[str, list[float]] = {name: [] for name in links}
    for _ in range(rounds):
        for name, ends in links.items():
            for end in ends:
                end.send(True)
            speeds[name].append(sum(end.recv() for end in ends))
    for ends in links.values():
        for end in ends:
            end.send(False)
    for process in processes:
        process.join()
    return speeds


def _serve(link: Connection, contestant: Contestant) -> None:
    """Answer each request with images/s, until told to end."""
    torch.set_num_threads(contestant.threads)
    answer = contestant.prepare()
    link.send(None)
    while link.recv():
        link.send(answer())
