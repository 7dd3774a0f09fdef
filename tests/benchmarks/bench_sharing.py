"""Many at once: a bank of replicas against its replicas in turns, and two trials with a core each against one with two.

On a GPU instead: a bank against ten textbook processes that share the GPU, against one of them (which is what they
give one after the other), and against the floor.

    python tests/benchmarks/bench_sharing.py [--rounds 5] [--batch 64] [--replicas 10] [--device cuda]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

import table
import torch
from contest import Contestant, bank, in_turns, limit, measure, networks, textbook

TEXTBOOKS = 10


def on_cores(arguments: argparse.Namespace) -> Iterator[table.Line]:
    """A bank on one core, and two cores shared."""
    for batch in arguments.batch or [16, 64]:
        for name, setting in networks(batch, "cpu").items():
            replicas = (arguments.replicas or [10])[0]
            speeds = measure(
                {
                    "bank": Contestant(partial(bank, setting, replicas)),
                    "in turns": Contestant(partial(in_turns, setting, replicas)),
                    "a core each": Contestant(partial(bank, setting), threads=1, processes=2),
                    "two cores": Contestant(partial(bank, setting), threads=2),
                },
                arguments.rounds,
            )
            yield table.line(
                f"{name}, batch {batch}, bank of {replicas}", "images/s",
                speeds["bank"], speeds["in turns"], "in turns", target="never slower",
            )  # fmt: skip
            yield table.line(
                f"{name}, batch {batch}, two trials with a core each", "images/s",
                speeds["a core each"], speeds["two cores"], "one trial, two cores", target="the better is the default",
            )  # fmt: skip


def on_gpu(arguments: argparse.Namespace) -> Iterator[table.Line]:
    """A bank on one GPU."""
    for batch in arguments.batch or [64, 256]:
        for name, setting in networks(batch, arguments.device).items():
            for replicas in arguments.replicas or [10, 40]:
                speeds = measure(
                    {
                        "bank": Contestant(partial(bank, setting, replicas)),
                        "at once": Contestant(partial(textbook, setting), processes=TEXTBOOKS),
                        "in turns": Contestant(partial(textbook, setting)),
                        "limit": Contestant(partial(limit, setting, replicas)),
                    },
                    arguments.rounds,
                )
                for rival, words in (
                    ("at once", f"{TEXTBOOKS} textbook processes"),
                    ("in turns", "one textbook process"),
                ):
                    yield table.line(
                        f"{name}, batch {batch}, bank of {replicas}", "images/s",
                        speeds["bank"], speeds[rival], words, speeds["limit"], "floor", "1.5x the limit",
                    )  # fmt: skip


def lines(arguments: argparse.Namespace) -> Iterator[table.Line]:
    """What is shared there."""
    yield from on_cores(arguments) if arguments.device == "cpu" else on_gpu(arguments)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+")
    parser.add_argument("--replicas", type=int, nargs="+")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    table.main(lines, parser, "Replicas and trials that share a machine")
