"""Whole studies on a real embedded Ray and a real Optuna journal. The search seed is 3 (see conftest)."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet
from ray._private.state import actors
from rich.console import Console

from bvae_tune.data.sources import import_arrays, open_dataset
from bvae_tune.errors import InputError
from bvae_tune.randomness import derive_seed
from bvae_tune.search.confirm import BASELINE, BEST, confirm, read_confirmation
from bvae_tune.search.runner import add_baselines, create, resume, search
from bvae_tune.search.study import Study
from bvae_tune.search.task import TrialTask
from bvae_tune.search.trial_run import TrialData, TrialRun
from bvae_tune.space import load_space

pytestmark = pytest.mark.usefixtures("embedded_ray")
MakeSpace = Callable[..., dict[str, Any]]
Invoke = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def told() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def finished(make_space: MakeSpace, tmp_path_factory: pytest.TempPathFactory, told: io.StringIO) -> Study:
    """Four trials, two at once, and both baselines."""
    space = make_space(search={"keep_models": 1}, resources={"concurrent_trials": 2})
    storage = tmp_path_factory.mktemp("runs")
    return search(space, name="one", storage=storage, console=Console(file=told, width=200))


def count_workers() -> int:
    """How many processes Ray has started for trials, those that have ended included."""
    return sum(actor["ActorClassName"] == "BetaVAETrainable" for actor in actors().values())


@pytest.fixture
def own_copy(finished: Study, tmp_path: Path) -> Path:
    """The finished study, to be changed."""
    shutil.copytree(finished.path, tmp_path / "copy")
    return tmp_path / "copy"


def test_every_trial_is_in_the_record_once_and_complete(finished: Study) -> None:
    study = Study.open(finished.path)
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    assert {trial.state for trial in (*study.trials, *study.controls)} == {"complete"}
    assert study.finished
    for trial in study.trials:
        assert set(trial.parameters) == {"model.beta", "model.latent_size"}
        assert (trial.beta, trial.latent_size) == tuple(trial.parameters.values())
        assert trial.beta_norm == pytest.approx(trial.beta * trial.latent_size / 64)
        assert list(trial.intermediate) == [10, 20, 30]
        assert trial.result is not None
        assert trial.score == trial.intermediate[30] == trial.result.score.score
    assert len({trial.beta for trial in study.trials}) == 4


def test_baselines_are_controls_at_the_same_budget_and_never_the_best(finished: Study) -> None:
    assert [(record.kind, record.label) for record in finished.controls] == [
        ("baseline", "untrained"),
        ("baseline", "beta=1"),
    ]
    untrained, one = finished.controls
    assert list(untrained.intermediate) == [0]
    assert list(one.intermediate) == [10, 20, 30]
    assert (one.beta, one.latent_size) == (1.0, 3)
    begun = [trial.datetime_start for trial in (*finished.control_trials.trials, *finished.searched.trials)]
    assert begun == sorted(begun), "baselines run first"
    best = finished.best
    assert best in finished.trials
    assert best is not None
    assert best.score == max(trial.score or 0.0 for trial in finished.trials)


def test_a_trial_scores_what_its_task_scores_alone(finished: Study) -> None:
    trial = finished.trials[2]
    model, training = finished.configuration(trial)
    task = TrialTask(
        study=str(finished.path),
        folder="elsewhere",
        model=model,
        training=training,
        seeds=(derive_seed(3, "trial", 2),),
        evaluation_seed=3,
        dataset=finished.config.dataset,
        labels=finished.config.labels,
        fingerprints=(finished.facts["images"], finished.facts["labels"]),
        metric=finished.config.metric,
        protocol=finished.config.protocol,
    )
    run = TrialRun(task, TrialData())
    scores = {result.step: result.score.score for result, _ in (run.advance() for _ in range(3))}
    shutil.rmtree(finished.path / "elsewhere")
    assert scores == trial.intermediate


def test_the_folder_stays_small_and_keeps_the_weights_of_the_best(finished: Study) -> None:
    names = {path.name for path in finished.path.iterdir()}
    assert names == {
        "space.yaml", "study.json", "optuna.journal", "trials", "controls", "tensorboard", "results.parquet",
        "driver.lock",
    }  # fmt: skip
    best, whole = finished.best, finished.best_complete
    assert best is not None
    kept = {best.number, whole.number if whole else best.number}
    assert {int(path.name) for path in (finished.path / "trials").iterdir()} == kept
    assert {path.name for path in (finished.path / "controls").iterdir()} == {"00001"}
    untrained, one = finished.controls
    assert finished.checkpoint(best).weights
    assert finished.checkpoint(one).weights
    with pytest.raises(InputError, match="of untrained networks"):
        finished.checkpoint(untrained)
    dropped = next(trial for trial in finished.trials if trial.number not in kept)
    with pytest.raises(InputError, match="keep_models is 1"):
        finished.checkpoint(dropped)
    assert finished.size_bytes < 500_000


def test_results_are_a_table_of_all_trials(finished: Study) -> None:
    table = parquet.read_table(finished.path / "results.parquet").to_pylist()
    assert [(row["kind"], row["number"]) for row in table] == [("baseline", 0), ("baseline", 1)] + [
        ("search", number) for number in range(4)
    ]
    for row, trial in zip(table[2:], finished.trials, strict=True):
        assert (row["score"], row["beta"], row["latent_size"]) == (trial.score, trial.beta, trial.latent_size)
        assert row["score_step_20"] == trial.intermediate[20]
    for row, record in zip(table, [*finished.controls, *finished.trials], strict=True):
        assert record.result is not None
        assert row["kl"] == pytest.approx(sum(record.result.kl_per_latent[0]))


def test_progress_and_cost_are_told(finished: Study, told: io.StringIO) -> None:
    assert "4 of 4 trials" in told.getvalue()
    share = finished.share_of_work
    assert share is not None
    assert 0 < share < 1
    (session,) = finished.sessions
    assert session["concurrent"] == 2
    assert session["cpus_per_trial"] == 1
    finished.searched.set_user_attr("session 0000", {**session, "cores": 0})  # a cluster that grows from zero
    assert finished.share_of_work is None
    finished.searched.set_user_attr("session 0000", session)
    assert session["end"] > session["start"]


def test_the_share_of_work_needs_one_number_of_cores_a_trial(own_copy: Path) -> None:
    study = Study.open(own_copy)
    (session,) = study.sessions
    study.searched.set_user_attr("session 0001", {**session, "cpus_per_trial": 2})
    assert study.share_of_work is None  # which trial had which is not recorded
    older = {key: value for key, value in session.items() if key != "cpus_per_trial"}
    study.searched.set_user_attr("session 0001", older)
    assert study.share_of_work is not None


def test_trainings_ahead_are_counted(finished: Study, make_space: MakeSpace, tmp_path: Path) -> None:
    assert (finished.trainings(searching=True), finished.trainings(searching=False)) == (0, 0)
    betas = {"latent_size": {"grid": [2, 3]}, "beta": {"grid": [1, 2, 3]}}
    banks = make_space(space=betas, search={"trials": 6, "sampler": "grid"}, resources={"trials_per_bank": 2})
    study = Study.open(create(load_space(banks), "ahead", tmp_path))
    assert study.trainings(searching=True) == 4  # of each latent size two trials, and one
    add_baselines(study)
    assert study.trainings(searching=True) == 5  # "untrained" is not trained
    assert study.trainings(searching=False) == 1


def test_a_finished_study_is_extended_and_its_trials_are_not_run_again(own_copy: Path, invoke: Invoke) -> None:
    before = Study.open(own_copy).trials
    left = own_copy / "controls" / "00000"  # as by a kill right after the end of a trial
    left.mkdir(parents=True)
    assert resume(own_copy).trials == before
    assert not left.exists()
    outcome = invoke("resume", own_copy, "--trials", "+2")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    extended = Study.open(own_copy)
    assert extended.trials[:4] == before
    assert [trial.state for trial in extended.trials] == ["complete"] * 6
    assert len(extended.controls) == 2
    assert extended.trials_wanted == 6


def test_a_study_goes_on_where_its_tensorboard_files_cannot_be_written(own_copy: Path, invoke: Invoke) -> None:
    shutil.rmtree(own_copy / "tensorboard")
    (own_copy / "tensorboard").touch()
    outcome = invoke("resume", own_copy, "--trials", "+1")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert outcome.stdout.count("cannot be written") == 1
    assert [trial.state for trial in Study.open(own_copy).trials] == ["complete"] * 5


def test_a_confirmation_is_paired_on_fresh_seeds_and_is_only_read_again(own_copy: Path, invoke: Invoke) -> None:
    told = io.StringIO()
    found = confirm(own_copy, seeds=2, console=Console(file=told, width=200))
    assert told.getvalue().splitlines()[0] == "one: 4 controls"
    assert "one: 4 of 4 controls after " in told.getvalue()
    study = Study.open(own_copy)
    best = study.best
    assert best is not None
    assert (found.trial, found.beta, found.searched) == (best.number, best.beta, best.score)
    assert found.lead == pytest.approx(sum(found.best) / 2 - sum(found.baseline) / 2)
    assert found.standard_error == pytest.approx(abs(found.leads[0] - found.leads[1]) / 2)
    confirmations = [trial.user_attrs for trial in study.control_trials.trials if trial.user_attrs["kind"] == "confirm"]
    by_member = {
        member: [(c["seeds"], c["evaluation_seed"]) for c in confirmations if c["member"] == member]
        for member in (BEST, BASELINE)
    }
    assert by_member[BEST] == by_member[BASELINE]
    seeds = {seed for chosen, _ in by_member[BEST] for seed in chosen}
    assert len(seeds) == 2
    assert not seeds & {derive_seed(3, "trial", number) for number in range(4)}
    betas = [record.beta for record in study.controls if record.kind == "confirm"]
    assert sorted(betas) == sorted([best.beta, 1.0] * 2)
    assert {record.latent_size for record in study.controls if record.kind == "confirm"} == {best.latent_size}
    assert study.trials == Study.open(own_copy).trials

    outcome = invoke("confirm", own_copy, "--seeds", "2", "--json")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    shown = json.loads(outcome.stdout)
    assert (shown["best"], shown["baseline"], shown["lead"]) == (list(found.best), list(found.baseline), found.lead)
    assert read_confirmation(study) == found
    told_again = invoke("confirm", own_copy, "--seeds", "2").stdout
    assert "Mean lead over β = 1 in 2 pairs of seeds: " in told_again
    assert f"keep these: bvae-tune confirm {own_copy} --seeds 4\n" in told_again
    assert json.loads(invoke("best", own_copy, "--json").stdout)["confirmation"] == shown
    assert "Confirmed on fresh seeds" in invoke("best", own_copy).stdout
    assert len(Study.open(own_copy).controls) == 6
    more = confirm(own_copy, seeds=3)
    assert more.best[:2] == found.best
    assert len(more.best) == 3
    with pytest.raises(InputError, match="at least 2"):
        confirm(own_copy, seeds=1)


def test_changed_images_and_wrong_extensions_are_refused_before_anything_runs(own_copy: Path, tmp_path: Path) -> None:
    journal = (own_copy / "optuna.journal").read_bytes()
    with pytest.raises(InputError, match="trials to add"):
        resume(own_copy, extra_trials=-1)
    with pytest.raises(InputError, match="nothing answers there"):
        resume(own_copy, extra_trials=1, address="127.0.0.1:9")
    study = Study.open(own_copy)
    store = open_dataset(study.config.dataset)
    changed = tmp_path / "changed.arrow"
    every = np.arange(store.count)
    import_arrays(
        store.gather(every).numpy().reshape(-1, 8, 8)[::-1],
        factors=store.factors(every),
        factor_names=store.factor_names,
        path=changed,
    )
    space = (own_copy / "space.yaml").read_text()
    (own_copy / "space.yaml").write_text(space.replace(str(store.path), str(changed)))
    with pytest.raises(InputError, match="the images are not those"):
        resume(own_copy, extra_trials=1)
    assert (own_copy / "optuna.journal").read_bytes() == journal


def test_bad_input_leaves_no_study_behind(make_space: MakeSpace, finished: Study) -> None:
    with pytest.raises(InputError, match=r"--name one: .* exists already"):
        search(make_space(), name="one", storage=finished.path.parent)
    with pytest.raises(InputError, match="two usable factors"):
        search(make_space(labels={"factors": ["x"]}), name="two", storage=finished.path.parent)
    with pytest.raises(InputError, match="a trial takes 1000 CPUs"):
        search(make_space(resources={"cpus_per_trial": 1000}), name="two", storage=finished.path.parent)
    assert [path.name for path in finished.path.parent.iterdir()] == ["one"]


def test_a_grid_runs_each_point_once_and_cannot_be_extended(make_space: MakeSpace, tmp_path: Path) -> None:
    space = make_space(
        space={"beta": {"grid": [1, 4]}, "training.learning_rate": {"categorical": [0.01, 0.02]}},
        search={"sampler": "grid", "trials": 10, "baselines": []},
        training={"steps": 10},
    )
    workers = count_workers()
    study = search(space, name="grid", storage=tmp_path)
    assert count_workers() == workers + 1  # one process trains all trials that run one after the other
    assert [tuple(trial.parameters.values()) for trial in study.trials] == [(1, 0.01), (1, 0.02), (4, 0.01), (4, 0.02)]
    assert study.finished
    with pytest.raises(InputError, match="4 points"):
        resume(study.path, extra_trials=1)


def test_a_column_of_a_grid_is_one_bank_with_the_numbers_of_its_trials_alone(
    make_space: MakeSpace, tmp_path: Path
) -> None:
    space = make_space(
        space={"latent_size": {"grid": [2, 4]}, "beta": {"grid": [1, 4, 1e39]}},
        search={"trials": 6, "sampler": "grid", "baselines": ["untrained"]},
    )
    told = io.StringIO()
    alone = search(space, name="alone", storage=tmp_path)
    space["resources"]["trials_per_bank"] = 3
    columns = search(space, name="columns", storage=tmp_path, console=Console(file=told, width=400))
    assert [trial.state for trial in columns.trials] == 2 * ["complete", "complete", "failed"]
    for mine, other in zip([*columns.trials, *columns.controls], [*alone.trials, *alone.controls], strict=True):
        assert (mine.parameters, mine.score, mine.intermediate) == (other.parameters, other.score, other.intermediate)
        assert mine.reason == other.reason
    assert columns.best == dataclasses.replace(alone.best, seconds=columns.best.seconds, result=columns.best.result)
    began = [line.split(":")[0] for line in told.getvalue().splitlines()]
    assert began[1:-1] == ["untrained", "trial 2", "trial 0", "trial 1", "trial 5", "trial 3", "trial 4"]
    assert not any((columns.path / "trials").glob("*/step-*"))


def test_pruned_trials_keep_their_scores_and_are_never_the_best(make_space: MakeSpace, tmp_path: Path) -> None:
    space = make_space(
        search={"trials": 8, "pruner": "halving", "min_resource": 10, "baselines": []}, training={"steps": 40}
    )
    study = search(space, name="halving", storage=tmp_path)
    pruned = [trial for trial in study.trials if trial.state == "pruned"]
    complete = [trial for trial in study.trials if trial.state == "complete"]
    assert pruned
    assert complete
    assert len(pruned) + len(complete) == 8
    assert all(trial.score is None and 0 < len(trial.intermediate) < 4 for trial in pruned)
    assert study.best in complete
    stored = study.searched.trials[pruned[0].number]
    assert stored.value == list(stored.intermediate_values.values())[-1]


@pytest.mark.slow
def test_the_protocol_of_the_paper_starts_and_steps_on_a_processor(tmp_path: Path) -> None:
    settings = ["training.steps=2", "training.report_every=1", "search.trials=1", "search.baselines=[]"]
    study = search("shapes_paper", settings, name="paper", storage=tmp_path)
    (trial,) = study.trials
    assert (trial.state, list(trial.intermediate)) == ("complete", [1, 2])
    assert trial.result is not None
    assert len(trial.result.score.replica_scores) == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "trials"), [("fig5_left_paper", 1), ("fig5_right_paper", 2), ("dcign_paper", 1), ("infogan_paper", 1)]
)
def test_the_networks_of_table_1_start_and_step_on_a_processor(tmp_path: Path, space: str, trials: int) -> None:
    settings = ["training.steps=2", "training.report_every=1", "search.baselines=[]", f"search.trials={trials}"]
    settings += ["protocol.replicas=1", "protocol.classifier_seeds=1", "labels.count=1000", "metric.train_points=500"]
    study = search(space, settings, name=space, storage=tmp_path)
    assert [(trial.state, list(trial.intermediate)) for trial in study.trials] == [("complete", [1, 2])] * trials
    assert study.best is not None
    assert study.checkpoint(study.best).weights
