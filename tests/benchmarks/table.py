"""The lines of `make bench`: a figure of ours beside a rival's and the machine's limit, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from statistics import linear_regression, median

from rich.console import Console
from rich.table import Table

from bvae_tune.search.folder import hardware, versions


@dataclass(frozen=True)
class Line:
    """Medians over rounds, and medians of the ratios that each round gave.

    Attributes:
        what: what was measured.
        unit: of the three figures.
        ours, rival, limit: figures; None where there is none.
        rival_is, limit_is: what stands behind them.
        times_rival: how many times better than the rival; above 1 is better.
        times_limit: how many times what the machine's limit would take; 1 is the limit.
        target: what is asked, in words.
    """

    what: str
    unit: str
    ours: float
    rival: float | None = None
    rival_is: str = ""
    times_rival: float | None = None
    limit: float | None = None
    limit_is: str = ""
    times_limit: float | None = None
    target: str = ""


def line(
    what: str,
    unit: str,
    ours: Sequence[float],
    rival: Sequence[float] = (),
    rival_is: str = "",
    limit: Sequence[float] = (),
    limit_is: str = "",
    target: str = "",
) -> Line:
    """A line from one figure a round of each. Units with a "/" are speeds; in all others less is better."""

    def ratio(better: Sequence[float], worse: Sequence[float]) -> float:
        if "/" not in unit:
            better, worse = worse, better
        return median(a / b for a, b in zip(better, worse, strict=True))

    return Line(
        what=what,
        unit=unit,
        ours=median(ours),
        rival=median(rival) if rival else None,
        rival_is=rival_is,
        times_rival=ratio(ours, rival) if rival else None,
        limit=median(limit) if limit else None,
        limit_is=limit_is,
        times_limit=ratio(limit, ours) if limit else None,
        target=target,
    )


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """How what `values` gain over the first one grows with what `sizes` gain: the slope of the logarithms.

    What every size costs would hide the growth, were it left in. Leaving it out draws the slope towards 1: of three
    sizes five and twenty times the first, n² reads 1.8. 0 where the last value gains less than a twentieth.
    """
    if values[-1] < 1.05 * values[0]:
        return 0.0
    gains = [(size - sizes[0], value - values[0]) for size, value in zip(sizes, values, strict=True)]
    seen = [(log(size), log(value)) for size, value in gains if size > 0 and value > 0]
    return linear_regression(*zip(*seen, strict=True)).slope if len(seen) > 1 else float("nan")


def show(lines: Iterable[Line], title: str) -> None:
    """Print the table."""
    table = Table(title=title)
    for column in ("what", "unit", "ours", "rival", "x rival", "limit", "x limit", "target"):
        table.add_column(column, justify="left" if column in ("what", "unit", "target") else "right", overflow="fold")
    for row in lines:
        table.add_row(
            row.what,
            row.unit,
            figure(row.ours),
            "" if row.rival is None else f"{figure(row.rival)} ({row.rival_is})",
            "" if row.times_rival is None else f"{row.times_rival:.2f}",
            "" if row.limit is None else f"{figure(row.limit)} ({row.limit_is})",
            "" if row.times_limit is None else f"{row.times_limit:.2f}",
            row.target,
        )
    Console(width=None if os.environ.get("COLUMNS") or os.isatty(1) else 160).print(table)


def figure(value: float) -> str:
    """Three digits, or the whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(lines: Iterable[Line], path: Path) -> None:
    """The lines as JSON, and what they were measured on."""
    import torch

    here = hardware() | {
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    content = {"versions": versions(), "hardware": here, "lines": [asdict(row) for row in lines]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(measure: Callable[[argparse.Namespace], Iterable[Line]], parser: argparse.ArgumentParser, title: str) -> None:
    """Measure, print and, where asked, write JSON: the body of every benchmark's script."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--json", type=Path, help="write the lines there")
    arguments = parser.parse_args()
    lines = list(measure(arguments))
    show(lines, title)
    if arguments.json:
        write(lines, arguments.json)
