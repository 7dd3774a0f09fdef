from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial

from bvae_tune.randomness import derive_seed
from bvae_tune.search.sampling import (
    SeededSampler,
    draw_parameters,
    grid_points,
    optuna_distribution,
    trials_possible,
    value_at,
)
from bvae_tune.space_config import Distribution, SearchConfig

SPACE = {
    "model.beta": Distribution("loguniform", 0.25, 128),
    "model.latent_size": Distribution("int", 2, 20),
    "training.batch_size": Distribution("logint", 16, 128),
    "training.learning_rate": Distribution("uniform", 0.001, 0.01),
    "model.architecture": Distribution("categorical", choices=("fc", "conv")),
}
TPE = SearchConfig(sampler="tpe", startup_trials=3, seed=7)


def open_study(journal: Path, search: SearchConfig, space: dict[str, Distribution] = SPACE) -> optuna.Study:
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name="search",
        sampler=SeededSampler(search, space),
        direction="maximize",
        load_if_exists=True,
    )


def score(parameters: dict[str, Any]) -> float:
    return -abs(parameters["model.latent_size"] - 9) - abs(parameters["model.beta"] - 20) / 10


def run(study: optuna.Study, trials: int) -> list[dict[str, Any]]:
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial.number, score(draw_parameters(trial, SPACE)))
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_that_starts_anew_before_every_trial_draws_what_one_in_a_piece_draws(
    tmp_path: Path, sampler: Any
) -> None:
    search = SearchConfig(sampler=sampler, startup_trials=3, seed=7)
    whole = run(open_study(tmp_path / "whole", search), 8)
    for _ in range(8):
        pieces = run(open_study(tmp_path / "pieces", search), 1)
    assert pieces == whole
    assert len({trial["model.beta"] for trial in whole}) == 8
    other = run(open_study(tmp_path / "other", SearchConfig(sampler=sampler, startup_trials=3, seed=8)), 1)
    assert other[0] != whole[0]


@pytest.mark.parametrize("drawn_before_the_kill", range(len(SPACE)))
@pytest.mark.parametrize("finished", [1, 5], ids=["at the start", "by TPE"])
def test_a_trial_killed_while_its_parameters_were_drawn_gets_the_ones_it_would_have_had(
    tmp_path: Path, drawn_before_the_kill: int, finished: int
) -> None:
    expected = run(open_study(tmp_path / "whole", TPE), finished + 1)[-1]
    study = open_study(tmp_path / "killed", TPE)
    run(study, finished)
    draw_parameters(study.ask(), dict(list(SPACE.items())[:drawn_before_the_kill]))

    resumed = open_study(tmp_path / "killed", TPE)
    (unfinished,) = resumed.get_trials(states=(optuna.trial.TrialState.RUNNING,))
    assert len(unfinished.params) == drawn_before_the_kill
    taken_over = draw_parameters(Trial(resumed, unfinished._trial_id), SPACE)
    assert taken_over == expected


def test_tpe_draws_as_optunas_own_sampler_of_the_same_seed(tmp_path: Path) -> None:
    study = open_study(tmp_path / "journal", TPE)
    run(study, 5)
    mine = draw_parameters(study.ask(), SPACE)
    reference = optuna.create_study(direction="maximize")
    reference.add_trials(study.trials[:5])
    reference.sampler = TPESampler(
        multivariate=True, constant_liar=True, n_startup_trials=3, seed=derive_seed(7, "sampler relative", 5)
    )
    assert mine == draw_parameters(reference.ask(), SPACE)


def test_the_first_trials_of_tpe_lie_in_different_parts_of_every_range(tmp_path: Path) -> None:
    search = SearchConfig(sampler="tpe", startup_trials=19, seed=7)
    trials = run(open_study(tmp_path / "journal", search), 19)
    octaves = [np.log2(trial["model.beta"] / 0.25) for trial in trials]
    assert sorted(int(octave / 9 * 19) for octave in octaves) == list(range(19))
    assert sorted(trial["model.latent_size"] for trial in trials) == list(range(2, 21))
    assert [trial["model.architecture"] for trial in trials].count("fc") in (9, 10)
    # The keys' orders are independent: the hypercube is not its diagonal.
    assert abs(np.corrcoef(octaves, [trial["model.latent_size"] for trial in trials])[0, 1]) < 0.9


@pytest.mark.parametrize(("key", "low", "high"), [(key, d.low, d.high) for key, d in SPACE.items() if d.low])
def test_shares_of_a_range_run_from_end_to_end(key: str, low: float, high: float) -> None:
    distribution = optuna_distribution(SPACE[key])
    values = [value_at(distribution, share) for share in np.linspace(0, 1, 100, endpoint=False)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(low)
    assert values[-1] == pytest.approx(high, rel=0.1)
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in values)


def test_the_grid_gives_every_point_once_by_the_trials_number(tmp_path: Path) -> None:
    space = {
        "model.beta": Distribution("grid", choices=(1.0, 4.0, 16.0)),
        "model.latent_size": Distribution("categorical", choices=(2, 5)),
    }
    search = SearchConfig(sampler="grid")
    drawn = []
    for _ in range(6):
        study = open_study(tmp_path / "journal", search, space)
        drawn.append(draw_parameters(study.ask(), space))
    assert (
        drawn
        == grid_points(space)
        == [{"model.beta": beta, "model.latent_size": size} for beta in (1.0, 4.0, 16.0) for size in (2, 5)]
    )
    assert trials_possible(space, search) == 6
    assert trials_possible(space, TPE) is None


def test_values_stay_in_their_ranges_and_keep_their_types(tmp_path: Path) -> None:
    for parameters in run(open_study(tmp_path / "journal", TPE), 12):
        for key, distribution in SPACE.items():
            inner = optuna_distribution(distribution)
            assert inner._contains(inner.to_internal_repr(parameters[key]))
        assert isinstance(parameters["model.latent_size"], int)
        assert isinstance(parameters["training.batch_size"], int)
        assert isinstance(parameters["model.beta"], float)
