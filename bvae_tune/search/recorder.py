"""The driver's hand on the record: which trial comes next, and what is written of it."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from bvae_tune.errors import InputError, RunError
from bvae_tune.randomness import derive_seed
from bvae_tune.search.folder import TENSORBOARD, trial_folder
from bvae_tune.search.pruning import build_pruner, judge
from bvae_tune.search.records import FINISHED, TrialRecord, TrialResult, objective, read_trial, setting_of
from bvae_tune.search.sampling import bank_of, draw_parameters
from bvae_tune.search.study import Study, control_setting, kept_trials
from bvae_tune.search.task import TrialTask
from bvae_tune.space import configure
from bvae_tune.wording import way_on

if TYPE_CHECKING:
    from bvae_tune.search.cluster import Placement
    from bvae_tune.search.progress import Progress
    from bvae_tune.search.tensorboard import TensorBoardLog


@dataclass
class _Open:
    """A trial in Tune's hands."""

    study: optuna.Study
    trial: Trial
    searched: bool
    failure: str = "the worker failed"

    @property
    def stored(self) -> FrozenTrial:
        # Not from the list of all trials, which Optuna copies each time.
        return self.trial.storage.get_trial(self.trial._trial_id)


class Heard(NamedTuple):
    """Whether a report said anything that the record did not have, and whether Tune is to stop there."""

    news: bool
    over: bool


class Recorder:
    """Feeds Tune from the record and writes down what comes back.

    Order of work: controls (baselines come first), unfinished searched trials, new ones, each with the others of its
    bank. A trial's replicas are seeded by `derive_seed(search.seed, "trial", number * R + replica)`; controls bring
    their seeds with them (see `bvae_tune.search.confirm` and `bvae_tune.search.runner`).

    The calls that Tune makes never raise: the first error is kept in `error` and ends the run (see `RunStopper`).

    Args:
        study: opened by the driver, with its sampler, under the driver's lock.
        placement: what a trial gets.
        searching: whether searched trials are run; confirming runs controls only.
        progress: what a person sees, or None.
    """

    def __init__(self, study: Study, placement: Placement, searching: bool, progress: Progress | None) -> None:
        self.error: BaseException | None = None
        self.interrupted = threading.Event()
        self._study = study
        self._placement = placement
        self._progress = progress
        self._pruner = build_pruner(study.config.search)
        self._open: dict[str, dict[str, _Open]] = {}  # by Tune's id and the trial's folder: several share a bank
        self._lost: Counter[str] = Counter()  # by the trial's folder, see `lose`
        self._searching = searching
        self._wanted = study.trials_wanted
        self._asked = len(study.searched.get_trials(deepcopy=False))
        self._waiting = len(_in_state(study.control_trials, TrialState.WAITING))
        self._kept = kept_trials(study.trials, study.config.search.keep_models)
        self._unfinished = [
            (record, number, record is study.searched)
            for record in ([study.control_trials, study.searched] if searching else [study.control_trials])
            for number in (trial.number for trial in _in_state(record, TrialState.RUNNING))
        ]
        self._finish_decided()

    @property
    def exhausted(self) -> bool:
        """Whether no trial can come any more: nothing is left to start, and nothing runs that could come back."""
        return not self._open and not self._left()

    def next_tasks(self, trial_id: str) -> tuple[TrialTask, ...]:
        """The task of the next trial, or those of the next bank, known to Tune as `trial_id`; none if none is left."""
        with self._guarded():
            while self.error is None and self._left():
                tasks, entries = [], self._take()
                for entry in entries:
                    try:
                        task = self._task(entry)
                    except InputError as error:  # values that do not go together
                        self._end_failed(entry, str(error))
                    else:
                        tasks.append(task)
                        self._open.setdefault(trial_id, {})[task.folder] = entry
                    self._show(entry, len(entries))
                if tasks:
                    return tuple(tasks)
        return ()

    def report(self, trial_id: str, result: dict[str, Any]) -> Heard:
        """Write a report down."""
        if self.error is None:
            with self._guarded():
                news = self._receive(trial_id, result)
                return Heard(news, trial_id not in self._open)
        return Heard(news=False, over=False)

    def complete(self, trial_id: str, result: dict[str, Any]) -> None:
        """The last report, or the last words; nothing if the trial was pruned."""
        if trial_id not in self._open or self.error is not None:
            return
        with self._guarded():
            if "fatal" in result:
                raise RunError(f"{result['fatal']}. {way_on(self._study.path)}")
            self._receive(trial_id, result)

    def _receive(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Write down what each trial of a bank reports; those that are over leave it. Whether any of it is new."""
        bank, news = self._open[trial_id], False
        sharing = len(bank)
        for report in result["reports"]:
            entry = bank[report["folder"]]
            if "reason" in report:
                self._end_failed(entry, report["reason"], report.get("traceback"))
            else:
                reported = TrialResult.from_dict(json.loads(report["result"]))
                if self._note(entry, reported, result["node"]):
                    news = True
                    self._lost.pop(report["folder"], None)
                if report["done"]:
                    self._end(entry, TrialState.COMPLETE, objective(reported))
                elif entry.searched and self._pruned(entry):
                    self._end(entry, TrialState.PRUNED)
            self._show(entry, sharing)
            if entry.stored.state.is_finished():
                del bank[report["folder"]]
        if not bank:
            del self._open[trial_id]
        return news

    def worker_failed(self, trial_id: str, how: str) -> set[str]:
        """A worker died or raised; Tune tries again, or calls `fail` next.

        Returns:
            The folders of its trials that are not over.
        """
        with self._guarded():
            bank = self._open[trial_id].values()
            for entry in bank:
                entry.failure = how
            self._tell(f"{', '.join(read_trial(entry.stored).label for entry in bank)}: {how}")
        return set(self._open.get(trial_id, {}))

    def fail(self, trial_id: str) -> None:
        """The worker failed for good, for the reason that `worker_failed` heard last."""
        if self.error is not None:
            return
        with self._guarded():
            for entry in self._open.pop(trial_id).values():
                self._end_failed(entry, entry.failure)
                self._show(entry)

    def lose(self, how: str, retries: int | None) -> None:
        """Tune has given up the trials that it ran; they are unfinished again, and come next.

        Args:
            how: in words.
            retries: a trial fails instead that was lost so often in a row without another report; None for never, where
                it may have been another's fault.
        """
        with self._guarded():
            lost = [(folder, entry) for bank in self._open.values() for folder, entry in bank.items()]
            self._open.clear()
            self._tell(f"{', '.join(read_trial(entry.stored).label for _, entry in lost)}: {how}")
            for folder, entry in reversed(lost):
                if retries is not None:
                    self._lost[folder] += 1
                if retries is not None and self._lost[folder] > retries:
                    self._end_failed(entry, how)
                    self._show(entry)
                else:
                    self._unfinished.insert(0, (entry.study, entry.trial.number, entry.searched))

    def show(self) -> None:
        """Show how all trials stand that have a part in this run."""
        if self._progress is not None:
            self._progress.update(taking_part(self._study, self._searching))

    def _show(self, entry: _Open, sharing: int = 1) -> None:
        if self._progress is not None:
            self._progress.update([read_trial(entry.stored)], sharing)

    @cached_property
    def _tensorboard(self) -> TensorBoardLog | None:
        try:
            from bvae_tune.search.tensorboard import TensorBoardLog  # slow to import; a trial is training by now
        except ImportError as error:
            self._tell(f"nothing is logged for TensorBoard: {error}")
            return None
        return TensorBoardLog(self._study.path / TENSORBOARD, self._study.config.space, self._tell)

    def _tell(self, text: str) -> None:
        if self._progress is not None:
            self._progress.message(text)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keeps an error. Nothing is written after it: a full disk may have cut the last line of the journal."""
        try:
            yield
        except Exception as error:
            self.error = self.error or error

    def _left(self) -> bool:
        return bool(self._unfinished or self._waiting) or (self._searching and self._asked < self._wanted)

    def _take(self) -> list[_Open]:
        """The next trial, and those that share its bank."""
        controls = self._study.control_trials
        position = next((i for i, (record, _, _) in enumerate(self._unfinished) if record is controls), None)
        if position is None and self._waiting:
            self._waiting -= 1
            return [_Open(controls, controls.ask(), searched=False)]
        if not self._unfinished:
            return self._with_companions(self._ask())
        record, number, searched = self._unfinished.pop(position or 0)
        entry = _reopened(record, number, searched)
        return self._with_companions(entry) if searched else [entry]

    def _with_companions(self, entry: _Open) -> list[_Open]:
        """A searched trial, then the others of its bank: unfinished ones, and new ones."""
        bank = bank_of(entry.trial.number, self._study.config)
        unfinished = [
            waiting for waiting in self._unfinished if waiting[2] and bank_of(waiting[1], self._study.config) == bank
        ]
        self._unfinished = [waiting for waiting in self._unfinished if waiting not in unfinished]
        entries = [entry, *(_reopened(*waiting) for waiting in unfinished)]
        while self._asked < self._wanted and bank_of(self._asked, self._study.config) == bank:
            entries.append(self._ask())
        return entries

    def _ask(self) -> _Open:
        self._asked += 1
        return _Open(self._study.searched, self._study.searched.ask(), searched=True)

    def _task(self, entry: _Open) -> TrialTask:
        config, facts = self._study.config, self._study.facts
        number = entry.trial.number
        if entry.searched:
            model, training = configure(config, draw_parameters(entry.trial, config.space))
            replicas = config.protocol.replicas
            seeds = tuple(derive_seed(config.search.seed, "trial", number * replicas + r) for r in range(replicas))
            evaluation_seed, kind = config.search.seed, "search"
            if "setting" not in entry.trial.user_attrs:
                entry.trial.set_user_attr("setting", setting_of(model, facts["dimensions"]))
        else:
            attributes = entry.trial.user_attrs
            model, training = control_setting(attributes)
            seeds, evaluation_seed = tuple(attributes["seeds"]), attributes["evaluation_seed"]
            kind = attributes["kind"]
        return TrialTask(
            study=str(self._study.path),
            folder=trial_folder(kind, number),
            model=model,
            training=training,
            seeds=seeds,
            evaluation_seed=evaluation_seed,
            dataset=config.dataset,
            labels=config.labels,
            fingerprints=(facts["images"], facts["labels"]),
            metric=config.metric,
            protocol=config.protocol,
            threads=self._placement.threads,
            gpu=self._placement.gpus > 0,
        )

    def _note(self, entry: _Open, result: TrialResult, node: str | None) -> bool:
        """The report's numbers, once: a trial that goes on from a checkpoint gives its last report again.

        Whether it is new. The intermediate value is written last and marks the report as recorded. Of a trial whose
        newest checkpoints were damaged the record shows how far it is again.
        """
        stored = entry.stored
        before = read_trial(stored)
        if result.notice and not (before.result and before.result.notice == result.notice):
            self._tell(f"{before.label}: {result.notice}")
        step = result.step
        if step in stored.intermediate_values:
            if before.result is None or (before.result.step, before.result.notice) != (step, result.notice):
                entry.trial.set_user_attr("result", result.to_dict())
            return False
        if self._tensorboard is not None:
            self._tensorboard.write_result(before, result)
        if entry.trial.user_attrs.get("node") != node:
            entry.trial.set_user_attr("node", node)
        entry.trial.set_user_attr("result", result.to_dict())
        entry.trial.report(result.score.score, step)
        return True

    def _pruned(self, entry: _Open) -> bool:
        if self._pruner is None:
            return False
        stop, rungs = judge(entry.study, self._pruner, entry.trial.number)
        if stop:
            entry.trial.set_user_attr("pruned_at", entry.stored.last_step)
        for key, value in rungs.items():
            entry.study._storage.set_trial_system_attr(entry.trial._trial_id, key, value)
        return stop

    def _finish_decided(self) -> None:
        """Carry out what a killed driver had decided but not done."""
        for record, number, searched in list(self._unfinished):
            entry = _reopened(record, number, searched)
            if "pruned_at" in entry.stored.user_attrs:
                self._unfinished.remove((record, number, searched))
                self._pruned(entry)
                self._end(entry, TrialState.PRUNED)

    def _end(self, entry: _Open, state: TrialState, value: float | None = None) -> None:
        entry.study.tell(entry.trial.number, value, state=state, skip_if_finished=True)
        ended = read_trial(entry.stored)
        if self._tensorboard is not None:
            self._tensorboard.finish(ended)
        finished = [*self._kept, ended] if entry.searched else [ended]
        if entry.searched:
            self._kept = kept_trials(finished, self._study.config.search.keep_models)
        for trial in finished:
            if trial not in self._kept and not trial.keep:
                _drop(self._study, trial)

    def _end_failed(self, entry: _Open, reason: str, traceback: str | None = None) -> None:
        if traceback is not None:
            entry.trial.set_user_attr("traceback", traceback)
        entry.trial.set_user_attr("reason", reason)
        self._end(entry, TrialState.FAIL)


def _reopened(record: optuna.Study, number: int, searched: bool) -> _Open:
    return _Open(record, Trial(record, record.get_trials(deepcopy=False)[number]._trial_id), searched)


def taking_part(study: Study, searching: bool) -> list[TrialRecord]:
    """The trials and controls so far that a run is about; one that only confirms, about confirmations of the best."""
    if searching:
        return [*study.controls, *study.trials]
    best = study.best
    confirming = {record.number for record, _ in study.confirmations(best)} if best is not None else set()
    return [control for control in study.controls if control.number in confirming or control.state not in FINISHED]


def tidy(study: Study) -> None:
    """Drop the checkpoints of finished trials: all but the best searched ones, and controls that are to be kept."""
    kept = {trial.number for trial in kept_trials(study.trials, study.config.search.keep_models)}
    for trial in study.trials:
        if trial.state in FINISHED and trial.number not in kept:
            _drop(study, trial)
    for control in study.controls:
        if control.state in FINISHED and not control.keep:
            _drop(study, control)


def _drop(study: Study, trial: TrialRecord) -> None:
    shutil.rmtree(study.path / trial_folder(trial.kind, trial.number), ignore_errors=True)


def _in_state(record: optuna.Study, state: TrialState) -> list[FrozenTrial]:
    return record.get_trials(deepcopy=False, states=(state,))
