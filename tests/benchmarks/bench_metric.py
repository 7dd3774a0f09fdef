"""Time of the metric: against the loop that follows Eq. 5 word by word, and as a share of the trial that it scores.

The loop draws pair by pair and encodes each image anew. Both score the same untrained network of the default space on
5,000 labelled images of the 2D shapes. Ours is timed in full: encoding the labelled images, B = 10,000 + 5,000 points,
the fit and the test. The loop would take minutes, so it makes a few hundred points and leaves out the classifier; what
is compared is the time per z_diff point. One thread. Seeds: labels 0, network 0, pairs 0.

    python tests/benchmarks/bench_metric.py [--rounds 5] [--device cuda]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import table
import torch
from measuring import seconds
from numpy.typing import NDArray

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.labels import WeakLabels
from bvae_tune.data.sources import load_labels, open_dataset
from bvae_tune.evaluation import encode_labelled, score
from bvae_tune.metrics.config import MetricConfig, ProtocolConfig
from bvae_tune.models.networks import Encoder
from bvae_tune.space import load_space
from bvae_tune.training.bank import Bank

# L -> points that the loop makes in one turn, and the ratio to reach.
LOOP_POINTS = {64: 64, 16: 256, 4: 1_024}
TARGETS = {64: "100x", 16: "40x", 4: ""}
BATCH = 256
STEPS = 200  # of training, to know what a step takes


def pair_by_pair(
    encoder: Encoder, store: ImageStore, labels: WeakLabels, points: int, pairs: int, seed: int = 0, device: str = "cpu"
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """z_diff (points, M) and y (points,), each pair drawn and each image encoded for itself, BATCH at a time."""
    rng = np.random.default_rng(seed)
    firsts, partners, factors = [], [], rng.integers(len(labels.names), size=points)
    for y in factors:
        for _ in range(pairs):
            first = rng.integers(len(labels.indices))
            equals = np.flatnonzero(labels.factors[:, y] == labels.factors[first, y])
            second = first
            while second == first:
                second = rng.choice(equals)
            firsts.append(first)
            partners.append(second)
    changes = []
    for start in range(0, len(firsts), BATCH // 2):
        here = slice(start, start + BATCH // 2)
        images = store.gather(labels.indices[firsts[here] + partners[here]], device)
        mean = encoder.encode(images[None]).mean[0]
        half = len(mean) // 2
        changes.append((mean[:half] - mean[half:]).abs())
    return torch.cat(changes).unflatten(0, (points, pairs)).mean(dim=1).numpy(force=True), factors


def lines(arguments: argparse.Namespace) -> Iterator[table.Line]:
    """Points against the loop, an evaluation against its trial, and ten replicas against one."""
    torch.set_num_threads(1)
    space, device = load_space("shapes"), arguments.device
    store = open_dataset(space.dataset)
    labels = load_labels(space.labels, store)

    def untrained(replicas: int) -> Bank:
        return Bank(space.model, space.training, store, range(replicas), [1.0] * replicas, device=device)

    def evaluate(encoder: Encoder, metric: MetricConfig, protocol: ProtocolConfig) -> None:
        score(encode_labelled(encoder, store, labels), labels, metric, protocol, 0)

    one, single = untrained(1), ProtocolConfig(classifier_seeds=1)
    total = MetricConfig().train_points + MetricConfig().test_points
    evaluate(one, space.metric, space.protocol)
    for pairs, points in LOOP_POINTS.items():
        metric = MetricConfig(pairs=pairs, profile=())
        theirs, ours = [], []
        for _ in range(arguments.rounds):
            loop = seconds(
                lambda pairs=pairs, points=points: pair_by_pair(one, store, labels, points, pairs, device=device)
            )
            theirs.append(1e6 * loop / points)
            ours.append(1e6 * seconds(lambda metric=metric: evaluate(one, metric, single)) / total)
        yield table.line(f"metric, L = {pairs}", "us a point", ours, theirs, "pair by pair", target=TARGETS[pairs])

    shares, whole, tenth = [], [], []
    ten = untrained(10)
    for _ in range(arguments.rounds):
        training = seconds(lambda: one.train(one.step_count + STEPS)) / STEPS * space.training.report_every
        evaluating = seconds(lambda: evaluate(one, space.metric, space.protocol))
        shares.append(100 * evaluating / (training + evaluating))
        whole.append(evaluating)
        tenth.append(seconds(lambda: evaluate(ten, space.metric, space.protocol)) / 10)
    seeds, profile = space.protocol.classifier_seeds, ", ".join(map(str, space.metric.profile))
    what = f"evaluation in `shapes` ({seeds} classifiers, L = {space.metric.pairs} and {profile})"
    yield table.line(what, "s", whole)
    yield table.line("the same, a replica of ten", "s", tenth, whole, "one alone")
    cadence = f"every {space.training.report_every:,} steps"
    yield table.line(f"its share of a trial's time, {cadence}", "%", shares, target="under 5 %")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    table.main(lines, parser, "The metric")
