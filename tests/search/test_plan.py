"""What `plan` counts and measures, on a tiny study. Seed: 3, the study's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bvae_tune.data.sources import open_dataset
from bvae_tune.errors import InputError
from bvae_tune.search.plan import START_SECONDS, costliest, make_plan
from bvae_tune.search.sampling import bank_sizes
from bvae_tune.space import load_space
from bvae_tune.training.bank import Bank

MakeSpace = Callable[..., dict[str, Any]]


def test_the_costliest_trial_takes_the_largest_of_everything(make_space: MakeSpace) -> None:
    searched = {
        "beta": {"loguniform": [0.25, 16]},
        "latent_size": {"int": [2, 6]},
        "model.widths": {"categorical": [[9, 9, 9], [100], [8]]},
        "training.batch_size": {"grid": [32, 4]},
        "training.steps": {"logint": [10, 40]},
    }
    model, training = costliest(load_space(make_space(space=searched)))
    assert (model.latent_size, model.widths, model.beta) == (6, (100,), 16)
    assert (training.batch_size, training.steps) == (32, 40)
    # null stands for Table 1's.
    searched["model.widths"] = {"categorical": [[9, 9, 9], None, [100]]}
    assert costliest(load_space(make_space(space=searched)))[0].widths is None


def test_sizes_are_those_of_the_bank(make_space: MakeSpace) -> None:
    config = load_space(make_space(protocol={"replicas": 2}, search={"keep_models": 1}))
    plan = make_plan(config)
    model, training = costliest(config)
    bank = Bank(model, training, open_dataset(config.dataset), (1, 2))
    assert plan.calibration.parameters * 2 == sum(tensor.numel() for tensor in bank.weights().values())
    assert plan.calibration.weights_bytes == 4 * 2 * plan.calibration.parameters
    bank.train(1)
    assert plan.calibration.checkpoint_bytes == sum(tensor.nbytes for tensor in bank.state().values())
    assert (plan.trials, plan.controls, plan.replicas, plan.steps, plan.reports) == (4, 2, 2, 30, 3)
    assert plan.placement.concurrent == plan.measured_at_once == 1
    assert plan.memory_bytes == plan.calibration.memory_bytes > 50e6
    assert plan.peak_disk_bytes - plan.disk_bytes == 3 * plan.calibration.checkpoint_bytes
    spent = 30 * plan.calibration.seconds_per_step + 3 * plan.calibration.seconds_per_report
    assert plan.seconds_per_trial == pytest.approx(spent)
    # Four trials and β = 1, one after the other; the untrained baseline takes no steps.
    assert plan.seconds > 5 * plan.seconds_per_trial


def test_a_grid_has_no_more_trials_than_points(make_space: MakeSpace) -> None:
    grid = make_space(space={"beta": {"grid": [1, 2, 4]}}, search={"sampler": "grid", "trials": 9, "baselines": []})
    plan = make_plan(load_space(grid))
    assert (plan.trials, plan.controls) == (3, 0)


def test_a_bank_of_trials_is_planned_as_what_runs(make_space: MakeSpace) -> None:
    space = make_space(
        space={"latent_size": {"grid": [2, 4]}, "beta": {"grid": [1, 2, 4]}},
        search={"sampler": "grid", "trials": 5, "baselines": ["untrained", "beta=1"]},
    )
    alone = make_plan(load_space(space))
    space["resources"]["trials_per_bank"] = 2
    config = load_space(space)
    assert bank_sizes(config) == [2, 1, 2]  # of a column of three, and of one that is not whole
    banks = make_plan(config)
    assert (banks.trials, banks.trials_per_bank, banks.measured_at_once) == (5, 2, 1)
    assert banks.calibration.weights_bytes == alone.calibration.weights_bytes
    assert banks.calibration.checkpoint_bytes == pytest.approx(alone.calibration.checkpoint_bytes, abs=8)
    for plan in (alone, banks):  # a single slot: five trials and β = 1, one after the other
        assert plan.seconds == pytest.approx(START_SECONDS + 6 * plan.seconds_per_trial)


def test_what_cannot_run_cannot_be_planned(make_space: MakeSpace) -> None:
    with pytest.raises(InputError, match="labels"):
        make_plan(load_space(make_space(labels={"factors": ["z"]})))
    with pytest.raises(InputError, match="cpus_per_trial"):
        make_plan(load_space(make_space(resources={"cpus_per_trial": 10_000})))
