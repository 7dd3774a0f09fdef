from __future__ import annotations

import dataclasses
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState, create_trial
from rich.console import Console, RenderableType

from bvae_tune.data.factors import FactorSpace
from bvae_tune.data.image_store import write_store
from bvae_tune.data.shapes import EqualImages
from bvae_tune.reporting import tables
from bvae_tune.search import folder
from bvae_tune.search.confirm import Confirmation
from bvae_tune.search.journal import open_record
from bvae_tune.search.records import STATES, TrialRecord
from bvae_tune.search.study import Study
from bvae_tune.space import load_space

MakeRecord = Callable[..., TrialRecord]
MakeStudy = Callable[..., Study]


def printed(what: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.fixture
def make_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeStudy:
    """Makes a study's real folder and record of the given trials and controls, in the working directory's `runs`."""
    monkeypatch.chdir(tmp_path)

    def make(trials: list[TrialRecord], controls: list[TrialRecord]) -> Study:
        config = load_space("shapes", ["search.trials=9"])
        path = folder.create_folder("runs", "shapes-1", config.to_yaml(), {"dimensions": 4096})
        for record, study in zip((trials, controls), open_record(path / folder.JOURNAL), strict=True):
            for trial in record:
                _store(study, trial)
        return Study.open(path)

    return make


def _store(study: optuna.Study, record: TrialRecord) -> None:
    attributes = {
        "kind": record.kind,
        "label": record.label,
        "parameters": record.parameters,
        "setting": {"beta": record.beta, "beta_norm": record.beta_norm, "latent_size": record.latent_size},
        "result": record.result.to_dict() if record.result else None,
        "reason": record.reason,
    }
    state = next(TrialState[name] for name, state in STATES.items() if state == record.state)
    present = {key: value for key, value in attributes.items() if value is not None}
    study.add_trial(
        create_trial(state=state, value=record.score, intermediate_values=record.intermediate, user_attrs=present)
    )


@pytest.mark.parametrize("width", [80, 140])
def test_the_trials_table_holds_every_trial_within_the_width(make_record: MakeRecord, width: int) -> None:
    records = [
        make_record(0, kind="baseline", label="untrained", score=0.352, step=0, kl=0.05055),
        make_record(0, beta=118.22, latent_size=20, score=0.8125, replicas=4, step=12000, kl=0.4),
        make_record(1, "pruned", beta=0.25, latent_size=2, score=0.3, step=200, kl=31.416),
        make_record(2, "failed", beta=0.5, step=0, reason="the loss is not finite at step 17"),
        make_record(3, "running", score=0.5, step=100),
    ]
    text = printed(tables.trials_table(records), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert re.search(r"trial +state +β +KL +β_norm +M +step +score +MIG +time +misses", text)
    assert re.search(r"untrained +complete +4 +0\.05 +0\.00293 +3 +0 +35\.2% +12\.5% +0:01 +rotation", text)
    assert re.search(r"trial 0 +complete +118 +1\.90 +0\.577 +20 +12000 +81\.2% ± 4\.0 +12\.5% +20:01", text)
    assert re.search(r"trial 1 +pruned +0\.25 +31\.42 +0\.000122 +2 +200 +30\.0%", text)
    assert re.search(r"trial 2 +failed +0\.5 +– +0\.000366 +3 +0 +– +– +– *$", text, re.MULTILINE)
    assert re.search(r"trial 3 +running +4 +8\.00 +0\.00293 +3 +100 +50\.0%", text)
    assert "KL in nats per image; scores at L = 4, chance 25.0%" in text
    assert "trial 2 failed: the loss is not finite at step 17" in text


def test_a_long_label_is_folded_before_any_number_is_cut(make_record: MakeRecord) -> None:
    records = [
        make_record(0, beta=52.1, latent_size=18, score=0.885, step=7500),
        make_record(
            8, kind="confirm", label="beta=1 for trial 2, pair 3", beta=1.0, latent_size=18, step=7500, kl=24.7
        ),
    ]
    text = printed(tables.trials_table(records))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert re.search(r"complete +1 +24\.70 +0\.00439 +18 +7500 +50\.0% +12\.5% +12:31 +rotation", text)
    assert "beta=1 for trial 2, pair 3 complete" in words(printed(tables.trials_table(records), 120))


def test_other_searched_keys_have_a_column_each(make_record: MakeRecord) -> None:
    record = make_record(0)
    record.parameters.update({"training.learning_rate": 0.00213, "training.optimizer": "adam"})
    noticed = make_record(1, result=dataclasses.replace(record.result, notice="its replicas trained in turns"))
    text = printed(tables.trials_table([record, noticed]), 120)
    assert re.search(r"M +learning_rate +optimizer +step", text)
    assert re.search(r"trial 0 .* 0\.00213 +adam ", text)
    # Folded where there is no room; nothing is cut off.
    narrow = printed(tables.trials_table([record]), 80)
    assert "…" not in narrow
    assert "rotation" in "".join(line.split()[-1] for line in narrow.splitlines() if line.split())
    assert "trial 1: its replicas trained in turns" in text


def test_status_tells_how_a_study_stands(make_study: MakeStudy, make_record: MakeRecord) -> None:
    trials = [make_record(0, score=0.61), make_record(1, "pruned", step=100), make_record(2, "running", step=100)]
    study = make_study(trials, [make_record(0, kind="baseline", label="untrained", score=0.35, step=0)])
    text = words(printed(tables.status(study)))
    assert f"interrupted; go on with: bvae-tune resume {os.path.join('runs', 'shapes-1')} " in text
    assert "2 of 9: 1 complete, 1 pruned" in text
    assert "1 of 1 baselines" in text
    assert "61.0% (L = 4) in trial 0: β 4, β_norm 0.00293, M 3" in text
    assert "unfinished trial 2 at step 100" in text
    with folder.driver_lock(study.path):
        text = words(printed(tables.status(study), 200))
        assert f"running, driven by {study.driver}" in text
        assert "trial 2 running" in text
    study.searched.tell(2, state=TrialState.FAIL)
    for number in range(3, 9):
        _store(study.searched, make_record(number))
    assert "state finished" in words(printed(tables.status(study)))


def test_best_stands_against_chance_and_the_baselines(make_study: MakeStudy, make_record: MakeRecord) -> None:
    controls = [
        make_record(0, kind="baseline", label="untrained", score=0.352, step=0),
        make_record(1, kind="baseline", label="beta=1", beta=1.0, score=0.51, kl=22.0),
        make_record(2, kind="confirm", label="trial 0, pair 0", score=0.2),
    ]
    lucky = make_record(0, score=0.91, beta=32.1, latent_size=10, replicas=4, kl=6.0)
    study = make_study([lucky, make_record(1, score=0.5)], controls)
    text = printed(tables.best(study))
    assert max(map(len, text.splitlines())) <= 80
    assert "best so far is trial 0" in text
    assert "β 32.1, β_norm 0.0784, M 10" in text
    assert re.search(r"β +KL \(nats\) +M +score \(L = 4\) +MIG +not represented", text)
    assert re.search(r"trial 0 +32\.1 +7\.50 +10 +91\.0% ± 4\.0 +12\.5% +rotation", text)
    assert re.search(r"untrained +4 +8\.00 +3 +35\.2%", text)
    assert re.search(r"beta=1 +1 +22\.00 +3 +51\.0%", text)
    assert re.search(r"chance +25\.0%", text)
    assert "score (L = 4)" in text
    assert "L = 1 45.5%, L = 4 91.0%, L = 64 90.0%" in text
    assert re.search(r"scale +━{15}┄{5} +75\.0%", text)
    assert re.search(r"rotation +━┄{19} +3\.0%", text)
    assert "No trial represents every factor; this one misses rotation." in text
    assert "One replica" not in text
    assert "pair 0" not in text
    for command in ("confirm", "traverse", "trials", "tensorboard"):
        assert f"bvae-tune {command} {os.path.join('runs', 'shapes-1')} " in text


def test_the_best_that_misses_no_factor_is_named_beside_it(make_study: MakeStudy, make_record: MakeRecord) -> None:
    whole = make_record(1, score=0.7)
    assert whole.result is not None
    score = dataclasses.replace(whole.result.score, missing=(), converged=False)
    whole = dataclasses.replace(whole, result=dataclasses.replace(whole.result, score=score))
    text = printed(tables.best(make_study([make_record(0, score=0.8), whole], [])))
    assert re.search(r"trial 0 +4 +8\.00 +3 +80\.0% +12\.5% +rotation", text)
    assert re.search(r"trial 1 +4 +8\.00 +3 +70\.0% +12\.5% +–", text)
    assert "No trial represents every factor" not in text
    assert "One replica per trial" in text


def test_a_study_without_a_finished_trial_has_no_best(make_study: MakeStudy, make_record: MakeRecord) -> None:
    study = make_study([make_record(0, "running", step=100)], [])
    text = words(printed(tables.best(study)))
    assert "no trial has finished yet (interrupted; go on with: bvae-tune resume runs/shapes-1)" in text
    with folder.driver_lock(study.path):
        assert f"no trial has finished yet (running, driven by {study.driver})" in words(printed(tables.best(study)))


def test_the_best_of_an_unfinished_study_is_so_far(make_study: MakeStudy, make_record: MakeRecord) -> None:
    study = make_study([make_record(0), make_record(1, "pruned", step=100), make_record(2, "running", step=100)], [])
    heading = "shapes-1: best so far is trial 0, after 2 of 9 trials"
    assert f"{heading} (interrupted; go on with: " in words(printed(tables.best(study)))
    assert re.search(r"trial 2 +interrupted ", printed(tables.trials_table(study.trials)))
    with folder.driver_lock(study.path):
        assert f"{heading} (running, driven by " in words(printed(tables.best(study)))
        assert re.search(r"trial 2 +running ", printed(tables.trials_table(study.trials)))
    study.searched.tell(2, state=TrialState.FAIL)
    for number in range(3, 9):
        _store(study.searched, make_record(number))
    assert "shapes-1: best is trial 0 " in words(printed(tables.best(study)))


def test_a_score_that_did_not_converge_says_so(make_study: MakeStudy, make_record: MakeRecord) -> None:
    record = make_record(0)
    assert record.result is not None
    score = dataclasses.replace(record.result.score, converged=False)
    record = dataclasses.replace(record, result=dataclasses.replace(record.result, score=score))
    assert "stopped at its iteration bound" in words(printed(tables.best(make_study([record], []))))


def test_a_factor_that_took_no_part_is_told_with_the_reason(make_study: MakeStudy, make_record: MakeRecord) -> None:
    record = make_record(0)
    assert record.result is not None
    score = dataclasses.replace(record.result.score, unusable={"colour": "one value only"})
    record = dataclasses.replace(record, result=dataclasses.replace(record.result, score=score))
    assert "colour took no part: one value only" in words(printed(tables.best(make_study([record], []))))


def test_a_search_that_loses_to_a_plain_vae_says_so(make_study: MakeStudy, make_record: MakeRecord) -> None:
    ordinary = make_record(0, kind="baseline", label="beta=1", beta=1.0, score=0.8)
    study = make_study([make_record(0, score=0.7)], [ordinary])
    assert "No trial beats beta=1 (80.0%)." in words(printed(tables.best(study)))
    _store(study.searched, make_record(1, score=0.9))
    assert "No trial beats" not in words(printed(tables.best(study)))


def test_a_collapsed_best_says_so(make_study: MakeStudy, make_record: MakeRecord) -> None:
    record = make_record(0)
    assert record.result is not None
    off = dataclasses.replace(record, result=dataclasses.replace(record.result, kl_per_latent=((0.001, 0.002),)))
    study = make_study([off], [])
    told = "every latent switched off (each KL below 0.01 nats per image)"
    assert f"It has {told}, as has every trial that ran to its end" in words(printed(tables.best(study)))
    _store(study.searched, make_record(1, score=0.4))
    text = words(printed(tables.best(study)))
    assert "best so far is trial 1" in text
    assert f"Not counted are those that score higher with {told}: trial 0 50.0%." in text
    assert f"E{told[1:]}: trial 0\n" in printed(tables.trials_table(study.trials), 120)
    assert [row["collapsed"] for row in study.rows()] == [True, False]
    _store(study.searched, make_record(2, score=0.9))
    assert "switched off" not in words(printed(tables.best(study)))


def test_a_confirmation_shows_both_with_their_spread_and_the_lead() -> None:
    found = Confirmation(4, 32.1, 0.08, 10, 0.91, (0.83, 0.85, 0.79, 0.9), (0.5, 0.55, 0.61, 0.48), 4, 1, 2, 3)
    text = printed(tables.confirmation(found))
    assert re.search(r"trial 4, retrained +32\.1 +10 +84\.2% ± 4\.6 +83\.0%, 85\.0%, 79\.0%, 90\.0%", text)
    assert re.search(r"β = 1 +1 +10 +53\.5% ± 5\.8 +50\.0%, 55\.0%, 61\.0%, 48\.0%", text)
    assert "91.0%" in text
    # Leads 33, 30, 18, 42: mean 30.75, standard deviation 9.91, over the root of 4.
    assert "lead over β = 1 in 4 pairs of seeds: +30.8 ± 5.0 (standard error)" in words(text)
    assert "one of the two failed: 1." in text
    assert "Of trial 4, retrained, 2 have every latent switched off" in words(text)
    assert "Of β = 1, retrained, 3 have every latent switched off" in words(text)


def test_the_best_is_shown_with_what_fresh_seeds_said(make_study: MakeStudy, make_record: MakeRecord) -> None:
    study = make_study([make_record(4)], [make_record(0, "failed", kind="baseline", label="beta=1", step=0)])
    found = Confirmation(4, 32.1, 0.08, 10, 0.91, (0.83, 0.85), (0.5, 0.55), 4, 0, 0, 0)
    text = words(printed(tables.best(study, found)))
    assert "Confirmed on fresh seeds, which is what to quote:" in text
    assert "lead over β = 1 in 2 pairs of seeds: +31.5 ± 1.5" in text
    assert "how far its score is luck" not in text
    assert "how far its score is luck" in words(printed(tables.best(study)))
    assert "1 of 1 baselines, 1 failed" in words(printed(tables.status(study)))


def test_a_single_pair_has_no_standard_error() -> None:
    text = printed(tables.confirmation(Confirmation(4, 32.1, 0.08, 10, 0.91, (0.83,), (0.5,), 4, 0, 0, 0)))
    assert "switched off" not in text
    assert "+33.0 points" in text
    assert "nan" not in text
    assert "failed" not in text


def test_data_info_shows_facts_factors_and_equal_images(tmp_path: Path) -> None:
    space = FactorSpace(("shape", "scale"), ((0.0, 1.0), (0.5, 0.75, 1.0)))
    factors = space.factors(np.arange(6))
    store = write_store(
        tmp_path / "s.arrow", np.zeros((6, 8), np.uint8), name="tiny", size=(1, 8, 8), bits=1,
        factors=factors, factor_space=space,
    )  # fmt: skip
    equal = [EqualImages(shape, scale, 1000, 25, 10) for shape in ("square", "heart") for scale in (0.5, 1.0)]
    text = printed(tables.data_info(store, {"mean pixel": "0.0425"}, equal))
    assert "6 of 1 × 8 × 8, binary" in text
    assert store.fingerprint in text
    assert re.search(r"mean pixel +0\.0425", text)
    assert re.search(r"scale +3 +0\.5 +1", text)
    assert re.search(r"heart +2\.5 \+ 1\.0 +2\.5 \+ 1\.0", text)


def test_data_info_of_images_without_factors(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.arrow", np.zeros((2, 12), np.uint8), name="bare", size=(3, 2, 2), bits=8)
    text = printed(tables.data_info(store))
    assert "2 of 3 × 2 × 2, 8 bit" in text
    assert "factor" not in text
