"""A study's folder: what lies where, how it comes to be, and who may write in it.

    space.yaml        the resolved search space
    study.json        format version, package versions, hardware, seeds, fingerprints of data and labels
    optuna.journal    the record: searched trials and controls
    trials/00007/     checkpoints while trial 7 runs, its weights afterwards if it is among the best
    controls/00000/   the same for baselines and confirmations
    tensorboard/      event files
    results.parquet   the record as a table, derived
    driver.lock       held by the one process that writes; driver.json names it

Optuna's journal is a local file, so the folder lies on a disk of the driver, which other nodes may mount.
"""

from __future__ import annotations

import getpass
import io
import itertools
import json
import os
import platform
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
import psutil
import pyarrow as pa
from pyarrow import parquet

from bvae_tune.errors import NO_SPACE, InputError
from bvae_tune.search.journal import create_record
from bvae_tune.search.storage import LATEST, STUDY
from bvae_tune.wording import command

FORMAT_VERSION = 1
SPACE, JOURNAL, RESULTS = "space.yaml", "optuna.journal", "results.parquet"
TRIALS, CONTROLS, TENSORBOARD = "trials", "controls", "tensorboard"
SCRATCH = ".tune"  # Ray Tune's run folder: never read
_LOCK, _DRIVER = "driver.lock", "driver.json"
_PACKAGES = ("bvae-tune", "torch", "ray", "optuna", "numpy", "scikit-learn", "pyarrow", "safetensors")


def default_name(space: object, storage: str | Path) -> str:
    """A name with the time in it that is free there: `shapes-20250301-142530` for `shapes` or `dir/shapes.yaml`."""
    stem = Path(space).stem if isinstance(space, str | Path) else "study"
    name = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
    return next(name for name in names if not (Path(storage).expanduser() / name).exists())


def create_folder(storage: str | Path, name: str, space_yaml: str, facts: Mapping[str, Any]) -> Path:
    """Make the folder of a new study, whole or not at all.

    Args:
        storage: the folder of studies, made when missing; a path of this machine.
        name: of the study, a plain folder name.
        space_yaml: the resolved search space.
        facts: what `study.json` holds beside format, versions and hardware.

    Raises:
        InputError: the name exists already or is no folder name, or the storage is not a path of this machine or
            cannot be written.
        OSError: no space left.
    """
    if "://" in str(storage):
        raise InputError(f"--storage {storage}: give a folder of this machine (one that all nodes mount, on a cluster)")
    if not name or name in (".", "..") or Path(name).name != name:
        raise InputError(f"--name {name!r}: give a plain folder name, as in --name shapes-1")
    if name == LATEST:
        raise InputError(f"--name {name}: this stands for the study begun last; choose another name")
    path = Path(storage).expanduser().absolute() / name
    taken = f"--name {name}: {path} exists already; choose another name, or go on with it: {command('resume', path)}"
    if path.exists():
        raise InputError(taken)
    draft = path.with_name(f".{name}.{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        (draft / SPACE).write_text(space_yaml, encoding="utf-8")
        data = {"format": FORMAT_VERSION, "name": name, **facts, "versions": versions(), "hardware": hardware()}
        (draft / STUDY).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        create_record(draft / JOURNAL)
        draft.rename(path)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        if error.errno in NO_SPACE:
            raise
        raise InputError(
            taken if path.exists() else f"--storage {storage}: cannot be written ({error.strerror or error})"
        ) from error
    return path


def read_facts(path: Path) -> dict[str, Any]:
    """`study.json` of the study in `path`.

    Raises:
        InputError: no study there, one of a newer format, or a damaged file.
    """
    file = path / STUDY
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        version = int(facts["format"])
    except FileNotFoundError:
        raise InputError(f"{path}: no study here (no {STUDY}); give the folder that search printed") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot be read as a study's facts ({error}); bring it back from a copy") from error
    if version > FORMAT_VERSION:
        raise InputError(
            f"{file}: format {version} is newer than this bvae-tune knows ({FORMAT_VERSION}); "
            f"upgrade bvae-tune (the study was made with {facts.get('versions', {}).get('bvae-tune', 'a newer one')})"
        )
    return facts


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def hardware() -> dict[str, Any]:
    """The driver's machine."""
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


@contextmanager
def driver_lock(path: Path) -> Iterator[None]:
    """Be the one process that writes to the study; repairs what a killed one left behind.

    The lock is the kernel's (flock) and ends with its holder, so that a dead driver is taken over at once. Under it,
    a journal line cut short, Optuna's stale journal lock and Tune's scratch folder are dropped.

    Raises:
        InputError: another driver holds it; names the holder.
    """
    lock = filelock.FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        who = holder(path) or "another process"
        raise InputError(f"{path}: {who} drives this study; wait for it, or stop it first") from None
    try:
        mine = {"host": socket.gethostname(), "pid": os.getpid(), "user": _user(), "since": time.time()}
        mine["born"] = psutil.Process().create_time()
        write_atomically(path / _DRIVER, json.dumps(mine).encode())
        repair(path)
        yield
    finally:
        with suppress(OSError):
            step_down(path)
        lock.release()


def step_down(path: Path) -> None:
    """Be named as the driver no longer, though the lock may still be held: nothing runs any more."""
    (path / _DRIVER).unlink(missing_ok=True)


def holder(path: Path) -> str | None:
    """Who drives the study, in words; None if nobody does (a dead driver of this host does not count)."""
    try:
        data = json.loads((path / _DRIVER).read_text())
        host, pid, user, since = data["host"], int(data["pid"]), data["user"], float(data["since"])
        born = float(data["born"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if host == socket.gethostname() and not _alive(pid, born):
        return None
    return f"process {pid} of {user} on {host} (since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(since))})"


def _alive(pid: int, born: float) -> bool:
    """Whether the process is still there, and not another one that was given its number."""
    try:
        return abs(psutil.Process(pid).create_time() - born) < 1
    except psutil.Error:
        return False


def repair(path: Path) -> None:
    """Drop what a killed driver can leave: a torn last journal line, the journal's lock, Tune's scratch folder.

    A line is torn if its end is missing, or if it is two: one cut by a full disk, and what was written after it.
    """
    with (path / JOURNAL).open("r+b") as journal:
        content = journal.read()
        end = content.rfind(b"\n") + 1
        start = content.rfind(b"\n", 0, max(end - 1, 0)) + 1
        journal.truncate(end if _is_json(content[start:end]) else start)
    (path / f"{JOURNAL}.lock").unlink(missing_ok=True)
    shutil.rmtree(path / SCRATCH, ignore_errors=True)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def write_atomically(path: Path, content: bytes) -> None:
    """Write a local file under another name and rename it; readers see the old file or the new one, whole."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet, atomically."""
    # Not straight to the path: where that fails, pyarrow deletes what stood there before.
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    write_atomically(path, buffer.getvalue())


def size_bytes(path: Path) -> int:
    """Bytes of all files below `path`; files that vanish meanwhile do not count."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def trial_folder(kind: str, number: int) -> str:
    """Folder of a trial's checkpoints, relative to the study: `trials/00007`, `controls/00000`."""
    return f"{TRIALS if kind == 'search' else CONTROLS}/{number:05d}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
