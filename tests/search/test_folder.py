from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from bvae_tune.errors import InputError
from bvae_tune.search import folder
from bvae_tune.search.journal import open_record
from bvae_tune.search.storage import STUDY

FACTS = {"seed": 0}

HOLD = """
import sys, time
from pathlib import Path
from bvae_tune.search.folder import driver_lock
with driver_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return folder.create_folder(tmp_path, "one", "space: {}\n", FACTS)


def hold(study: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(study)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_new_study_has_its_space_facts_and_an_empty_record(study: Path) -> None:
    assert sorted(path.name for path in study.iterdir()) == ["optuna.journal", "space.yaml", "study.json"]
    facts = folder.read_facts(study)
    assert (facts["format"], facts["name"], facts["seed"]) == (folder.FORMAT_VERSION, "one", 0)
    assert facts["versions"]["ray"]
    assert facts["hardware"]["memory_bytes"] > 0
    searched, controls = open_record(study / folder.JOURNAL)
    assert searched.trials == controls.trials == []


def test_a_taken_name_is_refused_and_the_old_study_untouched(study: Path) -> None:
    before = {path: path.read_bytes() for path in study.iterdir()}
    with pytest.raises(InputError, match=r"--name one: .* exists already.*bvae-tune resume"):
        folder.create_folder(study.parent, "one", "space: {}\n", FACTS)
    assert {path: path.read_bytes() for path in study.iterdir()} == before
    assert list(study.parent.iterdir()) == [study]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/abs"])
def test_names_that_are_no_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="plain folder name"):
        folder.create_folder(tmp_path, name, "", FACTS)
    assert list(tmp_path.iterdir()) == []


def test_latest_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the study begun last"):
        folder.create_folder(tmp_path, "latest", "", FACTS)


def test_storage_must_be_a_folder_of_this_machine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a folder of this machine"):
        folder.create_folder("s3://bucket/runs", "one", "", FACTS)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        folder.create_folder(tmp_path / "file", "one", "", FACTS)


def test_default_names_carry_the_space_and_a_time_and_are_free(tmp_path: Path) -> None:
    assert folder.default_name({"model": {}}, tmp_path).startswith("study-20")
    names = []
    for _ in range(20):
        names.append(folder.default_name("dir/shapes.yaml", tmp_path))
        (tmp_path / names[-1]).mkdir()
    assert all(name.startswith("shapes-20") for name in names)
    assert len(set(names)) == 20


def test_a_process_that_has_got_a_dead_drivers_number_does_not_count(study: Path) -> None:
    process = hold(study)
    driver = study / "driver.json"
    held = json.loads(driver.read_text())
    process.kill()
    process.wait()
    driver.write_text(json.dumps(held | {"pid": os.getpid()}))
    assert folder.holder(study) is None


def test_a_newer_format_is_refused(study: Path) -> None:
    facts = json.loads((study / STUDY).read_text())
    facts["format"] += 1
    facts["versions"]["bvae-tune"] = "9.1"
    (study / STUDY).write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"newer than this bvae-tune knows.*upgrade bvae-tune.*9\.1"):
        folder.read_facts(study)


def test_what_is_no_study_is_named(study: Path) -> None:
    with pytest.raises(InputError, match="no study here"):
        folder.read_facts(study.parent)
    (study / STUDY).write_text("{")
    with pytest.raises(InputError, match=r"study\.json: cannot be read"):
        folder.read_facts(study)


def test_a_second_driver_is_refused_with_the_name_of_the_first(study: Path) -> None:
    process = hold(study)
    try:
        assert f"process {process.pid} " in (folder.holder(study) or "")
        with (
            pytest.raises(InputError, match=f"process {process.pid} of .* drives this study"),
            folder.driver_lock(study),
        ):
            pass
    finally:
        process.kill()
        process.wait()


def test_a_dead_driver_is_taken_over_at_once(study: Path) -> None:
    process = hold(study)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert folder.holder(study) is None
    with folder.driver_lock(study):
        assert f"process {os.getpid()} " in (folder.holder(study) or "")
    assert folder.holder(study) is None


def test_the_driver_drops_what_a_killed_one_left(study: Path) -> None:
    searched, _ = open_record(study / folder.JOURNAL)
    searched.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    whole = (study / folder.JOURNAL).read_bytes()
    (study / folder.JOURNAL).write_bytes(whole + b'{"op_code": 4, "wor')
    os.symlink(study / folder.JOURNAL, study / f"{folder.JOURNAL}.lock")
    (study / folder.SCRATCH).mkdir()
    (study / folder.SCRATCH / "junk").touch()

    read, _ = open_record(study / folder.JOURNAL)  # a reader passes the torn line over and repairs nothing
    assert len(read.trials) == 1
    assert (study / folder.JOURNAL).read_bytes() != whole

    with folder.driver_lock(study):
        assert (study / folder.JOURNAL).read_bytes() == whole
        assert not (study / folder.SCRATCH).exists()
        again, _ = open_record(study / folder.JOURNAL)
        again.ask()  # waits half a minute where the journal's lock is still there
    assert len(open_record(study / folder.JOURNAL)[0].trials) == 2


@pytest.mark.parametrize("tail", [b'{"op', b'{"op_co{"op_code": 2}\n', b'{"op_co{"op_code": 2}\n{"o'])
def test_a_line_cut_by_a_full_disk_is_dropped_with_what_was_written_after_it(study: Path, tail: bytes) -> None:
    journal = study / folder.JOURNAL
    whole = journal.read_bytes()
    journal.write_bytes(whole + tail)
    folder.repair(study)
    assert journal.read_bytes() == whole
    folder.repair(study)
    assert journal.read_bytes() == whole


def test_an_empty_journal_is_repaired_to_an_empty_one(study: Path) -> None:
    (study / folder.JOURNAL).write_bytes(b"")
    folder.repair(study)
    assert (study / folder.JOURNAL).read_bytes() == b""


def test_a_missing_or_damaged_journal_is_named(study: Path) -> None:
    (study / folder.JOURNAL).write_text('not json\n{"op_code": 0}\n')
    with pytest.raises(InputError, match=r"optuna\.journal: damaged"):
        open_record(study / folder.JOURNAL)
    (study / folder.JOURNAL).unlink()
    with pytest.raises(InputError, match=r"optuna\.journal: the record is missing"):
        open_record(study / folder.JOURNAL)


def test_atomic_writes_leave_no_draft_behind_and_sizes_add_up(tmp_path: Path) -> None:
    folder.write_atomically(tmp_path / "a", b"12345")
    folder.write_atomically(tmp_path / "a", b"123")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"1234")
    assert folder.size_bytes(tmp_path) == 7
