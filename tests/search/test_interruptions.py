"""What stops a whole command from outside: a full disk, Ctrl-C, a second driver."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest
import yaml
from pyarrow import parquet
from ray_workers import workers
from rich.console import Console

from bvae_tune.errors import InputError
from bvae_tune.search.runner import SearchInterrupted, resume, search
from bvae_tune.search.study import Study

MakeSpace = Callable[..., dict[str, Any]]

# A file system of two megabytes over $0; the rest is the command.
MOUNT = 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"'

FULL_DISK = """
import shutil, sys
from pathlib import Path
from bvae_tune.errors import RunError
from bvae_tune.search.runner import resume, search
from bvae_tune.search.study import Study

disk = Path(sys.argv[1])
ballast = disk / "ballast"
ballast.write_bytes(bytes(shutil.disk_usage(disk).free - int(sys.argv[3])))
try:
    search(sys.argv[2], name="study", storage=disk)
except RunError as error:
    print("refused:", error)
ballast.unlink()
before = [trial for trial in Study.open(disk / "study").trials if trial.state == "complete"]
study = resume(disk / "study")
assert study.trials[: len(before)] == before
print("resumed:", [trial.state for trial in study.trials], [record.state for record in study.controls])
"""


@pytest.fixture
def space_file(make_space: MakeSpace, tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(make_space(search={"trials": 3}, training={"steps": 600, "report_every": 20})))
    return path


@pytest.mark.parametrize(
    "room", [150_000, *(pytest.param(n, marks=pytest.mark.soak) for n in range(50_000, 400_000, 50_000))]
)
def test_a_full_disk_ends_the_search_and_loses_nothing(
    own_mounts: list[str], space_file: Path, tmp_path: Path, room: int
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [*own_mounts, MOUNT, str(disk), sys.executable, "-c", FULL_DISK, str(disk), str(space_file), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    refused, resumed = done.stdout.splitlines()
    assert refused.startswith("refused: ")
    assert "No space left on device" in refused
    assert refused.endswith(f"go on with: bvae-tune resume {disk / 'study'}")
    assert resumed == f"resumed: {['complete'] * 3} {['complete'] * 2}"


@contextmanager
def interrupt_at(file: Path) -> Iterator[None]:
    """Ctrl-C to this process as soon as the file is there."""
    over = threading.Event()

    def wait() -> None:
        while not over.wait(0.02):
            if file.exists():
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def wait_for_lost_workers() -> None:
    """Until no worker of this process's Ray trains, and none can write to a study any more."""
    until = time.monotonic() + 30
    while workers("ray::BetaVAETrainable"):
        assert time.monotonic() < until, "a worker lives on"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)])
@pytest.mark.usefixtures("embedded_ray")
def test_an_interrupt_is_130_stops_cleanly_and_names_the_way_on(
    command: list[str], space_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "study"
    arguments = ["search", "--space", str(space_file), "--storage", str(tmp_path), "--name", "study"]
    arguments += ["--set", "training.steps=400", "--trials", "2"]
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    journal = path / "optuna.journal"
    try:
        while not (journal.exists() and journal.read_bytes().count(b"intermediate_value") > 25):
            assert process.poll() is None
            time.sleep(0.02)
        with pytest.raises(InputError, match=f"process {process.pid} of .* drives this study"):
            resume(path)
        of_ray = psutil.Process(process.pid).children(recursive=True)
        assert any("raylet" in child.name() for child in of_ray)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # a terminal sends it to all that it runs
        else:
            process.send_signal(number)
        sent = time.monotonic()
        _, told = process.communicate(timeout=60)
        assert time.monotonic() - sent < 30
    finally:
        process.kill()
    assert told == f"interrupted; go on with: bvae-tune resume {path}\n"
    assert process.returncode == 130
    assert psutil.wait_procs(of_ray, timeout=30)[1] == []

    study = Study.open(path)
    assert study.driver is None
    assert all("end" in session for session in study.sessions)
    unfinished = [record for record in (*study.controls, *study.trials) if record.state == "interrupted"]
    assert len(unfinished) == 1
    assert (path / "results.parquet").exists()
    if number == signal.SIGINT:
        finished = resume(path)
        assert [trial.state for trial in finished.trials] == ["complete"] * 2
        assert [record.state for record in finished.controls] == ["complete"] * 2
        assert len(finished.sessions) == 2


@pytest.mark.usefixtures("embedded_ray")
def test_a_trial_whose_checkpoints_are_damaged_begins_anew_before_all_eyes(
    space_file: Path, tmp_path: Path, invoke: Callable[..., CompletedProcess[str]]
) -> None:
    settings = ["search.trials=1", "training.report_every=60"]
    whole = search(space_file, settings, name="whole", storage=tmp_path)
    path = tmp_path / "study"
    with pytest.raises(SearchInterrupted), interrupt_at(path / "trials/00000/step-0000000180.safetensors"):
        search(space_file, settings, name="study", storage=tmp_path)
    wait_for_lost_workers()
    assert "interrupted" in parquet.read_table(path / "results.parquet").column("state").to_pylist()
    study = Study.open(path)
    (stopped,) = study.trials
    assert stopped.state == "interrupted"
    step = study.checkpoint(stopped).result.step
    assert f"trial 0 (unfinished, at step {step})" in invoke("evaluate", path, "--trial", "0").stdout
    refused = invoke("traverse", path)
    assert refused.returncode == 2
    assert "no trial has finished yet (interrupted; go on with: " in refused.stderr
    assert refused.stderr.endswith("; there are weights of --trial 0 or --trial beta=1\n")

    damaged = sorted(path.glob("trials/00000/step-*.safetensors"), reverse=True)
    for file in damaged:
        file.write_bytes(file.read_bytes()[:-1])
    refused = invoke("traverse", path, "--trial", "0")
    assert refused.returncode == 1
    assert f"are cut short or damaged ({damaged[0].name}, {damaged[1].name}, in " in refused.stderr
    told, record = io.StringIO(), path / "optuna.journal"
    known = record.stat().st_size
    resumed = resume(path, console=Console(file=told, width=400))
    assert f"\ntrial 0: {damaged[0].name}, {damaged[1].name} cut short or damaged: began anew\n" in told.getvalue()
    written = map(json.loads, record.read_bytes()[known:].splitlines())
    steps = [line["user_attr"]["result"]["step"] for line in written if "result" in line.get("user_attr", {})]
    assert steps == list(range(60, 601, 60))  # the record shows where it is, though it had been further
    (again,), (expected,) = resumed.trials, whole.trials
    assert (again.state, list(again.intermediate)) == ("complete", steps)
    assert (again.score, again.intermediate) == (expected.score, expected.intermediate)
    assert again.result is not None
    assert again.result.notice in told.getvalue()
