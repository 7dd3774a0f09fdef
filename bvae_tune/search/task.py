"""What a worker is told of a trial. Without torch and Ray, for the driver's sake: it trains nothing."""

from __future__ import annotations

from dataclasses import dataclass

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.labels import LabelsConfig, WeakLabels
from bvae_tune.data.sources import DatasetConfig
from bvae_tune.errors import InputError
from bvae_tune.metrics.config import MetricConfig, ProtocolConfig
from bvae_tune.models.config import ModelConfig
from bvae_tune.training.config import TrainingConfig


@dataclass(frozen=True)
class TrialTask:
    """All that a worker needs to run a trial anywhere.

    Attributes:
        study: the study's folder, absolute path or URI.
        folder: the trial's checkpoints, relative to it.
        model, training: of this trial.
        seeds: one replica each.
        evaluation_seed: of the pairs and classifiers.
        dataset, labels: as in the study; `fingerprints` are those of the images and labels it was made with.
        metric, protocol: of the study.
        threads: CPU threads of the worker.
        gpu: whether the trial was given one, or a share.
    """

    study: str
    folder: str
    model: ModelConfig
    training: TrainingConfig
    seeds: tuple[int, ...]
    evaluation_seed: int
    dataset: DatasetConfig
    labels: LabelsConfig
    fingerprints: tuple[str, str]
    metric: MetricConfig
    protocol: ProtocolConfig
    threads: int = 1
    gpu: bool = False


def check_fingerprints(store: ImageStore, labels: WeakLabels, expected: tuple[str, str]) -> None:
    """Raises InputError where images or labels are not the ones of the study."""
    found = (store.fingerprint, labels.fingerprint)
    for what, mine, wanted in zip(("images", "labels"), found, expected, strict=True):
        if mine != wanted:
            raise InputError(
                f"the {what} are not those that this study was made with ({mine[:12]}, not {wanted[:12]}); "
                f"bring them back, or start a new study"
            )
