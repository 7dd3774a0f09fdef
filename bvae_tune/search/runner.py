"""Running a study: a new one, or one that was interrupted or is to be extended."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState, create_trial

from bvae_tune.data.factors import WeakLabels, load_labels
from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.sources import open_dataset
from bvae_tune.errors import InputError, RunError
from bvae_tune.metrics.factor_change import pair_tables
from bvae_tune.models.config import ModelConfig
from bvae_tune.models.networks import build_network
from bvae_tune.randomness import derive_seed
from bvae_tune.search import folder
from bvae_tune.search.building import building
from bvae_tune.search.cluster import Placement, place, probe_nodes, ray_session
from bvae_tune.search.journal import open_record
from bvae_tune.search.progress import Progress
from bvae_tune.search.recorder import Recorder, setting_of
from bvae_tune.search.sampling import SeededSampler, trials_possible
from bvae_tune.search.study import Study
from bvae_tune.search.tensorboard import TensorBoardLog
from bvae_tune.search.trial_run import check_fingerprints
from bvae_tune.space import StudyConfig, load_space
from bvae_tune.training.config import TrainingConfig

if TYPE_CHECKING:
    from rich.console import Console

# A trial whose worker dies is tried again this often, each time from its last checkpoint.
RETRIES = 2


class SearchInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM: the record is consistent, `path` is the study to resume."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"interrupted; go on with: bvae-tune resume {path}")
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
    path = create(config, name or folder.default_name(space), storage, console)
    return drive(path, _add_baselines, address=address, console=console)


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
        _add_baselines(study)
        if extra_trials:
            wanted = study.trials_wanted + extra_trials
            possible = trials_possible(study.config.space, study.config.search)
            if possible is not None and wanted > possible:
                raise InputError(f"--trials +{extra_trials}: the grid of this study has {possible} points only")
            study.searched.set_user_attr("trials_wanted", wanted)

    return drive(Study.open(path).path, prepare, address=address, console=console)


def create(config: StudyConfig, name: str, storage: str | Path, console: Console | None = None) -> Path:
    """Check that the study can run, and make its folder; nothing is left behind where it cannot.

    Raises:
        InputError: images, labels or model cannot be used together, or the folder cannot be made.
    """
    config = config.model_copy(
        update={
            "dataset": dataclasses.replace(config.dataset, path=_absolute(config.dataset.path)),
            "labels": dataclasses.replace(config.labels, path=_absolute(config.labels.path)),
        }
    )
    store, labels = _open_data(config, console)
    pair_tables(labels.factors, labels.names)
    build_network(config.model, store.channels, store.height, store.width)
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
) -> Study:
    """Be the driver of a study until nothing is left to run.

    Args:
        path: its folder.
        prepare: called under the lock before anything runs; adds what is to be run.
        address, console: as for `search`.
        searching: run searched trials too, not controls only.
    """
    with folder.driver_lock(path):
        config = load_space(path / folder.SPACE)
        study = Study(path, open_record(path / folder.JOURNAL, SeededSampler(config.search, config.space)))
        store, labels = _open_data(study.config, console)
        check_fingerprints(store, labels, (study.facts["images"], study.facts["labels"]))
        prepare(study)
        try:
            if not (study.finished if searching else study.controls_finished):
                _run(study, address, console, searching)
        finally:
            folder.repair(path)
            study.write_results()
    if searching:
        _refuse_failure(study)
    return study


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


def _add_baselines(study: Study) -> None:
    """The baselines of the search space that the record has not yet, seeded by their label and replica."""
    config = study.config
    present = {record.label for record in study.controls if record.kind == "baseline"}
    model = dataclasses.replace(config.model, beta=1.0, beta_norm=None)
    for label in config.search.baselines:
        if label in present:
            continue
        training = config.training
        if label == "untrained":
            training = dataclasses.replace(training, steps=0)
        seeds = [derive_seed(config.search.seed, f"baseline {label}", r) for r in range(config.protocol.replicas)]
        add_control(study, "baseline", label, model, training, seeds, config.search.seed)


def _open_data(config: StudyConfig, console: Console | None) -> tuple[ImageStore, WeakLabels]:
    with building(console) as progress:
        store = open_dataset(config.dataset, progress)
    return store, load_labels(config.labels, store)


def _absolute(path: str | None) -> str | None:
    # Workers have folders of their own.
    return None if path is None else str(Path(path).expanduser().absolute())


def _run(study: Study, address: str | None, console: Console | None, searching: bool) -> None:
    with ray_session(address):
        placement = place(study.config.resources, embedded=address is None)
        if address is not None:
            _probe(study.path)
        session = f"session {len(study.sessions):04d}"
        facts = {"start": time.time(), "cores": placement.cores, "concurrent": placement.concurrent}
        study.searched.set_user_attr(session, facts)
        with _progress(study, console, searching) as progress:
            tensorboard = TensorBoardLog(
                study.path / folder.TENSORBOARD, study.config.space, progress.message if progress else _silent
            )
            recorder = Recorder(study, placement, searching, progress, tensorboard)
            recorder.tidy()
            recorder.show()
            with _interrupts(recorder.interrupted):
                try:
                    _tune(study, placement, recorder)
                except KeyboardInterrupt:
                    raise SearchInterrupted(study.path) from None
                finally:
                    with suppress(OSError):
                        study.searched.set_user_attr(session, {**facts, "end": time.time()})


def _tune(study: Study, placement: Placement, recorder: Recorder) -> None:
    from ray import tune

    from bvae_tune.search.pruning import RecordScheduler
    from bvae_tune.search.searcher import RecordSearcher, RunStopper
    from bvae_tune.search.trainable import BetaVAETrainable

    failure: BaseException | None = None
    try:
        # Not tune.Tuner: it pickles searcher and scheduler for a restore that never comes.
        tune.run(
            BetaVAETrainable,
            name=folder.SCRATCH,
            storage_path=str(study.path),
            resources_per_trial={"cpu": placement.cpus, "gpu": placement.gpus},
            search_alg=RecordSearcher(recorder),
            scheduler=RecordScheduler(recorder),
            stop=RunStopper(recorder),
            num_samples=-1,
            # Without a limiter Tune asks for one trial ahead, on stale data.
            max_concurrent_trials=placement.concurrent,
            max_failures=RETRIES,
            reuse_actors=True,
            raise_on_failed_trial=False,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
            verbose=0,
        )
    except Exception as error:
        failure = error
    failure = recorder.error or failure
    if isinstance(failure, RunError):
        raise failure
    if failure is not None:
        raise RunError(
            f"the search stopped: {type(failure).__name__}: {failure}. What was recorded is safe; when the cause is "
            f"gone, go on with: bvae-tune resume {study.path}"
        ) from failure


def _trial_name(trial: Any) -> str:
    return str(trial.config["task"].folder).replace("/", "-")


def _probe(path: Path) -> None:
    probe = path / f".probe-{uuid.uuid4().hex}"
    probe.touch()
    try:
        probe_nodes(str(path), probe.name)
    finally:
        probe.unlink(missing_ok=True)


@contextmanager
def _progress(study: Study, console: Console | None, searching: bool) -> Iterator[Progress | None]:
    if console is None:
        yield None
        return
    steps = None if "training.steps" in study.config.space else study.config.training.steps
    trials = study.trials_wanted if searching else 0
    with Progress(console, study.name, trials, len(study.controls), steps) as progress:
        yield progress


@contextmanager
def _interrupts(flag: threading.Event) -> Iterator[None]:
    """Set `flag` at the first Ctrl-C or SIGTERM; a second one acts as it did before. In the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def interrupt(number: int, frame: FrameType | None) -> None:
        flag.set()
        restore()

    for number in signals:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        restore()


def _silent(text: str) -> None:
    return None


def _refuse_failure(study: Study) -> None:
    trials = study.trials
    if trials and all(trial.state == "failed" for trial in trials):
        raise RunError(f"{study.path}: all {len(trials)} trials failed; the first: {trials[0].reason}")
