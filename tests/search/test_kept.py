"""What is asked of kept weights, on a study folder written by hand. Seeds: 7 (images, weights), 0 (labels)."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bvae_tune.data.labels import WeakLabels
from bvae_tune.data.sources import import_arrays, load_labels, open_dataset
from bvae_tune.errors import InputError, RunError
from bvae_tune.evaluation import encode_labelled, score
from bvae_tune.models.networks import Codes
from bvae_tune.search import runner
from bvae_tune.search.checkpoints import CheckpointFolder
from bvae_tune.search.kept import _meanings, evaluate, traverse
from bvae_tune.search.records import State, TrialRecord
from bvae_tune.search.storage import WEIGHTS
from bvae_tune.search.study import Study
from bvae_tune.search.task import TrialTask
from bvae_tune.search.trial_run import TrialData, TrialRun
from bvae_tune.space import load_space
from bvae_tune.training.bank import Bank


@pytest.fixture(scope="module")
def original(
    make_space: Callable[..., dict[str, Any]],
    make_record: Callable[..., TrialRecord],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Study, TrialRecord, Bank]:
    """A study with the weights of trial 0, two replicas trained for a while, and the bank that they are of."""
    space = make_space(
        space={"beta": {"uniform": [1, 4]}}, protocol={"replicas": 2}, training={"steps": 300, "report_every": 300}
    )
    study = Study.open(runner.create(load_space(space), "kept", tmp_path_factory.mktemp("studies")))
    config = study.config
    record = make_record(0, parameters={"model.beta": 1.0})
    model, training = study.configuration(record)
    task = TrialTask(
        study=str(study.path),
        folder="trials/00000",
        model=model,
        training=training,
        seeds=(7, 8),
        evaluation_seed=config.search.seed,
        dataset=config.dataset,
        labels=config.labels,
        fingerprints=(study.facts["images"], study.facts["labels"]),
        metric=config.metric,
        protocol=config.protocol,
    )
    run, done = TrialRun(task, TrialData()), False
    while not done:
        result, done = run.advance()
    bank = Bank(model, training, open_dataset(config.dataset), (7, 8))
    bank.train(300)
    return study, make_record(0, parameters={"model.beta": 1.0}, result=result), bank


@pytest.fixture
def trained(original: tuple[Study, TrialRecord, Bank], tmp_path: Path) -> tuple[Study, TrialRecord, Bank]:
    """The same, with a copy of the folder."""
    study, record, bank = original
    shutil.copytree(study.path, tmp_path / "kept")
    return Study.open(tmp_path / "kept"), record, bank


def test_evaluation_is_that_of_the_trained_bank(trained: tuple[Study, TrialRecord, Bank]) -> None:
    study, record, bank = trained
    store = open_dataset(study.config.dataset)
    labels = load_labels(study.config.labels, store)
    codes = encode_labelled(bank, store, labels)
    expected = score(codes, labels, study.config.metric, study.config.protocol, study.config.search.seed)
    found = evaluate(study, record)
    assert (found.step, found.final, found.score.to_dict()) == (300, True, expected.to_dict())
    assert record.result is not None
    assert record.result.score.to_dict() == expected.to_dict()
    other = load_space(study.config, ["metric.pairs=3", "labels.count=60"])
    labels = load_labels(other.labels, store)
    expected = score(encode_labelled(bank, store, labels), labels, other.metric, other.protocol, other.search.seed)
    assert evaluate(study, record, ["metric.pairs=3", "labels.count=60"]).score.to_dict() == expected.to_dict()


def test_a_traversal_moves_one_latent_at_a_time(trained: tuple[Study, TrialRecord, Bank]) -> None:
    study, record, bank = trained
    store = open_dataset(study.config.dataset)
    found = traverse(study, record, image=50, limit=2.0, steps=5)
    assert record.result is not None
    assert found.replica == int(np.argmax(record.result.score.replica_scores))
    assert found.values == (-2.0, -1.0, 0.0, 1.0, 2.0)
    pixels = store.gather(np.array([50]))
    assert np.array_equal(found.pixels.ravel(), pixels.numpy().ravel())
    code = bank.encode(pixels[None]).mean
    for latent in range(3):
        for column, value in enumerate(found.values):
            moved = code.clone()
            moved[:, 0, latent] = value
            expected = bank.decode(moved)[found.replica, 0].reshape(1, 8, 8)
            assert torch.allclose(torch.from_numpy(found.decoded[latent, column]), expected, atol=1e-5)
    expected = bank.decode(code)[found.replica, 0].reshape(1, 8, 8)
    assert torch.allclose(torch.from_numpy(found.reconstruction), expected, atol=1e-5)
    assert len(found.kl) == len(found.meanings) == 3


def test_a_latent_is_named_by_what_it_knows(trained: tuple[Study, TrialRecord, Bank]) -> None:
    study, record, _ = trained
    found = traverse(study, record)
    assert record.result is not None
    known = record.result.score.information
    words = [meaning for meaning in found.meanings if meaning]
    assert words
    for meaning in words:
        name, _, share = meaning.rpartition(" ")
        assert name in known
        assert float(share.rstrip("%")) >= 5


def test_a_switched_off_latent_has_no_meaning() -> None:
    factors = np.random.default_rng(0).integers(0, 3, (500, 2))
    mean = torch.from_numpy(factors.astype(np.float32) * np.array([2, 1e-3], np.float32))[None]
    labels = WeakLabels(("a", "b"), np.arange(500), factors)
    logvar = torch.tensor([-4.0, 0.0]).expand(1, 500, 2)
    assert _meanings(Codes(mean, logvar), labels, ("a", "b")) == ("a 100.0%", "")
    assert _meanings(Codes(mean, None), labels, ("a", "b")) == ("a 100.0%", "b 100.0%")


def test_other_images_than_the_studys_are_refused(
    trained: tuple[Study, TrialRecord, Bank], make_space: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    study, record, _ = trained
    store = open_dataset(study.config.dataset)
    every = np.arange(store.count)
    upside_down = store.gather(every).numpy().reshape(-1, 8, 8)[::-1]
    factors = store.factors(every)
    import_arrays(upside_down, factors=factors, factor_names=store.factor_names, path=tmp_path / "other.arrow")
    space = make_space(dataset={"path": str(tmp_path / "other.arrow")}, protocol={"replicas": 2})
    study.config = load_space(space)
    for ask in (evaluate, traverse):
        with pytest.raises(InputError, match="the images are not those"):
            ask(study, record)


def test_a_checkpoint_of_a_trial_that_has_not_ended(trained: tuple[Study, TrialRecord, Bank]) -> None:
    study, record, bank = trained
    ended = study.checkpoint(record)
    assert ended.final
    kept = CheckpointFolder(str(study.path), "trials/00000")
    (study.path / "trials/00000" / WEIGHTS).unlink()
    kept.save(bank.state(), ended.result, final=False)
    kept.save(bank.state(), dataclasses.replace(ended.result, step=301), final=False)
    newest = study.checkpoint(record)
    assert (newest.final, newest.result.step) == (False, 301)
    assert newest.weights.keys() == bank.weights().keys()
    for file in (None, "step-0000000300.safetensors"):
        found, traversed = evaluate(study, record, file=file), traverse(study, record, file=file)
        assert (found.final, found.score.to_dict()) == (False, ended.result.score.to_dict())
        assert (traversed.step, traversed.final) == (found.step, False) == (300 if file else 301, False)
        assert traversed.replica == traverse(study, record).replica
    for name in ("step-0000000300.safetensors", "step-0000000301.safetensors"):
        file = study.path / "trials/00000" / name
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(RunError, match=r"trial 0: its checkpoints are .* damaged \(step-0000000301.*, step-0000000300"):
        traverse(study, record)


def test_a_random_image_is_that_of_its_seed(trained: tuple[Study, TrialRecord, Bank]) -> None:
    study, record, _ = trained
    drawn = [traverse(study, record, image_seed=seed).image for seed in (0, 1, 2, 0)]
    assert drawn[0] == drawn[3]
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("changes", [{"widths": (5,)}, {"architecture": "conv", "widths": (4, 4, 4, 4, 8)}])
def test_weights_of_another_architecture_are_refused(
    trained: tuple[Study, TrialRecord, Bank], tmp_path: Path, changes: dict[str, Any]
) -> None:
    study, record, bank = trained
    images = np.zeros((16, 64, 64), np.uint8)
    arrays = import_arrays(images, path=tmp_path / "other.arrow")
    other = Bank(dataclasses.replace(bank.model, **changes), bank.training, arrays, (1, 2))
    assert record.result is not None
    CheckpointFolder(str(study.path), "trials/00000").save(other.weights(), record.result, final=True)
    with pytest.raises(InputError, match=r"/trials/00000: not the weights of trial 0, which is fc 16 with 3 latents: "):
        traverse(study, record)


def test_what_cannot_be_asked(trained: tuple[Study, TrialRecord, Bank]) -> None:
    study, record, _ = trained
    with pytest.raises(InputError, match="training is done"):
        evaluate(study, record, ["training.steps=3"])
    with pytest.raises(InputError, match="0 to 107"):
        traverse(study, record, image=108)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("complete", "not kept; search.keep_models is 3"),
        ("pruned", "not kept; of pruned and failed trials"),
        ("interrupted", "no checkpoint yet"),
    ],
)
def test_why_there_are_no_weights(trained: tuple[Study, TrialRecord, Bank], state: State, why: str) -> None:
    study, record, _ = trained
    (study.path / "trials/00000" / WEIGHTS).unlink()
    with pytest.raises(InputError, match=f"trial 0: .*{why}"):
        study.checkpoint(dataclasses.replace(record, state=state))


def test_weights_that_cannot_be_read(trained: tuple[Study, TrialRecord, Bank]) -> None:
    study, record, _ = trained
    (study.path / "trials/00000" / WEIGHTS).unlink()
    (study.path / "trials/00000" / WEIGHTS).mkdir()
    with pytest.raises(RunError, match=r"trial 0: its weights cannot be read \("):
        evaluate(study, record)
