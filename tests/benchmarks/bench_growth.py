"""How time and memory grow with the number of images, the latent size M and the replicas R.

A step of the default space's network and an evaluation, on one thread, each size in a process of its own, whose highest
memory is what counts (on a GPU, the highest there). The sizes take turns, and medians over rounds are shown. The
exponent is that of what is added to the smallest size: 0 does not grow, 1 is linear. Seed 0.

    python tests/benchmarks/bench_growth.py [--rounds 3] [--device cuda]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import table
import torch
from measuring import apart, peak_memory, seconds

from bvae_tune.data.image_store import ImageStore, open_store, write_store
from bvae_tune.data.sources import DatasetConfig, load_labels, open_dataset
from bvae_tune.evaluation import encode_labelled, score
from bvae_tune.space import load_space
from bvae_tune.training.bank import Bank

SIZES = {
    "images": (10_000, 100_000, 737_280),
    "latent_size": (2, 8, 32, 128),
    "replicas": (1, 4, 10, 40),
}
NAMES = {"images": "images", "latent_size": "M", "replicas": "R"}
STEPS = 30


def some_images(count: int, path: Path) -> ImageStore:
    """A store of the first so many of the 2D shapes, in an order of seed 0."""
    shapes = open_dataset(DatasetConfig())
    chosen = np.sort(np.random.default_rng(0).permutation(shapes.count)[:count])
    space = shapes.factor_space
    return write_store(
        path, shapes.packed[chosen], name="some", size=(1, 64, 64), bits=1,
        factors=shapes.factors(chosen), factor_space=space,
    )  # fmt: skip


def cost(latent_size: int, replicas: int, path: Path, device: str) -> dict[str, float]:
    """Seconds of opening the images, of a step and of an evaluation; bytes at most."""
    torch.set_num_threads(1)
    space = load_space("shapes")

    opening = seconds(lambda: open_store(path))
    store = open_store(path)
    labels = load_labels(space.labels, store)
    model = dataclasses.replace(space.model, latent_size=latent_size)
    bank = Bank(model, space.training, store, range(replicas), [4.0] * replicas, device=device)
    bank.train(3)
    step = seconds(lambda: bank.train(bank.step_count + STEPS)) / STEPS
    evaluation = seconds(lambda: score(encode_labelled(bank, store, labels), labels, space.metric, space.protocol, 0))
    memory = torch.cuda.max_memory_allocated() if torch.device(device).type == "cuda" else peak_memory()
    return {"opening": opening, "step": step, "evaluation": evaluation, "memory": memory}


def lines(arguments: argparse.Namespace) -> Iterator[table.Line]:
    """Each size, then how it grows."""
    base = {"images": 100_000, "latent_size": 10, "replicas": 1}
    with tempfile.TemporaryDirectory() as folder:
        for key, sizes in SIZES.items():
            found: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
            for _ in range(arguments.rounds):
                for size in sizes:
                    setting = base | {key: size}
                    path, count = Path(folder) / f"{setting['images']}.arrow", setting.pop("images")
                    writing = seconds(lambda count=count, path=path: some_images(count, path))
                    found[size].append(
                        apart(cost, **setting, path=path, device=arguments.device) | {"writing": writing}
                    )
            measured = ["writing", "opening", "step", "memory"] if key == "images" else ["step", "evaluation", "memory"]
            for what in measured:
                values = [median(one[what] for one in found[size]) for size in sizes]
                scale, unit = (1e-6, "MB") if what == "memory" else (1e3, "ms")
                shown = ", ".join(f"{table.figure(value * scale)}" for value in values)
                among = f"{NAMES[key]} = {', '.join(f'{size:,}' for size in sizes)}"
                yield table.line(
                    f"{what} ({shown} {unit}) over {among}", "exponent", [table.exponent(sizes, values)],
                    target="1 or less",
                )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    table.main(lines, parser, "Growth")
