"""One bank for several trials that differ in β alone: a column of Fig. 5 right is one program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bvae_tune.data.image_store import ImageStore
from bvae_tune.models.codes import Codes
from bvae_tune.models.config import ModelConfig, beta_of
from bvae_tune.training.bank import Bank, TrainingReport
from bvae_tune.training.config import TrainingConfig


class SharedBank:
    """The replicas of trials that share network and training, each trial with its own seeds and its own β.

    All trials join before one of them trains. Those that stand at the same step then train as one bank; where a kill
    left some behind, these train apart. A trial that diverges is computed to the end with the others.
    """

    def __init__(self) -> None:
        self._waiting: list[BankPart] = []

    def join(
        self, model: ModelConfig, training: TrainingConfig, store: ImageStore, seeds: Sequence[int], device: str
    ) -> BankPart:
        """The replicas of one more trial; arguments as for `Bank`."""
        part = BankPart(self, model, training, store, tuple(seeds), device)
        self._waiting.append(part)
        return part

    def place(self, part: BankPart) -> _Joint:
        """The bank of a part and of all that have joined and stand where it does."""
        level = [other for other in self._waiting if other.step_count == part.step_count]
        self._waiting = [other for other in self._waiting if other not in level]
        joint, start = _Joint(level), 0
        for each in level:
            each.joint, each.replicas = joint, slice(start, start + len(each.seeds))
            start += len(each.seeds)
        return joint


class _Joint:
    """A bank, made when it first trains. What fails in it fails for all its parts: they stand at different steps."""

    def __init__(self, parts: Sequence[BankPart]) -> None:
        self._parts = parts
        self._bank: Bank | None = None
        self._report: TrainingReport | None = None
        self._error: Exception | None = None

    @property
    def bank(self) -> Bank:
        """The bank of all replicas.

        Raises:
            InputError: as for `Bank`, and for `Bank.load`.
        """
        if self._bank is None:
            first = self._parts[0]
            betas = [part.beta for part in self._parts for _ in part.seeds] if first.model.has_beta else None
            seeds = [seed for part in self._parts for seed in part.seeds]
            bank = Bank(first.model, first.training, first.store, seeds, betas, device=first.device)
            states = [part.loaded for part in self._parts if part.loaded is not None]
            if states:
                tensors = {name: torch.cat([state[name] for state in states]) for name in states[0] if name != "step"}
                bank.load({**tensors, "step": states[0]["step"]})
            for part in self._parts:
                part.loaded = None
            self._bank = bank
        return self._bank

    def train(self, until_step: int) -> TrainingReport:
        """What the bank's training up to that step reports; done once."""
        if self._error is not None:
            raise self._error
        try:
            if self._report is None or self._report.step < until_step:
                self._report = self.bank.train(until_step)
        except Exception as error:
            self._error = error
            raise
        assert self._report.step == until_step, "a trial of a bank is two reports ahead of another"
        return self._report


class BankPart:
    """The replicas of one trial in a `SharedBank`: a bank of its own to whoever trains, scores and keeps it.

    Time is shared out: a report has the part's share of the seconds.

    Attributes:
        seeds: one replica each.
        step_count: steps trained, so far as the trial has asked for them.
    """

    def __init__(
        self,
        share: SharedBank,
        model: ModelConfig,
        training: TrainingConfig,
        store: ImageStore,
        seeds: tuple[int, ...],
        device: str,
    ) -> None:
        self.model, self.training, self.store, self.seeds, self.device = model, training, store, seeds, device
        self.step_count = 0
        self.loaded: Mapping[str, Tensor] | None = None
        self.joint: _Joint | None = None
        self.replicas = slice(0, 0)
        self._share = share

    @property
    def beta(self) -> float:
        """β of all replicas of the trial."""
        return beta_of(self.model, self.store.dimensions)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave; before the first training."""
        self.loaded, self.step_count = state, int(state["step"])

    def train(self, until_step: int) -> TrainingReport:
        """As `Bank.train`; trials of one bank take turns, and all but the first of a round find it trained."""
        report, some = self._placed.train(until_step), self.replicas
        self.step_count = until_step
        share = len(self.seeds) / len(self._placed.bank.seeds)
        return dataclasses.replace(
            report,
            seconds=share * report.seconds,
            images_per_second=share * report.images_per_second,
            loss=report.loss[some],
            reconstruction=report.reconstruction[some],
            kl=report.kl[some],
            kl_per_latent=report.kl_per_latent[some],
            further_losses={name: losses[some] for name, losses in report.further_losses.items()},
        )

    @property
    def finite(self) -> bool:
        """Whether every loss, parameter and value of the optimiser's state of these replicas has been finite."""
        return all(self._placed.bank.finite[self.replicas])

    def encode(self, images: Tensor) -> Codes:
        """Images (R or 1, n, D) in [0, 1] -> codes (R, n, M)."""
        return self._placed.bank.trained(self.replicas).encode(images)

    def weights(self) -> dict[str, Tensor]:
        """As `Bank.weights`."""
        return self._placed.bank.weights(self.replicas)

    def state(self) -> dict[str, Tensor]:
        """As `Bank.state`."""
        return self._placed.bank.state(self.replicas)

    @property
    def _placed(self) -> _Joint:
        return self.joint or self._share.place(self)
