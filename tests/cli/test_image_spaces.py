"""Searches by the real program: the spaces of chairs, faces and CelebA on small sets of their layout, and own images.

Seeds: 0, of the spaces and the images; 3, of the searches of own images.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image
from small_sets import SmallSet, make_celeba, make_chairs, make_faces

from bvae_tune.data import ImageStore, open_dataset
from bvae_tune.search.study import Study

Invoke = Callable[..., CompletedProcess[str]]

# Table 1's network at its own size, for as short as it goes.
SETTINGS = (
    "training.steps=4",
    "training.report_every=4",
    "training.batch_size=16",
    "labels.count=200",
    "metric.train_points=200",
    "metric.test_points=200",
    "metric.profile=[1]",
    "protocol.classifier_seeds=1",
    "search.trials=1",
    "search.startup_trials=1",
    "search.baselines=[]",
    "resources.cpus_per_trial=1",
    "resources.concurrent_trials=1",
)


@pytest.fixture
def search(
    run_command: Invoke, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, SmallSet], tuple[Study, ImageStore]]:
    """Searches a packaged space on a small set; the study and the images that it used."""

    def run(space: str, images: SmallSet) -> tuple[Study, ImageStore]:
        settings = [part for setting in (f"dataset.path={images.path}", *SETTINGS) for part in ("--set", setting)]
        outcome = run_command("search", "--space", space, "--storage", tmp_path, "--name", space, *settings)
        assert (outcome.returncode, outcome.stderr) == (0, "")
        monkeypatch.setenv("BVAE_TUNE_CACHE", str(cache))
        study = Study.open(tmp_path / space)
        return study, open_dataset(study.config.dataset)

    return run


def check(study: Study, store: ImageStore, images: SmallSet) -> None:
    """The store holds the set with its factors, and the study has its one trial with a score."""
    assert store.count == len(images.files)
    assert store.files == tuple(images.files)
    assert store.factor_names == tuple(images.names)
    levels = [np.unique(column, return_inverse=True)[1] for column in images.factors.T]
    np.testing.assert_array_equal(store.factors(np.arange(store.count)), np.stack(levels, axis=1))
    (record,) = study.trials
    assert record.state == "complete"
    assert record.result is not None
    assert set(record.result.score.information) == set(study.config.labels.factors or ())


# Faces go the way of chairs: one of them is enough for every run of the tests.
@pytest.mark.parametrize(
    ("space", "make"), [("chairs", make_chairs), pytest.param("faces", make_faces, marks=pytest.mark.slow)]
)
def test_grey_images_with_factors_in_their_names(
    search: Callable[[str, SmallSet], tuple[Study, ImageStore]],
    tmp_path: Path,
    space: str,
    make: Callable[[Path], SmallSet],
) -> None:
    images = make(tmp_path / "images")
    study, store = search(space, images)
    check(study, store, images)
    read = np.rint(np.asarray(store.gather(np.arange(store.count))) * 255)
    np.testing.assert_array_equal(read.reshape(-1, 64, 64), images.images)


@pytest.mark.slow
def test_celeba_in_colour_with_attributes(
    search: Callable[[str, SmallSet], tuple[Study, ImageStore]], tmp_path: Path
) -> None:
    images = make_celeba(tmp_path / "images")
    study, store = search("celeba", images)
    check(study, store, images)
    assert (store.channels, store.height, store.width) == (3, 64, 64)
    read = np.asarray(store.gather(np.arange(store.count))).reshape(-1, 3, 64 * 64).mean(axis=2) * 255
    means = images.images[:, 35:183, 15:163].mean(axis=(1, 2))
    assert abs(read - means).max() < 2


def test_a_folder_of_ones_own_with_labels_for_some_in_a_csv(
    run_command: Invoke, space_file: Path, tmp_path: Path
) -> None:
    squares = np.load(space_file.parent / "squares.npz")
    rows = ["file,across,size"]
    for number, (image, (x, _, size)) in enumerate(zip(squares["images"], squares["factors"], strict=True)):
        file = f"{'left' if x < 3 else 'right'}/{number:03d}.png"
        (tmp_path / "images" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / file)
        if number % 4:
            rows.append(f"{file},{x / 5},{size if number % 5 else ''}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    settings = [f"dataset.path={tmp_path / 'images'}", f"labels.path={tmp_path / 'labels.csv'}"]
    study = own_images(run_command, space_file, tmp_path, "dataset.source=folder", *settings)
    assert study.facts["dataset"]["size"] == [1, 8, 8]
    assert study.facts["labelled"] == {"count": 81, "factors": ["across", "size"]}


def test_a_table_of_ones_own_with_factors_beside_its_images(
    run_command: Invoke, space_file: Path, tmp_path: Path
) -> None:
    squares = np.load(space_file.parent / "squares.npz")
    columns = dict(zip(("across", "down", "size"), squares["factors"].T, strict=True))
    images = pa.FixedSizeListArray.from_arrays(squares["images"].reshape(-1), 64)
    pa.parquet.write_table(pa.table({"image": images, **columns}), tmp_path / "squares.parquet")
    settings = ["dataset.source=table", f"dataset.path={tmp_path / 'squares.parquet'}", "dataset.size=8"]
    study = own_images(run_command, space_file, tmp_path, *settings, "labels.count=50")
    assert study.facts["labelled"] == {"count": 50, "factors": ["across", "down", "size"]}


def own_images(run_command: Invoke, space: Path, storage: Path, *settings: str) -> Study:
    """A finished search of `space` with these settings."""
    changes = [part for setting in settings for part in ("--set", setting)]
    outcome = run_command("search", "--space", space, "--storage", storage, "--name", "own", *changes)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    study = Study.open(storage / "own")
    assert [record.state for record in study.trials] == ["complete", "complete"]
    assert all(
        set(record.result.score.information) == set(study.facts["labelled"]["factors"])
        for record in study.trials
        if record.result
    )
    return study


def test_data_info_knows_a_dataset_by_its_place(invoke: Invoke, tmp_path: Path) -> None:
    celeba, faces = make_celeba(tmp_path, count=12), make_faces(tmp_path)
    files = [(faces.path / file).read_bytes() for file in faces.files[:5]]
    pa.parquet.write_table(pa.table({"image": files, "light": [0, 1, 2, 0, 1]}), tmp_path / "a.parquet")
    with pa.ipc.new_stream(tmp_path / "a.arrow", pa.schema({"image": pa.binary()})) as writer:
        writer.write_batch(pa.record_batch({"image": files}))
    for source, keys, size, count in [
        (celeba.path, ["--size", 32], [3, 32, 32], 12),
        (celeba.path, ["--size", 32, "--channels", 1], [1, 32, 32], 12),
        (celeba.path / "img_align_celeba", ["--size", 16], [3, 16, 16], 12),
        (faces.path, [], [1, 64, 64], 210),
        (tmp_path / "a.parquet", ["--size", 16], [1, 16, 16], 5),
        (tmp_path / "a.arrow", [], [1, 64, 64], 5),
    ]:
        outcome = invoke("data", "info", source, *keys, "--json")
        assert outcome.returncode == 0, outcome.stderr
        found = json.loads(outcome.stdout)
        assert (found["size"], found["count"], found["damage"]) == (size, count, None)
    outcome = invoke("data", "build", found["path"])
    assert outcome.stdout == f"5 images in {found['path']}\n", "a store of ours is opened where it lies"
    outcome = invoke("data", "info", faces.path, "--pattern", "light_(?P<light>-?[0-9]+)")
    assert "factors: light" in outcome.stdout


def test_building_tells_how_far_it_is(invoke: Invoke, tmp_path: Path) -> None:
    faces = make_faces(tmp_path / "images")
    outcome = invoke("data", "build", faces.path, "--channels", 3)
    assert outcome.returncode == 0
    assert "building the images: 100%" in outcome.stdout
    assert outcome.stdout.splitlines()[-1].startswith("210 images in ")


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("chairs", "; get rendered_chairs.tar from https://www.di.ens.fr"),
        ("faces", "; render them from the Basel Face Model, https://faces.dmi.unibas.ch"),
        ("celeba", "; get CelebA from https://mmlab.ie.cuhk.edu.hk"),
    ],
)
def test_a_space_without_its_images_says_where_they_are(invoke: Invoke, space: str, expected: str) -> None:
    for path, problem in (("null", "missing; the source"), ("nowhere", "/nowhere: no such folder")):
        outcome = invoke("plan", "--space", space, "--set", f"dataset.path={path}")
        assert (outcome.returncode, outcome.stdout) == (2, "")
        assert outcome.stderr.startswith("error: dataset.path: ")
        assert problem in outcome.stderr
        assert expected in outcome.stderr


def test_one_bad_file_ends_a_build_with_its_name(invoke: Invoke, tmp_path: Path) -> None:
    faces = make_faces(tmp_path / "images")
    (faces.path / faces.files[100]).write_bytes(b"no image")
    outcome = invoke("data", "build", faces.path)
    assert outcome.returncode == 2
    assert f"{faces.files[100]}: cannot be read as an image" in outcome.stderr
    assert "Traceback" not in outcome.stderr
