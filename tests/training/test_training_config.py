from __future__ import annotations

import math
from typing import Any

import pytest

from bvae_tune.errors import InputError
from bvae_tune.training.config import TrainingConfig, beta_share_at, learning_rate_at


def test_constant_rate_without_warmup() -> None:
    training = TrainingConfig(learning_rate=0.01, steps=100)
    assert {learning_rate_at(training, step) for step in range(100)} == {0.01}


def test_warmup_rises_in_equal_steps_to_the_peak() -> None:
    training = TrainingConfig(learning_rate=0.01, warmup=0.05, steps=100)
    rates = [learning_rate_at(training, step) for step in range(7)]
    assert rates == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01, 0.01, 0.01])


def test_cosine_falls_from_the_peak_to_zero_over_the_rest() -> None:
    training = TrainingConfig(learning_rate=0.01, schedule="cosine", warmup=0.2, steps=100)
    rates = [learning_rate_at(training, step) for step in range(101)]
    assert rates[20] == pytest.approx(0.01)
    assert rates[60] == pytest.approx(0.005)
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[40] == pytest.approx(0.005 * (1 + math.cos(math.pi / 4)))


def test_beta_is_constant_unless_annealed() -> None:
    assert beta_share_at(TrainingConfig(steps=100), 0) == 1
    annealed = TrainingConfig(steps=100, beta_anneal=0.5)
    assert [beta_share_at(annealed, step) for step in (0, 25, 50, 99)] == [0, 0.5, 1, 1]


def test_no_steps_divide_by_nothing() -> None:
    training = TrainingConfig(steps=0, schedule="cosine", warmup=0.1, beta_anneal=0.5)
    assert learning_rate_at(training, 0) == training.learning_rate
    assert beta_share_at(training, 0) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sgd"}, "training.optimizer: 'sgd' is not one of adagrad, adam"),
        ({"schedule": "linear"}, "training.schedule: 'linear' is not one of constant, cosine"),
        ({"precision": "float16"}, "training.precision: 'float16' is not one of float32, bfloat16"),
        ({"learning_rate": 0.0}, "training.learning_rate: 0.0"),
        ({"learning_rate": math.inf}, "training.learning_rate: inf"),
        ({"batch_size": 0}, "training.batch_size: 0 must be at least 1"),
        ({"steps": -1}, "training.steps: -1 must be at least 0"),
        ({"report_every": 0}, "training.report_every: 0 must be at least 1"),
        ({"warmup": 1.5}, "training.warmup: 1.5"),
        ({"beta_anneal": -0.1}, "training.beta_anneal: -0.1"),
    ],
)
def test_settings_out_of_range_name_the_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        TrainingConfig(**settings)
    assert message in str(raised.value)
