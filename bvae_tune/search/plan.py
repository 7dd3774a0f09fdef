"""What a search will take, before it starts: sizes are counted, times and memory are measured on a few steps here."""

from __future__ import annotations

import heapq
import json
import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import psutil

from bvae_tune.data.sources import load_labels, open_dataset
from bvae_tune.errors import RunError
from bvae_tune.metrics.factor_change import pair_tables
from bvae_tune.models.config import TABLE_1_WIDTHS, ModelConfig
from bvae_tune.search.checkpoints import KEPT_WHILE_RUNNING
from bvae_tune.search.cluster import Placement, placement_on
from bvae_tune.search.sampling import bank_sizes
from bvae_tune.space import StudyConfig, configure
from bvae_tune.space_config import Distribution, Scalar
from bvae_tune.training.config import TrainingConfig
from bvae_tune.wording import counted

if TYPE_CHECKING:
    from bvae_tune.data.image_store import ImageStore

MEASURED_SECONDS = 3.0
# An allowance for Ray's start and the workers' imports, once a study; not measured.
START_SECONDS = 8.0
# Journal, event files and results, per report and replica of a trial; and the figures (measured: 3 kB, 150 kB).
_BYTES_PER_REPORT = 4_000
_BYTES_PER_STUDY = 200_000
_LEAST_COPIES = 3  # of the parameters, in training: themselves, their gradients, a slot of the optimiser


@dataclass(frozen=True)
class Calibration:
    """A few steps of one trial, or of a bank of trials, measured.

    Attributes:
        parameters: of one replica.
        weights_bytes, checkpoint_bytes: of a trial's replicas; the checkpoint has the optimiser's state too.
        memory_bytes: what the process held of its own: not the images' file, which all trials of a machine share.
        gpu_bytes: the most that was allocated on the GPU, images included; 0 on a CPU.
        seconds_per_step, seconds_per_report: training, and evaluating once; a trial's share of its bank's.
    """

    parameters: int
    weights_bytes: int
    checkpoint_bytes: int
    memory_bytes: int
    gpu_bytes: int
    seconds_per_step: float
    seconds_per_report: float


@dataclass(frozen=True)
class Plan:
    """What a search will take. Where sizes are searched, this is the costliest trial that the space allows.

    Attributes:
        trials, controls: to run; pruned ones count in full.
        replicas: of each.
        steps, reports: of a trial.
        placement: what a trial gets, and how many run at once.
        trials_per_bank: that share what a trial gets; such a bank counts as one of those at once.
        labelled: images with labels.
        factors: those that take part -> how many values the labelled images show of each.
        unusable: those that take no part -> why.
        chance: the score of guessing.
        images_bytes: the dataset's file.
        calibration: the measured trial.
        measured_at_once: so many trials, or banks, were measured side by side.
        memory_bytes: of all trials at once; memory_free_bytes: what this machine has free.
        disk_bytes: of the study's folder when it ends; peak_disk_bytes: while it runs.
        seconds_per_trial, seconds: of a trial, and of the study.
    """

    trials: int
    controls: int
    replicas: int
    steps: int
    reports: int
    placement: Placement
    trials_per_bank: int
    labelled: int
    factors: dict[str, int]
    unusable: dict[str, str]
    chance: float
    images_bytes: int
    calibration: Calibration
    measured_at_once: int
    memory_bytes: int
    memory_free_bytes: int
    disk_bytes: int
    peak_disk_bytes: int
    seconds_per_trial: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data, safe for JSON."""
        return asdict(self)


def make_plan(config: StudyConfig) -> Plan:
    """Measure a few steps of the costliest trial, as many at once as would run, and count the rest.

    The dataset must be there (`open_dataset` builds it). Takes about ten seconds.

    Raises:
        InputError: images, labels, model and resources do not go together.
        RunError: memory did not suffice.
    """
    import torch

    from bvae_tune.models.networks import parameter_count

    store = open_dataset(config.dataset)
    labels = load_labels(config.labels, store)
    tables = pair_tables(labels.factors, labels.names)
    node = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
    banks = bank_sizes(config)
    trained_baselines = sum(label != "untrained" for label in config.search.baselines)
    placement = placement_on(config.resources, len(banks) + trained_baselines, [node], embedded=True)
    model, training = costliest(config)
    trials, together = sum(banks), max(banks)
    at_once = min(placement.concurrent, len(banks))
    parameters = parameter_count(model, store.channels, store.height, store.width)
    _check_memory(at_once, at_once * together * config.protocol.replicas * parameters, on_gpu=placement.gpus > 0)
    calibration = calibrate(config, model, training, placement, at_once)
    controls = len(config.search.baselines)
    reports = max(1, math.ceil(training.steps / training.report_every))
    seconds_per_trial = training.steps * calibration.seconds_per_step + reports * calibration.seconds_per_report
    record = _BYTES_PER_STUDY + (trials + controls) * reports * config.protocol.replicas * _BYTES_PER_REPORT
    # The best trials, the best that represents every factor, and the trained baselines.
    kept = (min(config.search.keep_models + 1, trials) + trained_baselines) * calibration.weights_bytes
    return Plan(
        trials=trials,
        controls=controls,
        replicas=config.protocol.replicas,
        steps=training.steps,
        reports=reports,
        placement=placement,
        trials_per_bank=together,
        labelled=len(labels.indices),
        factors={labels.names[k]: len(set(labels.factors[:, k].tolist()) - {-1}) for k in tables.factors},
        unusable=tables.unusable,
        chance=tables.chance,
        images_bytes=store.path.stat().st_size,
        calibration=calibration,
        measured_at_once=at_once,
        memory_bytes=at_once * calibration.memory_bytes,
        memory_free_bytes=psutil.virtual_memory().available,
        disk_bytes=record + kept,
        # One more than is kept while it is written.
        peak_disk_bytes=record + kept + at_once * together * (KEPT_WHILE_RUNNING + 1) * calibration.checkpoint_bytes,
        seconds_per_trial=seconds_per_trial,
        seconds=START_SECONDS + _longest([1] * trained_baselines + banks, at_once) * seconds_per_trial,
    )


def _check_memory(at_once: int, parameters: int, on_gpu: bool) -> None:
    """Refuse before the measurement what could only take the memory of everything else on the machine."""
    from bvae_tune.training.memory import OUT_OF_MEMORY_ADVICE  # torch

    least, free = 4 * _LEAST_COPIES * parameters, psutil.virtual_memory().available
    if least > free and not on_gpu:
        raise RunError(
            f"out of memory: {counted(at_once, 'trial')} at once would hold {least / 1e9:,.0f} GB of weights, gradients"
            f" and optimiser state, and {free / 1e9:,.0f} GB are free; {OUT_OF_MEMORY_ADVICE}"
        )


def costliest(config: StudyConfig) -> tuple[ModelConfig, TrainingConfig]:
    """The model and training of the trial with the largest searched sizes and the most steps."""
    default = float(sum(TABLE_1_WIDTHS[config.model.architecture]))

    def size(choice: Scalar) -> float:
        if choice is None:  # of widths: those of Table 1
            return default
        if isinstance(choice, str):  # widths, as their JSON text, or a name
            return float(sum(json.loads(choice))) if choice.startswith("[") else 0.0
        return float(choice)

    def largest(distribution: Distribution) -> Scalar:
        return distribution.high if distribution.high is not None else max(distribution.choices, key=size)

    return configure(config, {key: largest(distribution) for key, distribution in config.space.items()})


def calibrate(
    config: StudyConfig, model: ModelConfig, training: TrainingConfig, placement: Placement, at_once: int
) -> Calibration:
    """Measure `at_once` trials side by side, each in a fresh process with the threads it would have; their means."""
    from bvae_tune.training.memory import is_out_of_memory, out_of_memory_in_words  # torch

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(at_once, mp_context=context) as pool:
        futures = [
            pool.submit(measure, config, model, training, placement.threads, _device(placement, number), number)
            for number in range(at_once)
        ]
        try:
            return _mean([future.result() for future in futures])
        except BrokenProcessPool:
            raise RunError(
                f"a few steps in {at_once} processes at once killed one of them, most likely for lack of memory; lower "
                "resources.concurrent_trials or trials_per_bank, training.batch_size, model.widths or protocol.replicas"
            ) from None
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RunError) or not is_out_of_memory(error):
                raise
            raise RunError(out_of_memory_in_words(error)) from None


def _device(placement: Placement, number: int) -> str:
    """Where Ray would put the trial among this machine's GPUs: as many on each as fit."""
    if not placement.gpus:
        return "cpu"
    return f"cuda:{int(number * placement.gpus) % max(1, int(placement.all_gpus))}"


def measure(
    config: StudyConfig, model: ModelConfig, training: TrainingConfig, threads: int, device: str, number: int
) -> Calibration:
    """Train for a few seconds and evaluate once, in this process."""
    import torch

    from bvae_tune.evaluation import encode_labelled, score
    from bvae_tune.training.bank import Bank

    torch.set_num_threads(threads)
    store: ImageStore = open_dataset(config.dataset)
    labels = load_labels(config.labels, store)
    together = max(bank_sizes(config))
    replicas = config.protocol.replicas * together
    seeds = range(number * replicas, (number + 1) * replicas)
    bank = Bank(model, training, store, seeds, device=device)
    bank.train(1)  # the first step allocates
    steps = max(1, int(MEASURED_SECONDS / bank.train(2).seconds))
    seconds_per_step = bank.train(2 + steps).seconds / steps / together
    began = time.perf_counter()
    codes = encode_labelled(bank.trained(slice(config.protocol.replicas)), store, labels)
    score(codes, labels, config.metric, config.protocol, config.search.seed)
    seconds_per_report = time.perf_counter() - began
    memory = psutil.Process().memory_info()
    weights = bank.weights().values()
    return Calibration(
        parameters=sum(tensor.numel() for tensor in weights) // replicas,
        weights_bytes=sum(tensor.nbytes for tensor in weights) // together,
        checkpoint_bytes=sum(tensor.nbytes for tensor in bank.state().values()) // together,
        memory_bytes=memory.rss - memory.shared,
        gpu_bytes=0 if device == "cpu" else torch.cuda.max_memory_allocated(device),
        seconds_per_step=seconds_per_step,
        seconds_per_report=seconds_per_report,
    )


def _longest(work: Sequence[int], slots: int) -> int:
    """When the last of these is done, each begun in the order given where a slot is free first."""
    ends = [0] * slots
    for each in work:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


def _mean(measured: Sequence[Calibration]) -> Calibration:
    values = [asdict(calibration) for calibration in measured]
    means = {key: sum(value[key] for value in values) / len(values) for key in values[0]}
    whole = {key: round(value) if isinstance(values[0][key], int) else value for key, value in means.items()}
    return Calibration(**whole)
