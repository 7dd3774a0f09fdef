"""A figure of the paper as a study of its own: begun, or gone on with where it was left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bvae_tune.errors import InputError
from bvae_tune.experiments import Scale
from bvae_tune.models.config import FACTOR_LATENTS
from bvae_tune.randomness import derive_seed
from bvae_tune.search.runner import SearchInterrupted, add_control, begin, drive, with_absolute_paths
from bvae_tune.search.storage import STUDY
from bvae_tune.search.study import Study
from bvae_tune.space import StudyConfig, load_space
from bvae_tune.wording import significant

if TYPE_CHECKING:
    from rich.console import Console

    from bvae_tune.data.image_store import ImageStore
    from bvae_tune.models.config import ModelConfig
    from bvae_tune.search.records import TrialRecord
    from bvae_tune.training.config import TrainingConfig

SAME_COMMAND: Final = "the same command again"
# Settings with which a study may go on elsewhere: what a trial takes of the machine. A bank's size stays.
_OF_THE_MACHINE: Final = ("resources.cpus_per_trial", "resources.gpus_per_trial", "resources.concurrent_trials")
# Of the smoke scale: what a training and what an evaluation is cut down to.
FEW_STEPS: Final = ("training.steps=20", "training.report_every=20")
SMOKE: Final = (
    "labels.count=500",
    "metric.train_points=500",
    "metric.test_points=500",
    "metric.classifier=lbfgs",
    "protocol.classifier_seeds=1",
    *FEW_STEPS,
)


def run_study(
    config: StudyConfig,
    name: str,
    storage: str | Path,
    prepare: Callable[[Study], None],
    *,
    address: str | None = None,
    console: Console | None = None,
) -> Study:
    """Run the study `name`, go on with it, or only open it where it is finished.

    Where every searched trial has failed, as many more are tried; a grid has no more.

    Args:
        config: what it is to be.
        name: its folder below `storage`.
        storage: the folder of studies.
        prepare: adds the controls that the record has not yet (see `bvae_tune.search.runner.drive`).
        address, console: as for `bvae_tune.search`.

    Raises:
        InputError: a study of that name with other settings; and as for `search`.
        RunError, SearchInterrupted: as for `search`.
    """
    path = Path(storage).expanduser() / name
    try:
        if not (path / STUDY).is_file():
            return begin(config, name, storage, prepare, address=address, console=console)
        study = Study.open(path)
        different = _different_keys(study.config, with_absolute_paths(config))
        if different:
            raise InputError(
                f"{path}: a study with other settings ({', '.join(different)}); give another --name, or move it away"
            )
        hopeless = study.trials_finished and study.best is None and config.search.sampler != "grid"
        extra = config.search.trials if hopeless else 0
        return drive(study.path, prepare, address=address, console=console, extra_trials=extra)
    except SearchInterrupted as interrupted:
        raise SearchInterrupted(interrupted.path, SAME_COMMAND) from None


def add_model(
    study: Study, figure: str, label: str, model: ModelConfig, training: TrainingConfig, *, keep: bool = False
) -> None:
    """Add a model of a figure to its study's controls where it is not yet, or has failed.

    Its replicas are seeded by figure, label and replica.

    Args:
        study: opened by its driver.
        figure: names the seeds.
        label: of the model.
        model, training: what it is.
        keep: whether its weights stay.
    """
    if any(record.label == label and record.state != "failed" for record in study.controls):
        return
    seed, replicas = study.config.search.seed, study.config.protocol.replicas
    seeds = [derive_seed(seed, f"{figure} {label}", replica) for replica in range(replicas)]
    add_control(study, "baseline", label, model, training, seeds, seed, keep=keep)


def scaled(scale: Scale, spaces: dict[Scale, tuple[str, Sequence[str]]], settings: Sequence[str] = ()) -> StudyConfig:
    """The packaged search space of a scale, with what the scale and then the caller change in it."""
    space, changes = spaces[scale]
    # One after the other: an error names none as the caller's setting that is the scale's.
    return load_space(load_space(space, changes), settings)


def check_shapes(store: ImageStore) -> None:
    """Refuse images that a figure of 2D shapes cannot be made of.

    Raises:
        InputError: they are not every combination of the five factors with three shapes; says what they are.
    """
    names, space = store.varying_factors, store.factor_space
    if space is None or set(names) != set(FACTOR_LATENTS) or space.sizes[space.names.index("shape")] != 3:
        incomplete = "" if space or not names else ", not in every combination, in order"
        raise InputError(
            f"dataset {store.name!r}: this figure takes images of three shapes in every combination, in order, of "
            f"{', '.join(FACTOR_LATENTS)}, as `dataset.source: shapes` has them; these show "
            f"{', '.join(names) or 'no known factor'}{incomplete}"
        )


def budget(study: Study, record: TrialRecord) -> str:
    """What was trained, in words: replicas, images that each saw, the network, and the losses that no β-VAE has."""
    model, training = study.configuration(record)
    result = record.result
    assert result is not None
    seen = training.steps * training.batch_size
    images = f"{seen / 1e6:.2f} M" if seen >= 1e5 else f"{seen:,}"
    losses = "".join(f"; {name} {_span(values)}" for name, values in result.further_losses.items())
    return f"{len(result.score.replica_scores)} x {images} images, {model.network}{losses}"


def _span(values: Sequence[float]) -> str:
    low, high = significant(min(values)), significant(max(values))
    return low if low == high else f"{low} to {high}"


def _different_keys(one: StudyConfig, other: StudyConfig) -> list[str]:
    """Dotted keys in which two configurations differ, but for what a trial takes of a machine."""
    mine, theirs = one.to_dict(), other.to_dict()
    return [
        f"{room}.{key}"
        for room in mine
        for key in sorted(mine[room].keys() | theirs[room].keys())
        if mine[room].get(key) != theirs[room].get(key) and f"{room}.{key}" not in _OF_THE_MACHINE
    ]
