"""The commands on a study that the real program searched. Seeds: 3 (the study's), 0 (labels)."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import socket
import subprocess
import termios
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest
from pyarrow import parquet

from bvae_tune.search.study import Study
from bvae_tune.search.tensorboard import run_name

PNG = b"\x89PNG"


@pytest.fixture
def copied(study: Path, tmp_path: Path) -> Path:
    """The finished study, to be changed."""
    return Path(shutil.copytree(study, tmp_path / "copied"))


def test_a_search_ends_with_what_it_found_and_where_to_look(searched: tuple[Path, CompletedProcess[str]]) -> None:
    path, outcome = searched
    best = Study.open(path).best
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert best is not None
    for part in (
        f"best is {best.label}",
        f"β {best.beta:.3g}, β_norm {best.beta_norm:.3g}, M {best.latent_size}",
        "untrained",
        "beta=1",
        "chance",
        "L = 4",
        "bvae-tune confirm",
        "bvae-tune traverse",
        "bvae-tune trials",
        "bvae-tune tensorboard",
    ):
        assert part in outcome.stdout
    assert (path / "score_against_beta.png").read_bytes().startswith(PNG)
    assert f"Score and KL against β: {path / 'score_against_beta.png'}" in outcome.stdout


@pytest.mark.slow
def test_a_terminal_shows_a_live_table(
    command: list[str], environment: dict[str, str], space_file: Path, tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 160))
    arguments = ["search", "--space", str(space_file), "--storage", str(tmp_path), "--name", "seen"]
    with subprocess.Popen(
        [*command, *arguments], env={**environment, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the end of a terminal whose last writer is gone
            while part := os.read(ours, 65_536):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert text.count("0 of 2 trials") > 2
    assert "\x1b[1A" in text  # and drawn anew in its place
    assert "2 of 2 trials" in text
    assert text.count("best is trial") == 1
    assert "raylet" not in text


def test_status_of_a_finished_study(study: Path, invoke: Callable[..., CompletedProcess[str]]) -> None:
    assert "finished" in invoke("status", study).stdout
    found = json.loads(invoke("status", study, "--json").stdout)
    assert (found["finished"], found["driver"], found["trials"]) == (True, None, {"complete": 2})


def test_a_run_is_found_by_name_and_as_the_latest(study: Path, invoke: Callable[..., CompletedProcess[str]]) -> None:
    by_folder = invoke("best", study, "--json").stdout
    assert invoke("best", "tiny", "--storage", study.parent, "--json").stdout == by_folder
    assert invoke("best", "latest", "--storage", study.parent, "--json").stdout == by_folder
    missed = invoke("best", "tniy", "--storage", study.parent)
    assert (missed.returncode, "did you mean tiny?" in missed.stderr) == (2, True)


def test_best_and_trials_agree_with_the_record(
    study: Path, invoke: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    opened = Study.open(study)
    best = json.loads(invoke("best", study, "--json").stdout)
    rows = json.loads(invoke("trials", study, "--json", "--parquet", tmp_path / "trials.parquet").stdout)
    told = invoke("trials", study, "--parquet", tmp_path / "same.parquet").stdout
    assert told == f"{tmp_path / 'same.parquet'}\n"
    assert opened.best is not None
    assert (best["best"]["number"], best["best"]["score"]) == (opened.best.number, opened.best.score)
    assert [row["label"] for row in best["baselines"]] == ["untrained", "beta=1"]
    assert [row["label"] for row in rows] == ["untrained", "beta=1", "trial 0", "trial 1"]
    assert parquet.read_table(tmp_path / "trials.parquet").column("score").to_pylist() == [row["score"] for row in rows]
    for row in rows:
        assert row["label"] in invoke("trials", study).stdout


def test_the_kl_reached_stands_beside_beta_everywhere(
    study: Path, invoke: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    opened = Study.open(study)
    reached = {record.label: record.kl for record in (*opened.controls, *opened.trials)}
    assert all(kl is not None and kl > 0 for kl in reached.values())  # the untrained network's is measured as well
    rows = json.loads(invoke("trials", study, "--json", "--parquet", tmp_path / "trials.parquet").stdout)
    best = json.loads(invoke("best", study, "--json").stdout)
    for each in (*rows, *parquet.read_table(tmp_path / "trials.parquet").to_pylist(), best["best"], *best["baselines"]):
        assert each["kl"] == reached[each["label"]]
    for command in ("trials", "best"):
        text = invoke(command, study).stdout
        for label in ("untrained", "beta=1", opened.best.label if opened.best else ""):
            assert re.search(rf"{label} .* {reached[label]:.2f} ", text)


def test_kept_weights_score_as_the_search_said(study: Path, invoke: Callable[..., CompletedProcess[str]]) -> None:
    opened = Study.open(study)
    for record in (*opened.trials, opened.controls[1]):
        assert record.result is not None
        wanted = record.number if record.kind == "search" else "beta=1"
        found = json.loads(invoke("evaluate", study, "--trial", wanted, "--json").stdout)
        assert found["score"] == pytest.approx(record.result.score.score, abs=0.005)
        assert found["information"] == pytest.approx(record.result.score.information, abs=1e-3)
    other = json.loads(invoke("evaluate", study, "--set", "metric.pairs=2", "--json").stdout)
    assert other["pairs"] == 2
    assert "at L = 2" in invoke("evaluate", study, "--set", "metric.pairs=2").stdout


def test_traversals_are_drawn_of_the_best_trial(
    study: Path, invoke: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    best = Study.open(study).best
    assert best is not None
    outcome = invoke("traverse", study)
    assert outcome.stdout.strip() == str(study / f"traversals-{best.number:05d}.png")
    assert Path(outcome.stdout.strip()).read_bytes().startswith(PNG)
    other = invoke("traverse", study, "--trial", 1 - best.number, "--latents", 1, "--output", tmp_path / "other.png")
    assert other.returncode == 0
    assert (tmp_path / "other.png").read_bytes().startswith(PNG)
    weights = study / f"trials/{best.number:05d}/weights.safetensors"
    assert invoke("traverse", weights, "--image-seed", 3).stdout == outcome.stdout
    refused = invoke("traverse", weights, "--trial", "untrained")
    assert (refused.returncode, f"a checkpoint of trial {best.number}" in refused.stderr) == (2, True)
    shutil.copy(weights, tmp_path)
    refused = invoke("traverse", tmp_path / weights.name)
    assert (refused.returncode, "where a study has them" in refused.stderr) == (2, True)


def test_weights_that_were_kept_and_are_gone(copied: Path, invoke: Callable[..., CompletedProcess[str]]) -> None:
    shutil.rmtree(copied / "trials")
    for command in ("evaluate", "traverse"):
        outcome = invoke(command, copied)
        assert outcome.returncode == 2
        assert re.search(r"trials/0000\d/weights.safetensors: missing, though these weights were kept", outcome.stderr)


def test_a_search_space_that_is_gone_is_named(copied: Path, invoke: Callable[..., CompletedProcess[str]]) -> None:
    (copied / "space.yaml").unlink()
    for command in ("best", "resume"):
        outcome = invoke(command, copied)
        assert (outcome.returncode, "space.yaml: the search space is missing" in outcome.stderr) == (2, True)


def test_a_study_of_a_newer_format_is_left_alone(copied: Path, invoke: Callable[..., CompletedProcess[str]]) -> None:
    facts = json.loads((copied / "study.json").read_text())
    (copied / "study.json").write_text(json.dumps({**facts, "format": facts["format"] + 1}))
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    for command in ("status", "resume", "confirm", "traverse"):
        outcome = invoke(command, copied)
        assert outcome.returncode == 2
        assert "upgrade bvae-tune" in outcome.stderr
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_a_journal_with_a_torn_last_line_still_reads(
    copied: Path, invoke: Callable[..., CompletedProcess[str]]
) -> None:
    whole = invoke("trials", copied, "--json").stdout
    with (copied / "optuna.journal").open("ab") as journal:
        journal.write(b'{"op_code": 6, "wor')
    assert invoke("trials", copied, "--json").stdout == whole
    resumed = invoke("resume", copied)
    assert (resumed.returncode, "Nothing is left to run" in resumed.stdout) == (0, True)
    assert invoke("trials", copied, "--json").stdout == whole


def test_tensorboard_shows_the_study_to_this_machine_only(
    study: Path, command: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "tensorboard", str(study), "--port", str(port)], env=environment, stdout=log, stderr=log
        )
    try:
        runs = {"trial-00000", "trial-00001", "baseline-00000", "baseline-00001"}
        _wait_for(runs, f"http://127.0.0.1:{port}/data/runs", process)
        every = {"experimentName": "", "allowedStatuses": ["STATUS_SUCCESS"], "colParams": [], "sliceSize": 9}
        shown = _ask(f"http://127.0.0.1:{port}/data/plugin/hparams/session_groups", every)["sessionGroups"]
        records = Study.open(study)
        assert {group["name"] for group in shown} == runs
        for record in (*records.trials, *records.controls):
            (group,) = (group for group in shown if group["name"] == run_name(record))
            values = {metric["name"]["tag"]: metric["value"] for metric in group["metricValues"]}
            assert (group["hparams"]["beta"], group["hparams"]["latent_size"]) == (record.beta, record.latent_size)
            assert (values["Score/score"], values["loss/KL"]) == pytest.approx((record.score, record.kl))
        listening = [c for c in psutil.Process(process.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert {(c.laddr.ip, c.laddr.port) for c in listening} == {("127.0.0.1", port)}
    finally:
        process.terminate()
        process.wait(timeout=30)


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(url, body and json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def _wait_for(runs: set[str], url: str, process: subprocess.Popen[bytes]) -> None:
    """Until TensorBoard has read all the runs of the study."""
    for _ in range(120):
        assert process.poll() is None
        with suppress(OSError):
            if runs <= set(_ask(url)):
                return
        time.sleep(0.5)
    raise AssertionError("TensorBoard did not show the study within a minute")
