from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.sources import DatasetConfig
from bvae_tune.search.checkpoints import CheckpointFolder
from bvae_tune.search.records import TrialResult
from bvae_tune.search.storage import WEIGHTS
from bvae_tune.search.task import TrialTask
from bvae_tune.search.trainable import BetaVAETrainable
from bvae_tune.search.trial_run import NodeError, NotFiniteError, TrialData, TrialRun
from bvae_tune.training.shared_bank import SharedBank

MakeTask = Callable[..., TrialTask]


def numbers(result: TrialResult) -> dict[str, Any]:
    """All of a result that is a function of the seeds."""
    return result.to_dict() | {"images_per_second": 0, "seconds_training": 0, "seconds_evaluating": 0}


def to_the_end(run: TrialRun) -> list[TrialResult]:
    results = []
    done = False
    while not done:
        result, done = run.advance()
        results.append(result)
    return results


def step_of(report: dict[str, Any]) -> int:
    step: int = json.loads(report["result"])["step"]
    return step


def weights(task: TrialTask) -> dict[str, torch.Tensor]:
    return CheckpointFolder(task.study, task.folder).read(WEIGHTS).state


def test_a_trial_reports_at_its_steps_and_leaves_its_weights(make_task: MakeTask) -> None:
    task = make_task(seeds=(11, 12))
    results = to_the_end(TrialRun(task, TrialData()))
    assert [result.step for result in results] == [10, 20, 30]
    assert [result.images_seen for result in results] == [160, 320, 480]
    last = results[-1]
    assert len(last.reconstruction) == len(last.kl) == len(last.score.replica_scores) == 2
    assert last.reconstruction[0] < results[0].reconstruction[0]
    assert last.seconds_training > results[0].seconds_training > 0
    assert last.seconds_evaluating > results[0].seconds_evaluating > 0
    assert list(Path(task.study, task.folder).iterdir()) == [Path(task.study, task.folder, WEIGHTS)]


@pytest.mark.parametrize("reports_before_the_kill", [1, 2, 3])
def test_a_trial_taken_over_gives_the_last_report_again_and_then_goes_on_with_the_same_numbers(
    make_task: MakeTask, reports_before_the_kill: int
) -> None:
    whole = make_task(folder="trials/00001")
    expected = [numbers(result) for result in to_the_end(TrialRun(whole, TrialData()))]

    task = make_task()
    killed = TrialRun(task, TrialData())
    for _ in range(reports_before_the_kill):
        killed.advance()
    again = [numbers(result) for result in to_the_end(TrialRun(task, TrialData()))]
    assert again == expected[reports_before_the_kill - 1 :]
    for name, values in weights(whole).items():
        torch.testing.assert_close(weights(task)[name], values, rtol=0, atol=0)


def test_a_truncated_checkpoint_costs_one_interval_and_changes_nothing(make_task: MakeTask) -> None:
    expected = numbers(to_the_end(TrialRun(make_task(folder="trials/00001"), TrialData()))[-1])
    task = make_task()
    killed = TrialRun(task, TrialData())
    killed.advance()
    killed.advance()
    newest = Path(task.study, task.folder, "step-0000000020.safetensors")
    newest.write_bytes(newest.read_bytes()[:1000])
    results = to_the_end(TrialRun(task, TrialData()))
    assert [result.step for result in results] == [10, 20, 30]
    assert numbers(results[-1]) == expected | {"notice": f"{newest.name} cut short or damaged: went on from step 10"}


def test_a_trial_whose_checkpoints_are_all_damaged_begins_anew_and_says_so(make_task: MakeTask) -> None:
    expected = [numbers(result) for result in to_the_end(TrialRun(make_task(folder="trials/00001"), TrialData()))]
    task = make_task()
    killed = TrialRun(task, TrialData())
    killed.advance()
    killed.advance()
    names = ["step-0000000020.safetensors", "step-0000000010.safetensors"]
    for name in names:
        Path(task.study, task.folder, name).write_bytes(b"")
    notice = f"{', '.join(names)} cut short or damaged: began anew"
    begun_anew = TrialRun(task, TrialData())
    begun_anew.advance()
    assert [file.name for file in Path(task.study, task.folder).iterdir()] == names[1:]
    results = to_the_end(TrialRun(task, TrialData()))  # another kill costs no more than ever
    assert [numbers(result) for result in results] == [each | {"notice": notice} for each in expected]


def test_an_untrained_trial_is_one_report_at_step_0(make_task: MakeTask) -> None:
    task = make_task()
    task = dataclasses.replace(task, training=dataclasses.replace(task.training, steps=0))
    (result,) = to_the_end(TrialRun(task, TrialData()))
    assert (result.step, result.images_seen) == (0, 0)
    assert result.score.score > 0
    assert [numbers(r) for r in to_the_end(TrialRun(task, TrialData()))] == [numbers(result)]


def test_a_loss_that_is_not_finite_ends_the_trial_and_keeps_its_checkpoint(make_task: MakeTask) -> None:
    task = make_task()
    healthy = TrialRun(task, TrialData())
    healthy.advance()
    wild = dataclasses.replace(task, training=dataclasses.replace(task.training, learning_rate=1e30))
    run = TrialRun(wild, TrialData())
    assert run.advance()[0].step == 10
    with pytest.raises(NotFiniteError, match="the loss is not finite at step 20"):
        run.advance()
    latest = CheckpointFolder(task.study, task.folder).latest().checkpoint
    assert latest is not None
    assert latest.result.step == 10


def test_so_does_an_optimiser_whose_squares_have_overflowed(make_task: MakeTask) -> None:
    task = make_task()
    TrialRun(task, TrialData()).advance()
    folder = CheckpointFolder(task.study, task.folder)
    healthy = folder.latest().checkpoint
    assert healthy is not None
    state = dict(healthy.state)
    state["optimizer/square/encoder.0.weight"] = torch.full_like(state["optimizer/square/encoder.0.weight"], torch.inf)
    folder.save(state, healthy.result, final=False)
    run = TrialRun(task, TrialData())
    run.advance()
    with pytest.raises(NotFiniteError, match="a weight or the optimiser's state is not finite at step 20"):
        run.advance()


def test_a_node_without_the_study_or_with_other_images_says_so(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task()
    elsewhere = dataclasses.replace(task, study=str(tmp_path / "nowhere"))
    with pytest.raises(NodeError, match=r"does not see .*nowhere"):
        TrialRun(elsewhere, TrialData()).advance()
    for fingerprints, what in ((("0" * 64, task.fingerprints[1]), "images"), ((task.fingerprints[0], "0"), "labels")):
        with pytest.raises(NodeError, match=f"the {what} are not those"):
            TrialRun(dataclasses.replace(task, fingerprints=fingerprints), TrialData()).advance()


def test_a_node_whose_cache_cannot_be_written_ends_the_run_and_not_the_trial(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "images.npz", images=np.eye(8, dtype=np.uint8)[None].repeat(9, 0))
    (tmp_path / "file").touch()
    monkeypatch.setenv("BVAE_TUNE_CACHE", str(tmp_path / "file"))
    task = dataclasses.replace(make_task(), dataset=DatasetConfig("npz", str(tmp_path / "images.npz")))
    with pytest.raises(NodeError, match=r"cannot be written .*; the variable BVAE_TUNE_CACHE names another folder"):
        TrialRun(task, TrialData()).advance()


def test_images_are_opened_once_for_all_trials_of_a_worker(make_task: MakeTask) -> None:
    data = TrialData()
    opened = data.open(make_task())
    assert data.open(make_task(folder="trials/00001", seeds=(3,)))[0] is opened[0]


def test_the_trainable_serves_one_task_after_another_without_ray(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))
    trainable = BetaVAETrainable({"tasks": (make_task(),)})
    steps = [trainable.step() for _ in range(3)]
    assert [step["done"] for step in steps] == [False, False, True]
    reports = [report for step in steps for report in step["reports"]]
    assert [(step_of(report), report["done"]) for report in reports] == [(10, False), (20, False), (30, True)]
    final = TrialResult.from_dict(json.loads(reports[-1]["result"]))
    assert 0 < final.score.score <= 1

    assert trainable.reset_config({"tasks": (make_task(folder="trials/00001", threads=2),)}) is True
    assert step_of(trainable.step()["reports"][0]) == 10
    assert torch.get_num_threads() == 2
    assert trainable.reset_config({"tasks": (make_task(folder="trials/00002"),)}) is True
    trainable.step()
    assert torch.get_num_threads() == 1


def test_what_fails_in_a_step_is_a_reason_or_ends_the_run_or_is_tried_again(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))
    wild = make_task()
    wild = dataclasses.replace(wild, training=dataclasses.replace(wild.training, learning_rate=1e30))
    trainable = BetaVAETrainable({"tasks": (wild,)})
    step = trainable.step()
    assert step["done"]
    assert "not finite" in step["reports"][0]["reason"]

    trainable.reset_config({"tasks": (dataclasses.replace(wild, study=str(tmp_path / "nowhere")),)})
    assert "does not see" in trainable.step()["fatal"]

    lost = make_task(folder="trials/00004")
    Path(lost.study, "trials").mkdir(exist_ok=True)
    Path(lost.study, lost.folder).write_text("a file where the folder should be")
    trainable.reset_config({"tasks": (lost,)})
    with pytest.raises(OSError, match="00004"):
        trainable.step()


def test_trials_that_share_a_bank_give_the_numbers_that_each_gives_alone(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))
    model = make_task().model
    settings = [
        {"model": dataclasses.replace(model, beta=beta), "seeds": (number, number + 10)}
        for number, beta in enumerate((0.5, 4.0, 1e39))
    ]
    shared = tuple(make_task(folder=f"trials/0000{number}", **setting) for number, setting in enumerate(settings))
    first, second, diverged = (make_task(folder=f"trials/0010{n}", **setting) for n, setting in enumerate(settings))
    with pytest.raises(NotFiniteError) as alone:
        TrialRun(diverged, TrialData()).advance()

    trainable = BetaVAETrainable({"tasks": shared})
    steps = [trainable.step() for _ in range(3)]
    assert [[report["folder"] for report in step["reports"]] for step in steps] == [
        ["trials/00000", "trials/00001", "trials/00002"],
        ["trials/00000", "trials/00001"],
        ["trials/00000", "trials/00001"],
    ]
    assert steps[0]["reports"][2] == {"folder": "trials/00002", "done": True, "reason": str(alone.value)}
    for task, place in ((first, 0), (second, 1)):
        expected = [numbers(result) for result in to_the_end(TrialRun(task, TrialData()))]
        results = [TrialResult.from_dict(json.loads(step["reports"][place]["result"])) for step in steps]
        assert [numbers(result) for result in results] == expected
        for name, values in weights(task).items():
            assert torch.equal(weights(shared[place])[name], values)


def test_a_trial_of_a_bank_whose_folder_is_lost_is_raised_when_the_others_are_done(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))
    tasks = tuple(make_task(folder=f"trials/0000{number}", seeds=(number,)) for number in range(3))
    Path(tasks[1].study, "trials").mkdir(exist_ok=True)
    Path(tasks[1].study, tasks[1].folder).write_text("a file where the folder should be")
    trainable = BetaVAETrainable({"tasks": tasks})
    steps = [trainable.step() for _ in range(3)]
    assert [[(step_of(report), report["done"]) for report in step["reports"]] for step in steps] == [
        [(10, False), (10, False)],
        [(20, False), (20, False)],
        [(30, True), (30, True)],
    ]
    assert not any(step["done"] for step in steps)
    with pytest.raises(OSError, match="00001"):
        trainable.step()
    # The worker's next trials are not burdened with it.
    trainable.reset_config({"tasks": (make_task(folder="trials/00003"),)})
    assert [trainable.step()["done"] for _ in range(3)] == [False, False, True]


def test_a_bank_that_a_kill_left_at_two_steps_goes_on_in_two(make_task: MakeTask) -> None:
    def opened(tasks: list[TrialTask]) -> list[TrialRun]:
        share, data = SharedBank(), TrialData()
        runs = [TrialRun(task, data, share) for task in tasks]
        for run in runs:
            run.open()
        return runs

    alone = [make_task(folder=f"trials/0010{number}", seeds=(number,)) for number in range(3)]
    expected = [numbers(to_the_end(TrialRun(task, TrialData()))[-1]) for task in alone]
    tasks = [make_task(folder=f"trials/0000{number}", seeds=(number,)) for number in range(3)]
    for run in opened(tasks)[:2]:  # the third has trained, and written nothing
        run.advance()

    runs = opened(tasks)
    rounds = [[run.advance() for run in runs] for _ in range(3)]
    # The first two reports are those of checkpoints; the third trial trains for its own, apart from them.
    assert [[result.step for result, _ in reports] for reports in rounds] == [[10, 10, 10], [20, 20, 20], [30, 30, 30]]
    assert [numbers(result) for result, _ in rounds[-1]] == expected


def test_what_fails_in_a_bank_fails_for_all_its_trials(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))
    huge = dataclasses.replace(make_task().training, batch_size=10**14)
    tasks = tuple(make_task(folder=f"trials/0000{number}", training=huge) for number in range(2))
    step = BetaVAETrainable({"tasks": tasks}).step()
    assert step["done"]
    assert ["out of memory at step 0" in report["reason"] for report in step["reports"]] == [True, True]


def test_a_bank_that_failed_once_is_not_trained_on(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))
    gather, calls = ImageStore.gather, iter(range(1_000))

    def fails_once(store: ImageStore, *arguments: Any, **options: Any) -> torch.Tensor:
        if next(calls) == 10:  # the second replica's first, whose neighbour has made all ten up to the report
            raise RuntimeError("no more of it")
        return gather(store, *arguments, **options)

    monkeypatch.setattr(ImageStore, "gather", fails_once)
    tasks = tuple(make_task(folder=f"trials/0000{number}", seeds=(number,)) for number in range(2))
    step = BetaVAETrainable({"tasks": tasks}).step()
    assert [report["reason"] for report in step["reports"]] == 2 * ["RuntimeError: no more of it"]
