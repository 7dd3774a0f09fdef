"""How a network is trained. Without torch, so that a search space is checked fast."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bvae_tune.errors import InputError
from bvae_tune.models.config import ModelConfig

_CHOICES = {
    "optimizer": ("adagrad", "adam", "rmsprop"),
    "schedule": ("constant", "cosine"),
    "precision": ("float32", "bfloat16"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """Optimiser, schedule and length of a training.

    Attributes:
        optimizer: "adagrad", "adam" or "rmsprop", with PyTorch's constants, but Adagrad's sums of squares begin at 0.1.
        learning_rate: its peak. InfoGAN's discriminator and recognition have a fifth of it (Table 1: 2e-4 for 1e-3).
        schedule: "constant", or "cosine" decay from the end of the warm-up to zero at `steps`.
        warmup: share of `steps` over which the learning rate rises linearly to its peak.
        batch_size: images of a step, per replica.
        steps: length of the training in steps; 0 leaves the network untrained.
        report_every: steps between two evaluations.
        precision: of the matrix products; parameters, sums and the loss stay float32. On a GPU float32 is PyTorch's
            default: convolutions may use TF32, matrix products do not.
        beta_anneal: share of `steps` over which β rises linearly from 0 to its value; 0 keeps it constant.

    Raises:
        InputError: a value outside its range.
    """

    optimizer: Literal["adagrad", "adam", "rmsprop"] = "adam"
    learning_rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0
    batch_size: int = 64
    steps: int = 10_000
    report_every: int = 2_500
    precision: Literal["float32", "bfloat16"] = "float32"
    beta_anneal: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"training.{name}: {getattr(self, name)!r} is not one of {', '.join(allowed)}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"training.learning_rate: {self.learning_rate} must be greater than 0, and finite")
        for name, least in (("batch_size", 1), ("steps", 0), ("report_every", 1)):
            if getattr(self, name) < least:
                raise InputError(f"training.{name}: {getattr(self, name)} must be at least {least}")
        for name in ("warmup", "beta_anneal"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"training.{name}: {getattr(self, name)} must be a share of the steps, from 0 to 1")


def check_training(model: ModelConfig, training: TrainingConfig) -> None:
    """Refuse settings that the model does not have.

    Raises:
        InputError: DC-IGN or InfoGAN in bfloat16; InfoGAN with another optimiser than Adam, with an annealed β, or with
            single images, which batch normalisation cannot take.
    """
    if model.architecture in ("dcign", "infogan") and training.precision != "float32":
        raise InputError(f"training.precision: {training.precision!r}; {model.architecture} is trained in float32")
    if model.architecture != "infogan":
        return
    if training.optimizer != "adam":
        raise InputError(f"training.optimizer: {training.optimizer!r}; infogan is trained with adam (Table 1)")
    if training.beta_anneal:
        raise InputError(f"training.beta_anneal: {training.beta_anneal}; infogan has no β: take it out")
    if training.batch_size < 2:
        raise InputError(
            f"training.batch_size: {training.batch_size}; infogan normalises over the batch, give at least 2"
        )


def learning_rate_at(training: TrainingConfig, step: int) -> float:
    """Learning rate of step `step` (0 is the first): linear warm-up, then constant or a cosine to zero."""
    warmup_steps = round(training.warmup * training.steps)
    if step < warmup_steps:
        return training.learning_rate * (step + 1) / warmup_steps
    if training.schedule == "constant":
        return training.learning_rate
    progress = (step - warmup_steps) / max(1, training.steps - warmup_steps)
    return training.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def beta_share_at(training: TrainingConfig, step: int) -> float:
    """Share of its final value that β has at step `step` (0 is the first); 1 unless `beta_anneal` is set."""
    return min(1.0, step / (training.beta_anneal * training.steps)) if training.beta_anneal * training.steps else 1.0
