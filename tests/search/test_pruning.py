from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from bvae_tune.randomness import generator
from bvae_tune.search.pruning import build_pruner, judge
from bvae_tune.space_config import SearchConfig

HALVING = SearchConfig(pruner="halving", min_resource=10, reduction_factor=2)
MEDIAN = SearchConfig(pruner="median", min_resource=20, startup_trials=2)
SCORES = generator(5, "scores").random((12, 8))  # trial, report


STEPS = range(20, 180, 20)  # the first report passes two rungs of halving


def own_run(search: SearchConfig) -> list[tuple[TrialState, dict[int, float]]]:
    """Trials one after another under Optuna's own `should_prune`."""
    study = optuna.create_study(direction="maximize", pruner=build_pruner(search))
    for scores in SCORES:
        trial = study.ask()
        for step, value in zip(STEPS, scores, strict=True):
            trial.report(value, step)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, scores[-1])
    return [(trial.state, trial.intermediate_values) for trial in study.trials]


def judged_run(search: SearchConfig, killed_after: int) -> list[tuple[TrialState, dict[int, float]]]:
    """The same by `judge`; at every report a driver dies after so many notes, and the next one judges again."""
    pruner = build_pruner(search)
    assert pruner is not None
    study = optuna.create_study(direction="maximize")
    for number, scores in enumerate(SCORES):
        trial = study.ask()
        for step, value in zip(STEPS, scores, strict=True):
            trial.report(value, step)
            first, notes = judge(study, pruner, number)
            write(study, trial, dict(list(notes.items())[:killed_after]))
            # The verdict itself is recorded before any note (see Recorder), so one that stops is never asked twice.
            if first:
                write(study, trial, notes)
                study.tell(number, state=TrialState.PRUNED)
                break
            again, missing = judge(study, pruner, number)
            assert again is False
            write(study, trial, missing)
        else:
            study.tell(number, scores[-1])
    return [(trial.state, trial.intermediate_values) for trial in study.trials]


def write(study: optuna.Study, trial: optuna.Trial, notes: dict[str, float]) -> None:
    for key, value in notes.items():
        study._storage.set_trial_system_attr(trial._trial_id, key, value)


@pytest.mark.parametrize("killed_after", [0, 1, 2])
@pytest.mark.parametrize("search", [HALVING, MEDIAN], ids=["halving", "median"])
def test_decisions_are_those_of_optuna_also_when_they_are_made_twice(search: SearchConfig, killed_after: int) -> None:
    reference = own_run(search)
    assert judged_run(search, killed_after) == reference
    states = [state for state, _ in reference]
    assert TrialState.PRUNED in states
    assert TrialState.COMPLETE in states


def test_no_pruner_is_built_where_none_is_asked_for() -> None:
    assert build_pruner(SearchConfig()) is None
