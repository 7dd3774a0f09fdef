from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from bvae_tune.search.records import TrialRecord, objective, ranked
from bvae_tune.search.study import kept_trials, row

MakeRecord = Callable[..., TrialRecord]


def test_the_kl_of_a_trial_is_the_mean_over_its_replicas(make_record: MakeRecord) -> None:
    # 3, 4, 5 and 6 nats.
    assert make_record(replicas=4, kl=3.0).kl == pytest.approx(4.5)


def test_a_row_has_the_kl_beside_beta_wherever_it_was_measured(make_record: MakeRecord) -> None:
    untrained = row(make_record(kind="baseline", label="untrained", step=0, kl=0.05))
    pruned = row(make_record(state="pruned", step=100, kl=12.5))
    failed_late = row(make_record(state="failed", step=100, kl=40.0))
    failed_early = row(make_record(state="failed", step=0))
    rows = [untrained, pruned, failed_late, failed_early]
    assert [each["kl"] for each in rows] == [0.05, 12.5, 40.0, None]
    assert all(list(each).index("kl") == list(each).index("beta") + 1 for each in rows)


def test_a_collapsed_code_comes_last_and_is_worth_chance_to_the_sampler(make_record: MakeRecord) -> None:
    def with_kl(record: TrialRecord, *kl_per_latent: tuple[float, ...]) -> TrialRecord:
        assert record.result is not None
        return dataclasses.replace(record, result=dataclasses.replace(record.result, kl_per_latent=kl_per_latent))

    off = with_kl(make_record(0, score=0.9), (0.009, 0.0), (0.001, 0.002))
    half_off = with_kl(make_record(1, score=0.6), (0.009, 0.0), (0.001, 0.3))
    infogan = with_kl(make_record(2, score=0.5))
    lower = make_record(3, score=0.4)
    trials = [off, half_off, infogan, lower, make_record(4, "pruned", score=0.95, step=100)]
    assert [trial.collapsed for trial in trials] == [True, False, False, False, False]
    assert ranked(trials) == [half_off, infogan, lower, off]
    assert kept_trials(trials, 3) == [half_off, infogan, lower]
    assert [objective(trial.result) for trial in (off, half_off) if trial.result] == [0.25, 0.6]
