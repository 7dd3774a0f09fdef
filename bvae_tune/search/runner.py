"""Running a study: a new one, or one that was interrupted or is to be extended."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState, create_trial

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.labels import WeakLabels
from bvae_tune.data.sources import load_labels
from bvae_tune.errors import InputError, RunError
from bvae_tune.metrics.factor_change import pair_tables
from bvae_tune.models.config import ModelConfig, check_factors, check_image_size
from bvae_tune.randomness import derive_seed
from bvae_tune.search import folder
from bvae_tune.search.building import open_images
from bvae_tune.search.cluster import place, ray_session
from bvae_tune.search.journal import open_record
from bvae_tune.search.recorder import tidy
from bvae_tune.search.records import setting_of
from bvae_tune.search.sampling import SeededSampler, trials_possible
from bvae_tune.search.study import Study, read_config
from bvae_tune.search.task import check_fingerprints
from bvae_tune.space import StudyConfig, load_space
from bvae_tune.training.config import TrainingConfig
from bvae_tune.wording import command, way_on

if TYPE_CHECKING:
    from rich.console import Console

_TUNING = "bvae_tune.search.tuning"


class SearchInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: the record is consistent, `path` is the study to resume, `again` says by which command."""

    def __init__(self, path: Path, again: str | None = None) -> None:
        super().__init__(f"interrupted; go on with: {again or command('resume', path)}")
        self.path = path


def search(
    space: str | Path | Mapping[str, Any] | StudyConfig,
    overrides: Sequence[str] = (),
    *,
    name: str | None = None,
    storage: str | Path = "runs",
    address: str | None = None,
    console: Console | None = None,
) -> Study:
    """Run a new study from its search space to its result.

    Args:
        space: as `load_space` takes it.
        overrides: `key=value` settings on top of it.
        name: of the study; one with the time in it if not given.
        storage: the folder that studies are put in.
        address: of a Ray cluster to run on; none starts Ray on this machine for the time of the run.
        console: shows progress there.

    Raises:
        InputError: the search space, images or labels cannot be used, the name is taken, the cluster is not reachable
            or does not see the storage.
        RunError: every trial failed, the disk is full, the storage was lost.
        SearchInterrupted: Ctrl-C or SIGTERM.
    """
    config = load_space(space, overrides)
    name = folder.default_name(space, storage) if name is None else name
    return begin(config, name, storage, add_baselines, address=address, console=console)


def begin(
    config: StudyConfig,
    name: str,
    storage: str | Path,
    prepare: Callable[[Study], None],
    *,
    address: str | None = None,
    console: Console | None = None,
) -> Study:
    """Make a study's folder and drive it; nothing is left behind where it cannot run.

    Args:
        config: its resolved search space.
        name: of the study.
        storage: the folder that studies are put in.
        prepare: see `drive`.
        address, console: as for `search`.

    Raises:
        InputError, RunError, SearchInterrupted: as for `search`.
    """
    path = create(config, name, storage, console)
    try:
        return drive(path, prepare, address=address, console=console)
    except InputError:
        # Nothing ran: the cluster or the resources are not as asked for. Unless another process took the study over.
        if folder.holder(path) is None:
            shutil.rmtree(path, ignore_errors=True)
        raise


def resume(
    path: str | Path, extra_trials: int = 0, *, address: str | None = None, console: Console | None = None
) -> Study:
    """Go on with a study where it was left: unfinished trials from their last checkpoints, then new ones.

    Args:
        path: the study's folder.
        extra_trials: so many searched trials more than it was to have; a finished study is extended.
        address, console: as for `search`.

    Raises:
        InputError: no study there, another process drives it, its images or labels have changed, a negative number of
            extra trials, or more than its grid has points.
        RunError, SearchInterrupted: as for `search`.
    """
    if extra_trials < 0:
        raise InputError(f"--trials {extra_trials}: give the number of trials to add, as in --trials +10")

    def prepare(study: Study) -> None:
        add_baselines(study)
        possible = trials_possible(study.config.space, study.config.search)
        if extra_trials and possible is not None and study.trials_wanted + extra_trials > possible:
            raise InputError(f"--trials +{extra_trials}: the grid of this study has {possible} points only")

    return drive(Study.open(path).path, prepare, address=address, console=console, extra_trials=extra_trials)


def create(config: StudyConfig, name: str, storage: str | Path, console: Console | None = None) -> Path:
    """Check that the study can run, and make its folder; nothing is left behind where it cannot.

    Raises:
        InputError: images, labels or model cannot be used together, or the folder cannot be made.
    """
    config = with_absolute_paths(config)
    store, labels = _open_data(config, console)
    pair_tables(labels.factors, labels.names)
    check_image_size(config.model, store.height, store.width)
    check_factors(config.model, store.varying_factors, store.factor_space is not None)
    facts = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seed": config.search.seed,
        "images": store.fingerprint,
        "labels": labels.fingerprint,
        "dimensions": store.dimensions,
        "dataset": {
            "name": store.name,
            "count": store.count,
            "size": [store.channels, store.height, store.width],
        },
        "labelled": {"count": len(labels.indices), "factors": list(labels.names)},
    }
    return folder.create_folder(storage, name, config.to_yaml(), facts)


def drive(
    path: Path,
    prepare: Callable[[Study], None],
    *,
    address: str | None,
    console: Console | None,
    searching: bool = True,
    extra_trials: int = 0,
) -> Study:
    """Be the driver of a study until nothing is left to run.

    Args:
        path: its folder.
        prepare: called under the lock before anything runs; adds what is to be run.
        address, console: as for `search`.
        searching: run searched trials too, not controls only.
        extra_trials: searched trials to add, once it is known that they can run.
    """
    began = time.time()
    with _told(path), folder.driver_lock(path):
        config = read_config(path)
        study = Study(path, open_record(path / folder.JOURNAL, SeededSampler(config.search, config.space)))
        store, labels = _open_data(study.config, console)
        check_fingerprints(store, labels, (study.facts["images"], study.facts["labels"]))
        prepare(study)
        try:
            tidy(study)  # a kill may have come between a trial's end and this
            if extra_trials or not (study.finished if searching else study.controls_finished):
                with ray_session(address, meanwhile=_TUNING, console=console):
                    from bvae_tune.search.tuning import probe, run_trials

                    ahead = study.trainings(searching) + extra_trials
                    placement = place(config.resources, ahead, embedded=address is None)
                    if address is not None:
                        probe(path)
                    if extra_trials:
                        study.searched.set_user_attr("trials_wanted", study.trials_wanted + extra_trials)
                    run_trials(study, placement, console, searching, began)
        except BaseException:
            with suppress(OSError):
                _leave(study)
            raise
        _leave(study)
    if searching:
        _refuse_failure(study)
    return study


def _leave(study: Study) -> None:
    folder.repair(study.path)
    folder.step_down(study.path)
    study.write_results()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Interrupts and errors of the disk in words of what to do."""
    try:
        yield
    except KeyboardInterrupt:
        raise SearchInterrupted(path) from None
    except OSError as error:
        raise RunError(f"{error.filename or path}: {error.strerror or error}. {way_on(path)}") from error


def add_control(
    study: Study,
    kind: str,
    label: str,
    model: ModelConfig,
    training: TrainingConfig,
    seeds: Sequence[int],
    evaluation_seed: int,
    **attributes: Any,
) -> None:
    """Enqueue a control, in one line of the journal: it is there whole or not at all."""
    settings = {
        "kind": kind,
        "label": label,
        "model": dataclasses.asdict(model),
        "training": dataclasses.asdict(training),
        "seeds": list(seeds),
        "evaluation_seed": evaluation_seed,
        "setting": setting_of(model, study.facts["dimensions"]),
        "parameters": {},
    }
    study.control_trials.add_trial(create_trial(state=TrialState.WAITING, user_attrs=settings | attributes))


def add_baselines(study: Study) -> None:
    """The baselines of the search space that the record has not yet, seeded by their label and replica.

    The weights of a trained one stay: what its latents do is to be seen beside those of the best.
    """
    config = study.config
    present = {record.label for record in study.controls if record.kind == "baseline"}
    model = dataclasses.replace(config.model, beta=1.0, beta_norm=None) if config.model.has_beta else config.model
    for label in config.search.baselines:
        if label in present:
            continue
        trained = label != "untrained"
        training = config.training if trained else dataclasses.replace(config.training, steps=0)
        seeds = [derive_seed(config.search.seed, f"baseline {label}", r) for r in range(config.protocol.replicas)]
        add_control(study, "baseline", label, model, training, seeds, config.search.seed, keep=trained)


def _open_data(config: StudyConfig, console: Console | None) -> tuple[ImageStore, WeakLabels]:
    store = open_images(config, console)
    return store, load_labels(config.labels, store)


def with_absolute_paths(config: StudyConfig) -> StudyConfig:
    """The configuration as a study keeps it: workers have folders of their own."""
    return config.model_copy(
        update={
            "dataset": dataclasses.replace(config.dataset, path=_absolute(config.dataset.path)),
            "labels": dataclasses.replace(config.labels, path=_absolute(config.labels.path)),
        }
    )


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def _refuse_failure(study: Study) -> None:
    if study.trials and study.best is None:
        raise RunError(study.without_best)
