"""A study, to be read: its trials, the best of them, its results as a table. Nothing here writes to the record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from bvae_tune.errors import InputError, RunError
from bvae_tune.models.config import ModelConfig
from bvae_tune.search import folder
from bvae_tune.search.journal import open_record
from bvae_tune.search.records import FINISHED, Kind, State, TrialRecord, TrialResult, ranked, read_trial
from bvae_tune.search.sampling import bank_of, trials_possible
from bvae_tune.search.storage import WEIGHTS
from bvae_tune.space import StudyConfig, configure, load_space, short_key
from bvae_tune.training.config import TrainingConfig
from bvae_tune.wording import command, nearest

if TYPE_CHECKING:
    import optuna

    from bvae_tune.search.checkpoints import Checkpoint

__all__ = ["Kind", "State", "Study", "TrialRecord", "TrialResult"]


class Study:
    """A study's folder. Properties read the record anew, so a study opened while it runs follows it.

    Attributes:
        path: the folder, absolute.
        name: of the study.
        config: its resolved search space.
        facts: `study.json`: format, versions, hardware, seeds, fingerprints, facts of the images.
    """

    def __init__(self, path: Path, records: tuple[optuna.Study, optuna.Study]) -> None:
        self.path = path
        self.facts = folder.read_facts(path)
        self.name: str = self.facts["name"]
        self.config = read_config(path)
        self.searched, self.control_trials = records
        self._ended: dict[tuple[str, int], TrialRecord] = {}

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open for reading, also while another process drives it.

        Raises:
            InputError: no study there, one of a newer format, or a damaged one.
        """
        where = Path(path).expanduser().absolute()
        folder.read_facts(where)
        return cls(where, open_record(where / folder.JOURNAL))

    @property
    def trials(self) -> list[TrialRecord]:
        """The searched trials, by number."""
        return self._read(self.searched)

    @property
    def controls(self) -> list[TrialRecord]:
        """Baselines and confirmations, by number."""
        return self._read(self.control_trials)

    @property
    def best(self) -> TrialRecord | None:
        """The searched trial of the highest final score (see `ranked`). Pruned trials do not count."""
        return next(iter(ranked(self.trials)), None)

    @property
    def best_complete(self) -> TrialRecord | None:
        """The best of the trials that represent every factor (see `TrialScore.missing`)."""
        return _first_whole(ranked(self.trials))

    @property
    def trials_wanted(self) -> int:
        """How many searched trials the study ends with: those of the search space and of `resume --trials +N`.

        A grid has no more than its points.
        """
        wanted = int(self.searched.user_attrs.get("trials_wanted", self.config.search.trials))
        possible = trials_possible(self.config.space, self.config.search)
        return wanted if possible is None else min(wanted, possible)

    def trainings(self, searching: bool) -> int:
        """How many trainings are ahead: of searched trials, or their banks, and of baselines and confirmations.

        Of searched ones all count until the last has ended, so that an interrupted search goes on with as many cores a
        trial as it began with.

        Args:
            searching: whether searched trials are to run, not controls only.
        """
        controls = [self.configuration(record)[1] for record in self.controls if record.state not in FINISHED]
        banks = {bank_of(number, self.config) for number in range(self.trials_wanted)}
        searched = len(banks) if searching and not self.trials_finished else 0
        return searched + sum(training.steps > 0 for training in controls)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to run."""
        return self.trials_finished and self.controls_finished

    @property
    def trials_finished(self) -> bool:
        """Whether no searched trial is left to run."""
        trials = self.trials
        return len(trials) >= self.trials_wanted and _over(trials)

    @property
    def standing(self) -> str:
        """In words: running and driven by whom, finished, or interrupted and to go on by which command."""
        driver = self.driver
        if driver is not None:
            return f"running, driven by {driver}"
        return "finished" if self.finished else f"interrupted; go on with: {command('resume', nearest(self.path))}"

    @property
    def without_best(self) -> str:
        """Why `best` is None, in words."""
        trials = self.trials
        reasons = [trial.reason for trial in trials if trial.state == "failed"]
        if not self.trials_finished:
            told = f"no trial has finished yet ({self.standing})"
        else:
            told = "no trial ran to its end"
        if reasons:
            told += f"; {len(reasons)} of {len(trials)} failed, the first: {reasons[0]}"
        return f"{self.path}: {told}"

    @property
    def controls_finished(self) -> bool:
        """Whether no baseline or confirmation is left to run."""
        return _over(self.controls)

    @property
    def driver(self) -> str | None:
        """Who runs it at present, in words; None if nobody does."""
        return folder.holder(self.path)

    @property
    def size_bytes(self) -> int:
        """Size of the folder on disk."""
        return folder.size_bytes(self.path)

    @property
    def share_of_work(self) -> float | None:
        """Seconds x cores that training and evaluation took, over wall seconds x cores of all runs of the study.

        None while a run goes on, if one was killed before it could note its end, if no core was up when the runs began
        (a cluster that grows), and if the runs gave their trials different numbers of cores. What was done twice after
        a kill counts once.
        """
        sessions = list(self.sessions)
        configured = self.config.resources.cpus_per_trial  # a number in records of before it could be auto
        held = {session.get("cpus_per_trial", configured) for session in sessions}
        if len(held) != 1 or any("end" not in session for session in sessions):
            return None
        available = sum((session["end"] - session["start"]) * session["cores"] for session in sessions)
        seconds = sum(record.seconds or 0.0 for record in (*self.trials, *self.controls))
        return float(seconds * held.pop() / available) if available else None

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """The runs of the study: start and end (Unix time, none if killed), cores, those of a trial, trials at once."""
        attributes = self.searched.user_attrs
        return [attributes[key] for key in sorted(attributes) if key.startswith("session ")]

    def configuration(self, record: TrialRecord) -> tuple[ModelConfig, TrainingConfig]:
        """Model and training of one of the study's trials."""
        if record.kind == "search":
            return configure(self.config, record.parameters)
        attributes = self.control_trials.get_trials(deepcopy=False)[record.number].user_attrs
        return control_setting(attributes)

    def checkpoint(self, record: TrialRecord, file: str | None = None) -> Checkpoint:
        """Weights and last report of a trial: as it ended, or of its newest checkpoint where it has not ended.

        Args:
            record: the trial.
            file: the name of one of its files, in place of these.

        Raises:
            InputError: there are none (kept are the `search.keep_models` best trials and trained baselines).
            RunError: what there is is damaged or cannot be read.
        """
        from bvae_tune.search.checkpoints import CheckpointFolder  # torch
        from bvae_tune.training.checkpoint import CheckpointError

        kept = CheckpointFolder(str(self.path), folder.trial_folder(record.kind, record.number))
        try:
            return kept.read(file or WEIGHTS)
        except FileNotFoundError:
            found = kept.latest()
        except CheckpointError as error:
            raise RunError(f"{record.label}: {error}; bring it back from a copy") from None
        except OSError as error:
            raise RunError(f"{record.label}: its weights cannot be read ({error})") from None
        if found.checkpoint is not None and not file:
            return found.checkpoint
        if found.damaged:
            files = f"{', '.join(found.damaged)}, in {self.path / folder.trial_folder(record.kind, record.number)}"
            anew = f", or let the trial begin anew: {command('resume', nearest(self.path))}"
            raise RunError(
                f"{record.label}: its checkpoints are cut short or damaged ({files}); bring one back from a copy"
                + (anew if record.state == "interrupted" else "")
            )
        raise InputError(f"{record.label}: {self._why_no_weights(record)}")

    def _why_no_weights(self, record: TrialRecord) -> str:
        best = kept_trials(self.trials, self.config.search.keep_models)
        kept = record.number in {trial.number for trial in best} if record.kind == "search" else record.keep
        if record.state not in FINISHED:
            return "it has no checkpoint yet; it writes one at each report"
        if record.state != "complete":
            why = "of pruned and failed trials none are"
        elif kept:
            where = self.path / folder.trial_folder(record.kind, record.number)
            return f"{where / WEIGHTS}: missing, though these weights were kept; bring the file back from a copy"
        elif record.kind == "search":
            why = f"search.keep_models is {self.config.search.keep_models}"
        else:
            why = "of untrained networks and confirmations none are"
        return f"its weights are not kept; {why}"

    def confirmations(self, best: TrialRecord) -> list[tuple[TrialRecord, dict[str, Any]]]:
        """The controls that confirm this trial, with their attributes (see `bvae_tune.search.confirm`)."""
        attributes = [trial.user_attrs for trial in self.control_trials.get_trials(deepcopy=False)]
        return [
            (record, attributes[record.number])
            for record in self.controls
            if record.kind == "confirm" and attributes[record.number]["trial"] == best.number
        ]

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per trial and control: what `results.parquet` and the trials table hold."""
        return [row(record) for record in (*self.controls, *self.trials)]

    def table(self) -> pa.Table:
        """`rows` as an Arrow table; columns that a trial lacks are null, columns of mixed types are text."""
        rows = self.rows()
        names = list(dict.fromkeys(name for row in rows for name in row))
        return pa.table({name: _column([row.get(name) for row in rows]) for name in names})

    def write_results(self, path: Path | None = None) -> Path:
        """Write `table` as Parquet to `path`, or `results.parquet` anew, and give the path."""
        path = path or self.path / folder.RESULTS
        folder.write_table(path, self.table())
        return path

    def _read(self, record: optuna.Study) -> list[TrialRecord]:
        """All of a record's trials; an ended one is final and read once."""
        found, driven = [], self.driver is not None
        for trial in record.get_trials(deepcopy=False):
            key = (record.study_name, trial.number)
            known = self._ended.get(key) or read_trial(trial)
            if trial.state.is_finished():
                self._ended[key] = known
            elif known.state == "running" and not driven:
                known = dataclasses.replace(known, state="interrupted")
            found.append(known)
        return found


def control_setting(attributes: Mapping[str, Any]) -> tuple[ModelConfig, TrainingConfig]:
    """Model and training of a control, from its user attributes."""
    model = dict(attributes["model"])
    model["widths"] = None if model["widths"] is None else tuple(model["widths"])
    return ModelConfig(**model), TrainingConfig(**attributes["training"])


def read_config(path: Path) -> StudyConfig:
    """The resolved search space of the study in `path`.

    Raises:
        InputError: it is missing or damaged.
    """
    file = path / folder.SPACE
    if not file.is_file():
        raise InputError(f"{file}: the search space is missing; bring it back from a copy")
    return load_space(file)


def kept_trials(trials: list[TrialRecord], keep: int) -> list[TrialRecord]:
    """The trials whose weights stay: the `keep` best, and the best that misses no factor."""
    best_first = ranked(trials)
    whole = _first_whole(best_first)
    return [trial for place, trial in enumerate(best_first) if place < keep or trial is whole]


def _first_whole(best_first: list[TrialRecord]) -> TrialRecord | None:
    return next((trial for trial in best_first if trial.result and not trial.result.score.missing), None)


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values])


def _over(records: list[TrialRecord]) -> bool:
    return not any(record.state not in FINISHED for record in records)


def row(record: TrialRecord) -> dict[str, Any]:
    """One trial as plain, flat data, as in `Study.rows`."""
    flat: dict[str, Any] = {
        "kind": record.kind,
        "number": record.number,
        "label": record.label,
        "state": record.state,
        "score": record.score,
        "collapsed": record.collapsed,
        "beta": record.beta,
        "kl": record.kl,
        "beta_norm": record.beta_norm,
        "latent_size": record.latent_size,
        "seconds": record.seconds,
        "reason": record.reason,
    }
    flat |= {key: value for name, value in record.parameters.items() if (key := short_key(name)) not in flat}
    if record.result is None:
        return flat
    result, score = record.result, record.result.score
    flat |= {
        "steps": result.step,
        "images_seen": result.images_seen,
        "spread": score.spread,
        "pairs": score.pairs,
        "classifier": score.classifier,
        "chance": score.chance,
        "mig": score.mig,
        "agreement": score.agreement,
        "missing": ", ".join(score.missing),
        "converged": score.converged,
        "images_per_second": result.images_per_second,
        "seconds_training": result.seconds_training,
        "seconds_evaluating": result.seconds_evaluating,
    }
    losses = {"reconstruction": result.reconstruction} | result.further_losses
    flat |= {name.replace(" ", "_"): sum(each) / len(each) for name, each in losses.items() if each}
    flat |= {f"score_at_{pairs}": value for pairs, value in score.profile.items()}
    flat |= {f"information_{name}": value for name, value in score.information.items()}
    flat |= {f"score_replica_{number}": value for number, value in enumerate(score.replica_scores)}
    flat |= {f"score_step_{step}": value for step, value in record.intermediate.items()}
    return flat
