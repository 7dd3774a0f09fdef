"""Finding studies, and trials in them, by what a person calls them. Seed: 3, the study's."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import create_trial

from bvae_tune.errors import InputError
from bvae_tune.search.confirm import confirm
from bvae_tune.search.journal import open_record
from bvae_tune.search.records import TrialRecord
from bvae_tune.search.runner import add_control, create
from bvae_tune.search.runs import find_run, find_trial
from bvae_tune.search.study import Study
from bvae_tune.space import load_space


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Studies alpha, beta, ... begun in this order, and a folder that is none."""
    for number, name in enumerate(("alpha", "beta", "gamma", "delta", "epsilon", "zeta")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text("{}")
        os.utime(tmp_path / name / "study.json", (number, number))
    (tmp_path / "other").mkdir()
    # What a kill leaves while a study's folder is made.
    (tmp_path / ".eta.77").mkdir()
    (tmp_path / ".eta.77" / "study.json").write_text("{}")
    return tmp_path


def test_by_folder_by_name_and_the_latest(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_run(str(storage / "beta"), Path("nowhere")) == storage / "beta"
    assert find_run("beta", storage) == storage / "beta"
    assert find_run("latest", storage) == storage / "zeta"
    monkeypatch.chdir(storage.parent)
    assert find_run("beta", Path(storage.name)) == Path(storage.name) / "beta"


def test_a_study_called_latest_is_itself(storage: Path) -> None:
    (storage / "latest").mkdir()
    (storage / "latest" / "study.json").write_text("{}")
    os.utime(storage / "latest" / "study.json", (0, 0))
    assert find_run("latest", storage) == storage / "latest"


@pytest.mark.parametrize(
    ("run", "expected"),
    [("bta", "did you mean beta?"), ("other", r"\(in .*: zeta, epsilon, delta, gamma, beta, \.\.\.\)")],
)
def test_what_is_not_there_is_told_with_what_is(storage: Path, run: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        find_run(run, storage)


def test_a_study_that_lacks_a_file(storage: Path) -> None:
    (storage / "alpha/study.json").unlink()
    (storage / "alpha/space.yaml").touch()
    with pytest.raises(InputError, match=r"alpha: study.json is missing"):
        find_run("alpha", storage)


def test_an_empty_storage(tmp_path: Path) -> None:
    for run in ("latest", "alpha"):
        with pytest.raises(InputError, match="no study here"):
            find_run(run, tmp_path)


def test_a_best_of_beta_1_has_nothing_to_be_compared_with(
    make_space: Callable[..., dict[str, Any]], make_record: Callable[..., TrialRecord], tmp_path: Path
) -> None:
    path = create(load_space(make_space()), "study", tmp_path)
    study = Study(path, open_record(path / "optuna.journal"))
    ended = make_record().result
    assert ended is not None
    setting = {"beta": 1.0, "beta_norm": 0.05, "latent_size": 3}
    attributes = {"setting": setting, "parameters": {"model.beta": 1.0}, "result": ended.to_dict()}
    study.searched.add_trial(create_trial(value=0.5, user_attrs=attributes))
    with pytest.raises(InputError, match="its best trial has β = 1 itself"):
        confirm(path)


def test_a_label_is_of_the_newest_control_that_has_it(
    make_space: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    path = create(load_space(make_space()), "study", tmp_path)
    study = Study(path, open_record(path / "optuna.journal"))
    model = dataclasses.replace(study.config.model, beta=1.0)
    for label in ("once", "again", "again"):
        add_control(study, "baseline", label, model, study.config.training, [7], 0)
    found = {label: find_trial(str(path), label, tmp_path)[1].number for label in ("once", "again")}
    assert found == {"once": 0, "again": 2}
    with pytest.raises(InputError, match=r"has no such trial \(those with weights: none so far\)"):
        find_trial(str(path), "never", tmp_path)
