"""Where commands print: tables and progress for people, JSON for scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bvae_tune.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

# Tables in a pipe or a file: wide enough not to fold.
_WIDTH_ELSEWHERE = 160
_PLAIN_LINES = 5


def console() -> Console:
    """Standard output, for people."""
    from rich.console import Console

    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=_WIDTH_ELSEWHERE)


def print_json(data: Any) -> None:
    """One JSON document on standard output; numbers that JSON does not know become null."""
    print(json.dumps(_finite(data), indent=2, ensure_ascii=False))


def output_file(path: Path, option: str) -> Path:
    """The path, if a file can be written there; InputError if not."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"{option} {path}: give a file in a folder that exists")
    return path


@contextmanager
def progress_of(out: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A function that takes (done, in all): a bar on a terminal, a few lines elsewhere, nothing if never called."""
    if out.is_terminal:
        from rich.progress import Progress

        with Progress(console=out, transient=True) as bar:
            task = bar.add_task(what, total=None, visible=False)
            yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
        return
    told = 0

    def line(done: int, total: int) -> None:
        nonlocal told
        if done * _PLAIN_LINES // total > told:
            told = done * _PLAIN_LINES // total
            out.print(f"{what}: {100 * done // total}%")

    yield line


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
