from __future__ import annotations

from collections.abc import Callable

import pytest

from bvae_tune.search.records import TrialRecord
from bvae_tune.search.study import row

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
