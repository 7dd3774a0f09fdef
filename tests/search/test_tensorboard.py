from __future__ import annotations

import dataclasses
import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bvae_tune.search.records import TrialRecord, TrialResult
from bvae_tune.search.tensorboard import TensorBoardLog, run_name, scalars
from bvae_tune.space_config import Distribution

MakeRecord = Callable[..., TrialRecord]
SPACE = {
    "model.beta": Distribution("loguniform", 0.25, 128.0),
    "model.latent_size": Distribution("int", 2, 20),
    "training.learning_rate": Distribution("loguniform", 1e-4, 1e-2),
    "training.optimizer": Distribution("categorical", choices=("adam", "adagrad")),
}


def refuse(text: str) -> None:
    raise AssertionError(text)


def report(log: TensorBoardLog, record: TrialRecord, *steps: int) -> None:
    assert record.result is not None
    for step in steps:
        log.write_result(record, dataclasses.replace(record.result, step=step))


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


@contextmanager
def running_tensorboard(folder: Path) -> Iterator[Callable[..., Any]]:
    """The real TensorBoard on a free local port; gives a function that asks it for JSON."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(match for line in process.stderr if (match := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
        connection = http.client.HTTPConnection("127.0.0.1", int(address[1]), timeout=30)

        def ask(path: str, body: dict[str, Any] | None = None, **query: str) -> Any:
            url = f"/data/{path}?{urlencode(query)}"
            if body is None:
                connection.request("GET", url)
            else:
                connection.request("POST", url, json.dumps(body), {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())

        yield ask
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_a_report_s_numbers_come_back_from_the_event_file(tmp_path: Path, make_record: MakeRecord) -> None:
    record = make_record(7, replicas=2, latent_size=3, score=0.5, step=400)
    log = TensorBoardLog(tmp_path, SPACE, refuse)
    report(log, record, 100, 400)
    run = tmp_path / "trial-00007"
    assert points(run, "Score/score") == [(100, 0.5), (400, 0.5)]
    last = {tag: read(run).Scalars(tag)[-1].value for tag in read(run).Tags()["scalars"]}
    assert last == pytest.approx(
        {
            "Score/score": 0.5,
            "Score/spread over replicas": 0.04,
            "Score/MIG": 0.125,
            "Score/agreement of replicas": 0.625,
            "Score by pairs/L=01": 0.25,
            "Score by pairs/L=04": 0.5,
            "Score by pairs/L=64": 0.9,
            "Score by replica/0": 0.5,
            "Score by replica/1": 0.51,
            "information/scale": 0.75,
            "information/rotation": 0.03,
            "latent KL/01": 1.0,
            "latent KL/02": 0.5,
            "latent KL/03": 0.25,
            "loss/reconstruction": 100.5,
            "loss/KL": 8.5,
            "cost/images per second": 1000.0,
            "cost/images seen": 25600.0,
            "cost/seconds training": 40.0,
            "cost/seconds evaluating": 1.0,
            "cost/steps": 400.0,
        }
    )


def test_latents_are_ranked_by_kl_within_each_replica(make_record: MakeRecord) -> None:
    result = make_record().result
    assert result is not None
    values = scalars(dataclasses.replace(result, kl_per_latent=((0.0, 3.0), (1.0, 0.5))))
    assert (values["latent KL/01"], values["latent KL/02"]) == (2.0, 0.25)


def test_a_model_shows_the_losses_that_it_has(make_record: MakeRecord) -> None:
    result = make_record(replicas=2).result
    assert result is not None
    own = {"discriminator": (1.0, 2.0), "mutual information bound": (-0.5, 0.5)}
    adversarial = dataclasses.replace(result, reconstruction=(), kl=(), kl_per_latent=(), further_losses=own)
    values = scalars(TrialResult.from_dict(json.loads(json.dumps(adversarial.to_dict()))))
    losses = {tag: value for tag, value in values.items() if tag.startswith(("loss", "latent"))}
    assert losses == {"loss/discriminator": 1.5, "loss/mutual information bound": 0.0}


def test_a_resumed_trial_shows_every_step_once(tmp_path: Path, make_record: MakeRecord) -> None:
    report(TensorBoardLog(tmp_path, SPACE, refuse), make_record(score=0.4), 100, 200, 300)
    # Killed; the last checkpoint was that of step 200, and step 200 is reported again.
    resumed = TensorBoardLog(tmp_path, SPACE, refuse)
    report(resumed, make_record(score=0.6), 200, 300)
    # A worker dies, and the retry within the same run goes back a report as well.
    report(resumed, make_record(score=0.8), 300, 400)
    assert points(tmp_path / "trial-00000", "Score/score") == [
        (100, pytest.approx(0.4)),
        (200, pytest.approx(0.6)),
        (300, pytest.approx(0.8)),
        (400, pytest.approx(0.8)),
    ]


def test_errors_are_counted_told_once_and_never_raised(tmp_path: Path, make_record: MakeRecord) -> None:
    told: list[str] = []
    log = TensorBoardLog(tmp_path, SPACE, told.append)
    report(log, make_record(0), 100)
    (tmp_path / "trial-00001").write_text("a file where the run's folder belongs")
    report(log, make_record(1), 100, 200)
    log.finish(make_record(1))
    report(log, make_record(0), 200)
    assert log.errors == 3
    assert len(told) == 1
    assert "trial-00001" in told[0]
    assert points(tmp_path / "trial-00000", "Score/score") == [(100, 0.5), (200, 0.5)]


def test_a_full_disk_tears_no_later_record(tmp_path: Path, make_record: MakeRecord) -> None:
    log = TensorBoardLog(tmp_path, SPACE, lambda text: None)
    report(log, make_record(0), 100)
    run = tmp_path / "trial-00000"
    (first,) = run.iterdir()
    # /dev/full takes nothing: every write to it fails as on a full disk.
    first.rename(run / "kept")
    first.symlink_to("/dev/full")
    report(log, make_record(0), 200)
    assert log.errors == 1
    first.unlink()
    (run / "kept").rename(first)
    report(log, make_record(0), 300)
    assert points(run, "Score/score") == [(100, 0.5), (300, 0.5)]


def test_tensorboard_lists_every_trial_with_its_numbers(tmp_path: Path, make_record: MakeRecord) -> None:
    log = TensorBoardLog(tmp_path, SPACE, refuse)
    untrained = make_record(0, kind="baseline", label="untrained", score=0.35, step=0)
    first = make_record(0, score=0.6, beta=12.5, latent_size=7, kl=21.5)
    first.parameters.update({"training.learning_rate": 1e-3, "training.optimizer": "adam"})
    pruned = make_record(1, "pruned", score=0.3, beta=0.5, step=100)
    failed = make_record(2, "failed", score=float("nan"), step=100, reason="the loss is not finite")
    running = make_record(3, "running", score=0.45, step=200)
    for record, steps in (
        (untrained, [0]),
        (first, [100, 200, 400]),
        (pruned, [100]),
        (failed, [100]),
        (running, [200]),
    ):
        report(log, record, *steps)
        if record.state != "running":
            log.finish(record)
    never = make_record(4, "failed", step=0, beta=3.0, reason="out of memory")
    log.finish(never)

    every_status = [f"STATUS_{name}" for name in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
    wanted = {"experimentName": "", "allowedStatuses": every_status, "colParams": [], "startIndex": 0, "sliceSize": 99}
    with running_tensorboard(tmp_path) as ask:
        deadline = time.monotonic() + 30
        while len(ask("runs")) < 7 and time.monotonic() < deadline:
            time.sleep(0.2)
        experiment = ask("plugin/hparams/experiment", {"experimentName": ""})
        groups = ask("plugin/hparams/session_groups", wanted)["sessionGroups"]
        curve = ask("plugin/scalars/scalars", run="trial-00000", tag="Score/score")

    columns = {column["name"]: column["type"] for column in experiment["hparamInfos"]}
    assert columns == {
        "beta": "DATA_TYPE_FLOAT64",
        "beta_norm": "DATA_TYPE_FLOAT64",
        "latent_size": "DATA_TYPE_FLOAT64",
        "training.learning_rate": "DATA_TYPE_FLOAT64",
        "training.optimizer": "DATA_TYPE_STRING",
        "kind": "DATA_TYPE_STRING",
    }
    shown = [metric["displayName"] for metric in experiment["metricInfos"]]
    assert shown == ["score", "spread", "KL (nats)", "MIG", "steps", "information of scale", "information of rotation"]

    by_run = {group["name"]: group for group in groups}
    records = {run_name(record): record for record in (untrained, first, pruned, failed, running, never)}
    assert set(by_run) == set(records)
    for name, record in records.items():
        group = by_run[name]
        assert group["hparams"]["beta"] == record.beta
        assert group["hparams"]["beta_norm"] == record.beta_norm
        assert group["hparams"]["latent_size"] == record.latent_size
        values = {metric["name"]["tag"]: metric["value"] for metric in group.get("metricValues", [])}
        if record is never:
            assert values == {}
        elif record is failed:
            assert values["Score/score"] == "NaN"
        else:
            assert record.result is not None
            assert values["Score/score"] == pytest.approx(record.result.score.score)
            assert values["loss/KL"] == record.kl
            assert values["cost/steps"] == record.result.step
            assert values["information/scale"] == 0.75
    assert by_run["trial-00000"]["hparams"]["training.optimizer"] == "adam"
    assert by_run["baseline-00000"]["hparams"]["kind"] == "untrained"
    statuses = {name: group["sessions"][0]["status"] for name, group in by_run.items()}
    assert statuses == {
        "baseline-00000": "STATUS_SUCCESS",
        "trial-00000": "STATUS_SUCCESS",
        "trial-00001": "STATUS_SUCCESS",
        "trial-00002": "STATUS_FAILURE",
        "trial-00003": "STATUS_UNKNOWN",
        "trial-00004": "STATUS_FAILURE",
    }
    assert [(step, value) for _, step, value in curve] == [(s, pytest.approx(0.6)) for s in (100, 200, 400)]


def test_searched_keys_are_typed_by_their_choices(tmp_path: Path, make_record: MakeRecord) -> None:
    choices: dict[str, tuple[Any, ...]] = {
        "training.precision": ("float32", "bfloat16"),
        "model.widths": ("[16, 16]", None),
        "training.batch_size": (32, 64.0),
        "training.flag": (True, False),
    }
    space = {key: Distribution("categorical", choices=values) for key, values in choices.items()}
    log = TensorBoardLog(tmp_path, space, refuse)
    record = make_record(0)
    record.parameters.update({key: values[-1] for key, values in choices.items()})
    report(log, record, 100)
    content = read(tmp_path).PluginTagToContent("hparams")["_hparams_/experiment"]
    experiment = _plugin_data(content).experiment
    types = {column.name: column.type for column in experiment.hparam_infos}
    text, boolean, number = 1, 2, 3  # DATA_TYPE_STRING, DATA_TYPE_BOOL, DATA_TYPE_FLOAT64
    assert [types[key] for key in choices] == [text, text, number, boolean]
    content = read(tmp_path / "trial-00000").PluginTagToContent("hparams")["_hparams_/session_start_info"]
    values = _plugin_data(content).session_start_info.hparams
    assert values["model.widths"].string_value == "None"
    assert values["training.flag"].bool_value is False


def _plugin_data(content: bytes) -> Any:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    return HParamsPluginData.FromString(content)


def test_writing_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys, bvae_tune.search.tensorboard; print('torch' in sys.modules or 'tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_result_after_json_writes_the_same(make_record: MakeRecord) -> None:
    result = make_record(replicas=2).result
    assert result is not None
    assert scalars(TrialResult.from_dict(json.loads(json.dumps(result.to_dict())))) == scalars(result)
