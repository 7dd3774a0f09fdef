"""Training speed of one replica: against PyTorch as a textbook writes it, as a tuner of loops writes it, and the floor.

The table shows medians over rounds; how they are taken, `contest.py` says, and what the floor is, `floor.py`. Our
bfloat16 is left out where the device has no such products, and so is the tuned loop's.

    python tests/benchmarks/bench_training.py [--rounds 5] [--threads 1 2] [--batch 64 256] [--device cuda]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import table
import torch
from contest import Contestant, Setting, bank, limit, measure, networks, textbook

from bvae_tune.training.bank import has_bfloat16

TARGETS = {"fc": "1.4x the limit", "conv": "2.5x the limit"}


def contestants(setting: Setting, threads: int) -> dict[str, Contestant]:
    """The two rivals, and each precision of ours with its limit."""
    found = {"textbook": partial(textbook, setting), "tuned": partial(textbook, setting, tuned=True)}
    for precision in precisions(setting.device):
        rounded = replace(setting, training=replace(setting.training, precision=precision))
        found |= {precision: partial(bank, rounded), f"{precision} limit": partial(limit, rounded)}
        found[f"{precision} strict limit"] = partial(limit, rounded, strict=True)
    return {name: Contestant(prepare, threads) for name, prepare in found.items()}


def precisions(device: str) -> list[str]:
    """Those that the device has products for."""
    return ["float32", "bfloat16"] if has_bfloat16(device) else ["float32"]


def lines(arguments: argparse.Namespace) -> Iterator[table.Line]:
    """Each precision against both rivals."""
    for batch in arguments.batch:
        for name, setting in networks(batch, arguments.device).items():
            for threads in arguments.threads if arguments.device == "cpu" else arguments.threads[:1]:
                speeds = measure(contestants(setting, threads), arguments.rounds)
                for ours in precisions(arguments.device):
                    what = f"{name}, batch {batch}, {threads} thread{'s' * (threads > 1)}, {ours}"
                    target = TARGETS[setting.model.architecture]
                    for rival, floor, asked in (("textbook", "limit", target), ("tuned", "strict limit", "")):
                        yield table.line(
                            what, "images/s", speeds[ours], speeds[rival], rival,
                            speeds[f"{ours} {floor}"], floor.replace("limit", "floor"), asked,
                        )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    table.main(lines, parser, "Training, one replica")
