"""Bad input ends with exit code 2, one message and no trace, and leaves nothing behind. Seeds: 0 (labels), 3."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from bvae_tune.data.image_store import open_store


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["training.stesp=3"], "did you mean steps?"),
        (["training.steps=many"], "integer"),
        (["space.beta={loguniform: [8, 4]}"], "low 8 is above high 4"),
        (["space.beta=null", "model.beta=1", "model.beta_norm=1"], "both given"),
        (["search.trials=0"], "at least 1"),
        (["labels.factors=[x]"], "two usable factors"),
        (["labels.factors=[x, z]"], "no factor 'z'"),
        (["labels.count=5000"], "there are 108"),
        (["labels.seed=-1"], "labels.seed=-1: -1 must be at least 0"),
        (["labels.bins=1"], "labels.bins=1: 1 must be at least 2"),
        (["dataset.path=nowhere.npz"], "nowhere.npz"),
        (["dataset.path=null"], "dataset.path"),
        (["labels.path=nowhere.csv"], "nowhere.csv"),
        (["labels.path=labels.txt"], "labels.txt: expected a .parquet or .csv file"),
        ([f"labels.path={'x' * 300}.csv"], "cannot be read: File name too long"),
        # Told before the images are looked for, which may take long to build.
        (["labels.path=nowhere.csv", "dataset.path=missing.npz"], "nowhere.csv: no such file"),
        (["model.architecture=conv", "model.widths=null"], "64"),
        (["dataset.size=64"], "dataset.size=64: 64; the source npz takes no size"),
        (["dataset.source=folder", "dataset.size=big"], "dataset.size=big"),
        (
            ["dataset.source=folder", "dataset.size=100000"],
            "dataset.size=100000: 100000 must be a whole number from 1 to",
        ),
        (["dataset.source=folder", "dataset.path=nowhere"], "nowhere: no such folder"),
        (["dataset.source=folder", "dataset.pattern=("], "dataset.pattern=(: '(' is no regular expression"),
    ],
)
def test_a_search_that_cannot_run_is_refused(
    invoke: Callable[..., CompletedProcess[str]], space_file: Path, tmp_path: Path, settings: list[str], expected: str
) -> None:
    options = [part for setting in settings for part in ("--set", setting)]
    outcome = invoke("search", "--space", space_file, "--storage", tmp_path / "runs", *options)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: ")
    assert expected in outcome.stderr
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    "setting",
    ["training.batch_size=1000000000000", "model.widths=[1000000, 1000000]", "metric.train_points=1000000000000"],
)
def test_what_no_memory_holds(invoke: Callable[..., CompletedProcess[str]], space_file: Path, setting: str) -> None:
    outcome = invoke("plan", "--space", space_file, "--set", setting)
    assert outcome.returncode == 1
    assert outcome.stderr.startswith("error: out of memory")
    assert outcome.stderr.count("lower training.batch_size, model.widths") == 1


def test_labels_of_images_that_do_not_exist(
    invoke: Callable[..., CompletedProcess[str]], space_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text("index,a,b\n0,1,1\n1,2,2\n108,1,2\n")
    outcome = invoke("search", "--space", space_file, "--set", f"labels.path={tmp_path / 'labels.csv'}")
    assert outcome.returncode == 2
    assert "108" in outcome.stderr
    assert "labels.csv" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--trials", "0"], "error: --trials 0: "),
        (["--space", "nowhere.yaml"], "packaged: celeba, chairs"),
        (["--storage", "{taken}"], "--storage"),
        (["--name", "a/b"], "--name"),
    ],
)
def test_options_of_search_are_checked(
    invoke: Callable[..., CompletedProcess[str]], space_file: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    (tmp_path / "file").touch()
    given = [part.format(taken=tmp_path / "file") for part in arguments]
    storage = ["--storage", str(tmp_path / "runs")]
    outcome = invoke("search", "--space", space_file, *storage, *given)
    assert outcome.returncode == 2
    assert expected in outcome.stderr


def test_a_name_that_exists_already(
    invoke: Callable[..., CompletedProcess[str]], space_file: Path, study: Path
) -> None:
    outcome = invoke("search", "--space", space_file, "--name", study.name, "--storage", study.parent)
    assert outcome.returncode == 2
    assert "exists already" in outcome.stderr
    assert "bvae-tune resume" in outcome.stderr


@pytest.mark.parametrize("command", ["status", "best", "trials", "resume", "confirm", "evaluate", "traverse"])
def test_a_study_that_is_not_there(invoke: Callable[..., CompletedProcess[str]], tmp_path: Path, command: str) -> None:
    outcome = invoke(command, "gone", "--storage", tmp_path)
    assert outcome.returncode == 2
    assert "there is no study here" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate", "--trial", "9"], "(those with weights: 0, 1, beta=1)"),
        (["evaluate", "--set", "model.beta=1"], "training is done"),
        (["evaluate", "--set", "metric.piars=1"], "did you mean pairs?"),
        (["traverse", "--trial", "-1"], "has no such trial (those with weights: 0, 1, beta=1)"),
        (["traverse", "--trial", "beta=2"], "has no such trial (those with weights: 0, 1, beta=1)"),
        (["traverse", "--trial", "untrained"], "its weights are not kept; of untrained networks"),
        (["traverse", "--image", "108"], "0 to 107"),
        (["traverse", "--image", "1", "--image-seed", "1"], "give one of them"),
        (["traverse", "--output", "nowhere/a.png"], "a folder that exists"),
        (["traverse", "--output", "a.txt"], "a name that ends in .png"),
        (["trials", "--parquet", "nowhere/a.parquet"], "a folder that exists"),
        (["resume", "--trials", "-1"], "--trials"),
        (["confirm", "--seeds", "1"], "--seeds"),
    ],
)
def test_options_on_a_study_are_checked(
    invoke: Callable[..., CompletedProcess[str]], study: Path, arguments: list[str], expected: str
) -> None:
    command, *options = arguments
    outcome = invoke(command, study, *options)
    assert outcome.returncode == 2
    assert expected in outcome.stderr


def test_results_go_to_plain_files_only(
    invoke: Callable[..., CompletedProcess[str]], study: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for command, option in (("trials", "--parquet"), ("traverse", "--output")):
        outcome = invoke(command, study, option, tmp_path / "pipe.png")
        assert outcome.returncode == 2
        assert "give a file" in outcome.stderr
    assert (tmp_path / "pipe.png").is_fifo()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nowhere.npz", "nowhere.npz"),
        ("nowhere.arrow", "nowhere.arrow"),
        ("a.png", "give shapes"),
        ("nowhere", "a folder of images that exists"),
    ],
)
def test_a_dataset_that_is_not_there(invoke: Callable[..., CompletedProcess[str]], source: str, expected: str) -> None:
    for command in ("build", "info"):
        outcome = invoke("data", command, source)
        assert outcome.returncode == 2
        assert expected in outcome.stderr


def test_an_unknown_option_is_the_command_lines_own_matter(invoke: Callable[..., CompletedProcess[str]]) -> None:
    outcome = invoke("search", "--spaec", "shapes")
    assert outcome.returncode == 2
    assert "--space" in outcome.stderr


def test_a_truncated_cache_is_built_again(
    invoke: Callable[..., CompletedProcess[str]], space_file: Path, tmp_path: Path
) -> None:
    source = tmp_path / "copied.npz"
    shutil.copy(space_file.with_name("squares.npz"), source)
    first = json.loads(invoke("data", "info", source, "--json").stdout)
    store = Path(first["path"])
    store.write_bytes(store.read_bytes()[:-100])
    again = json.loads(invoke("data", "info", source, "--json").stdout)
    assert again == first
    assert open_store(store).count == 108


def test_a_changed_dataset_is_told(
    invoke: Callable[..., CompletedProcess[str]], space_file: Path, tmp_path: Path
) -> None:
    source = tmp_path / "changed.npz"
    shutil.copy(space_file.with_name("squares.npz"), source)
    store = Path(json.loads(invoke("data", "info", source, "--json").stdout)["path"])
    content = bytearray(store.read_bytes())
    position = content.index(b"\x80\x00\x00")  # within the packed pixels of the first images
    content[position] ^= 1
    store.write_bytes(bytes(content))
    told = invoke("data", "info", source, "--json")
    assert told.returncode == 2
    assert "bvae-tune data build" in json.loads(told.stdout)["damage"]
    imported = invoke("data", "info", store)
    assert imported.returncode == 2
    assert "does not match its checksum" in imported.stdout
    assert invoke("data", "build", store).returncode == 2
    assert "damaged; built anew" in invoke("data", "build", source).stdout
    assert invoke("data", "info", source).returncode == 0


def test_a_place_that_may_not_be_written_to(invoke: Callable[..., CompletedProcess[str]], space_file: Path) -> None:
    # Not even root may make files there.
    outcome = invoke("data", "info", space_file.with_name("squares.npz"), "--sheet", "/sys/sheet.png")
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("error: /sys/")
