"""Finding studies by what a person calls them. Seed: none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bvae_tune.errors import InputError
from bvae_tune.search.runs import find_run


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


def test_an_empty_storage(tmp_path: Path) -> None:
    for run in ("latest", "alpha"):
        with pytest.raises(InputError, match="no study here"):
            find_run(run, tmp_path)
