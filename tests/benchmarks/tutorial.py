"""A study by the pattern of Ray Tune's tutorial: a function trainable, a DataLoader, OptunaSearch, a process per trial.

The network is the textbook's, and the metric is as the paper words it: pair by pair, with scikit-learn's classifier.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
from bench_metric import pair_by_pair
from floor import wait
from ray import tune
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch
from sklearn.linear_model import LogisticRegression
from textbook import convolutional, loader, loss

from bvae_tune.data.sources import load_labels, open_dataset
from bvae_tune.models.networks import Codes
from bvae_tune.space import StudyConfig


@dataclass(frozen=True)
class Run:
    """Wall seconds of a study, and the seconds that its trials trained and scored, over all of them."""

    trials: int
    wall: float
    training: float
    scoring: float

    @property
    def rest(self) -> float:
        """Seconds that a trial's core, one of two, did neither."""
        return (2 * self.wall - self.training - self.scoring) / self.trials


def tutorial(space: StudyConfig, storage: str, device: str) -> Run:
    """By Ray Tune as its tutorial uses it; on a GPU, two trials share it."""
    began = time.perf_counter()
    ray.init(include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(partial(_trial, space=space, device=device), {"cpu": 1, "gpu": 0.5 * (device != "cpu")}),
        param_space={"beta": tune.loguniform(0.25, 128), "latent_size": tune.randint(2, 21)},
        tune_config=tune.TuneConfig(
            metric="score",
            mode="max",
            num_samples=space.search.trials,
            search_alg=ConcurrencyLimiter(OptunaSearch(seed=0), 2),
        ),
        run_config=tune.RunConfig(storage_path=storage, verbose=0),
    )
    found = tuner.fit()
    if found.errors:
        raise found.errors[0]
    metrics: list[dict[str, Any]] = [result.metrics for result in found if result.metrics]
    ray.shutdown()
    return Run(
        space.search.trials,
        time.perf_counter() - began,
        sum(row["training"] for row in metrics),
        sum(row["scoring"] for row in metrics),
    )


def _trial(values: dict[str, Any], space: StudyConfig, device: str) -> None:
    store = open_dataset(space.dataset)
    labels = load_labels(space.labels, store)
    batches = loader(store, space.training.batch_size)
    vae = convolutional(space.model.layer_widths, values["latent_size"], store.channels).to(device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=space.training.learning_rate)
    began, step = time.perf_counter(), 0
    while step < space.training.steps:
        for (batch,) in batches:
            optimizer.zero_grad()
            loss(vae, batch.to(device), values["beta"], "bernoulli").backward()
            optimizer.step()
            step += 1
            if step == space.training.steps:
                break
    wait(device)
    trained = time.perf_counter()

    class Means:
        @torch.no_grad()
        def encode(self, images: torch.Tensor) -> Codes:
            return Codes(vae.encoder(images.view(-1, 1, 64, 64)).chunk(2, dim=1)[0][None], None)

    def points(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return pair_by_pair(Means(), store, labels, count, space.metric.pairs, seed, device)

    changes, factors = points(space.metric.train_points, 0)
    tested, truth = points(space.metric.test_points, 1)
    score = LogisticRegression(max_iter=1_000).fit(changes, factors).score(tested, truth)
    tune.report({"score": score, "training": trained - began, "scoring": time.perf_counter() - trained})
