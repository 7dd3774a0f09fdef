"""A trial from its first step to its last, without Ray: train to the next report, evaluate, write a checkpoint."""

from __future__ import annotations

import dataclasses
import math
import platform
import time

import torch

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.labels import LabelsConfig, WeakLabels
from bvae_tune.data.sources import DatasetConfig, load_labels, open_dataset
from bvae_tune.errors import InputError, RunError
from bvae_tune.evaluation import encode_labelled, score
from bvae_tune.search.checkpoints import CheckpointFolder
from bvae_tune.search.records import TrialResult
from bvae_tune.search.storage import STUDY, sees
from bvae_tune.search.task import TrialTask, check_fingerprints
from bvae_tune.training.shared_bank import BankPart, SharedBank


class NotFiniteError(RunError):
    """The loss, a weight or the optimiser's state is not a finite number; the same again on every retry."""


class NodeError(RunError):
    """This node cannot take part: it does not see the study, or its images or labels are others."""


class TrialData:
    """The images and labels of a study, opened once in a worker and kept from trial to trial."""

    def __init__(self) -> None:
        self._opened: tuple[DatasetConfig, LabelsConfig, ImageStore, WeakLabels] | None = None

    def open(self, task: TrialTask) -> tuple[ImageStore, WeakLabels]:
        """The task's images and labels.

        Raises:
            NodeError: they cannot be opened or cached here, or are not those that the study was made with.
        """
        if self._opened is None or self._opened[:2] != (task.dataset, task.labels):
            try:
                store = open_dataset(task.dataset)
                labels = load_labels(task.labels, store)
                check_fingerprints(store, labels, task.fingerprints)
            except (InputError, RunError) as error:
                raise NodeError(f"{platform.node()}: {error}") from error
            self._opened = (task.dataset, task.labels, store, labels)
        return self._opened[2:]


class TrialRun:
    """Runs one task, a report at a time, from its latest checkpoint if there is one.

    Args:
        task: of a trial.
        data: of the worker.
        share: the bank that the trial is to share with others, which are all opened before one of them advances; a
            bank of its own if left out.
    """

    def __init__(self, task: TrialTask, data: TrialData, share: SharedBank | None = None) -> None:
        self.task = task
        self._data = data
        self._share = share or SharedBank()
        self._checkpoints = CheckpointFolder(task.study, task.folder)
        self._opened = False
        self._bank: BankPart | None = None  # none is needed where the trial is found finished
        self._found: TrialResult | None = None  # of the checkpoint, until it is given back
        self._result: TrialResult | None = None
        self._notice: str | None = None  # of the checkpoints

    def open(self) -> None:
        """Find the trial's checkpoint, and its place in the bank.

        Raises:
            NodeError: the study's folder is not visible here, or images or labels are others.
            OSError: the study's folder cannot be read.
        """
        task = self.task
        if self._opened:
            return
        if not sees(task.study, STUDY):
            raise NodeError(f"{platform.node()} does not see {task.study}; all nodes must share the storage")
        store, _ = self._data.open(task)
        found = self._checkpoints.latest()
        checkpoint = found.checkpoint
        if found.damaged:
            on = f"went on from step {checkpoint.result.step}" if checkpoint else "began anew"
            self._notice = f"{', '.join(found.damaged)} cut short or damaged: {on}"
            self._checkpoints.drop(found.damaged)  # or they would count as the latest
        if checkpoint is None or not checkpoint.final:
            device = "cuda" if task.gpu else "cpu"
            self._bank = self._share.join(task.model, task.training, store, task.seeds, device)
        if checkpoint is not None:
            noticed = dataclasses.replace(checkpoint.result, notice=self._notice or checkpoint.result.notice)
            self._result = self._found = noticed
            if self._bank is not None:
                self._bank.load(checkpoint.state)
        self._opened = True

    def advance(self) -> tuple[TrialResult, bool]:
        """The next report, and whether it is the last one.

        The first call after a start gives back the report of the checkpoint that it found, without training: the
        record may not have it yet.

        Raises:
            NodeError, OSError: as for `open`, or the study's folder cannot be written.
            InputError: values that do not go together.
            NotFiniteError: the training diverged.
            RunError: out of memory even one replica at a time.
        """
        torch.set_num_threads(self.task.threads)
        self.open()
        if self._found is not None:
            found, self._found = self._found, None
            return found, self._bank is None
        assert self._bank is not None
        return self._train(self._bank)

    def _train(self, bank: BankPart) -> tuple[TrialResult, bool]:
        task = self.task
        report = bank.train(min(bank.step_count + task.training.report_every, task.training.steps))
        if not bank.finite:
            losses = {"reconstruction": report.reconstruction, "KL": report.kl} | report.further_losses
            told = ", ".join(f"{name} {list(values)}" for name, values in losses.items() if values)
            loss_is_finite = all(math.isfinite(value) for values in losses.values() for value in values)
            what = "a weight or the optimiser's state" if loss_is_finite else "the loss"
            raise NotFiniteError(f"{what} is not finite at step {report.step} ({told}); try a lower learning rate")
        began = time.perf_counter()
        store, labels = self._data.open(task)
        codes = encode_labelled(bank, store, labels)
        trial_score = score(codes, labels, task.metric, task.protocol, task.evaluation_seed)
        before = self._result
        self._result = TrialResult(
            step=report.step,
            images_seen=report.images_seen,
            score=trial_score,
            reconstruction=report.reconstruction,
            kl=report.kl,
            kl_per_latent=report.kl_per_latent,
            images_per_second=report.images_per_second,
            seconds_training=(before.seconds_training if before else 0.0) + report.seconds,
            seconds_evaluating=(before.seconds_evaluating if before else 0.0) + time.perf_counter() - began,
            notice=report.notice or (before.notice if before else self._notice),
            further_losses=report.further_losses,
        )
        final = report.step >= task.training.steps
        self._checkpoints.save(bank.weights() if final else bank.state(), self._result, final)
        return self._result, final
