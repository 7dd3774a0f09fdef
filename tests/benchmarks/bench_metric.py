"""Time of the metric against the loop that follows Eq. 5 word by word: pair by pair, each image encoded anew.

Both score the same untrained network of the default space on 5,000 labelled images of the 2D shapes. Ours is timed in
full: encoding the labelled images, B = 10,000 + 5,000 points, the fit and the test. The loop would take minutes, so it
makes a few hundred points and leaves out the classifier; what is compared is the time per z_diff point. One thread,
medians over turns taken side by side, the ratio that of each turn. Seeds: labels 0, network 0, pairs 0.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.labels import LabelsConfig, WeakLabels, draw_labels
from bvae_tune.data.sources import DatasetConfig, open_dataset
from bvae_tune.evaluation import encode_labelled, score
from bvae_tune.metrics.config import MetricConfig, ProtocolConfig
from bvae_tune.models.networks import Encoder, TrainedModel, build_network, initial_parameters
from bvae_tune.space import load_space

TURNS = 7
# L -> points that the loop makes in one turn, and the ratio to reach.
LOOP_POINTS = {64: 64, 16: 256, 4: 1_024}
TARGETS = {64: "at least 100", 16: "at least 40", 4: "none"}
BATCH = 256


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def pair_by_pair(
    encoder: Encoder, store: ImageStore, labels: WeakLabels, points: int, pairs: int
) -> NDArray[np.float32]:
    """z_diff (points, M), each pair drawn and each of its images encoded for itself, BATCH images at a time."""
    rng = np.random.default_rng(0)
    firsts, partners = [], []
    for _ in range(points):
        y = rng.integers(len(labels.names))
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
        images = store.gather(labels.indices[firsts[here] + partners[here]])
        mean = encoder.encode(images[None]).mean[0]
        half = len(mean) // 2
        changes.append((mean[:half] - mean[half:]).abs())
    return torch.cat(changes).unflatten(0, (points, pairs)).mean(dim=1).numpy()


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    store = open_dataset(DatasetConfig())
    labels = draw_labels(store, LabelsConfig(5_000, ("position_x", "position_y", "scale", "rotation")))
    model = load_space("shapes").model
    network = build_network(model, store.channels, store.height, store.width)
    encoder = TrainedModel(model, network, initial_parameters(network, seeds=(0,)))

    def ours(metric: MetricConfig, protocol: ProtocolConfig) -> None:
        score(encode_labelled(encoder, store, labels), labels, metric, protocol, 0)

    one = ProtocolConfig(classifier_seeds=1)
    total = MetricConfig().train_points + MetricConfig().test_points
    ours(MetricConfig(), ProtocolConfig())
    for pairs, points in LOOP_POINTS.items():
        single = MetricConfig(pairs=pairs, profile=())
        looped, mine = [], []
        for _ in range(TURNS):
            looped.append(
                seconds(lambda pairs=pairs, points=points: pair_by_pair(encoder, store, labels, points, pairs))
            )
            mine.append(seconds(lambda single=single: ours(single, one)))
        theirs = [1e6 * taken / points for taken in looped]
        here = [1e6 * taken / total for taken in mine]
        ratio = statistics.median(other / own for other, own in zip(theirs, here, strict=True))
        print(
            f"L = {pairs:2}: loop {statistics.median(theirs):8.1f} us a point ({points} points, no classifier), "
            f"ours {statistics.median(here):5.1f} us a point ({total} points in {statistics.median(mine):.2f} s), "
            f"ratio {ratio:6.1f}, target {TARGETS[pairs]}"
        )
    evaluating, scoring = [], []
    codes = encode_labelled(encoder, store, labels)
    for _ in range(TURNS):
        evaluating.append(seconds(lambda: ours(MetricConfig(), ProtocolConfig())))
        scoring.append(seconds(lambda: score(codes, labels, MetricConfig(), ProtocolConfig(), 0)))
    print(
        f"default evaluation (3 seeds, L = 1, 4, 16, 64, MIG, information): {statistics.median(evaluating):.2f} s with "
        f"encoding, {statistics.median(scoring):.2f} s without, target under 2 s"
    )


if __name__ == "__main__":
    main()
