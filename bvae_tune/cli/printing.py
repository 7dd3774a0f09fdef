"""Where commands print: tables and a picture for people, JSON for scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bvae_tune.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from bvae_tune.search.study import Study

# Tables in a pipe or a file: wide enough not to fold.
_WIDTH_ELSEWHERE = 160


def console() -> Console:
    """Standard output, for people."""
    from rich.console import Console

    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=_WIDTH_ELSEWHERE)


@contextmanager
def working(out: Console, what: str) -> Iterator[None]:
    """Says what is being done for the time of it: with a spinner on a terminal, as a line elsewhere."""
    if not out.is_terminal:
        out.print(what)
    with out.status(what):
        yield


def print_json(data: Any) -> None:
    """One JSON document on standard output; numbers that JSON does not know become null."""
    print(json.dumps(_finite(data), indent=2, ensure_ascii=False))


def draw_score_and_kl(study: Study, out: Console | None) -> None:
    """Draw the picture of score and KL against β anew, and say where; nothing for models without β."""
    from bvae_tune.reporting.figures import score_and_kl, write_png

    trials, controls = study.trials, study.controls
    if all(math.isnan(record.beta) for record in (*trials, *controls)):
        return
    path = study.path / "score_against_beta.png"
    write_png(score_and_kl(trials, controls, f"{study.name}: score and KL of each trial against β"), path)
    if out is not None:
        out.print(f"Score and KL against β: {path}", soft_wrap=True)


def output_file(path: Path, option: str, ending: str = "") -> Path:
    """The path, if it has that ending and a plain file can be written there, over one that stands there.

    Raises:
        InputError: it has another ending, or none can be written there.
    """
    if not path.name.lower().endswith(ending):
        raise InputError(f"{option} {path}: the file will be a {ending[1:].upper()}; give a name that ends in {ending}")
    if (path.exists() and not path.is_file()) or not path.absolute().parent.is_dir():
        raise InputError(f"{option} {path}: give a file in a folder that exists")
    return path


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
