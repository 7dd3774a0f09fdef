"""How a number, a path or a command is put to a reader, the same in every table, line and figure."""

from __future__ import annotations

import math
import shlex
from pathlib import Path


def command(name: str, path: Path) -> str:
    """`bvae-tune resume runs/one`, the path quoted where a shell needs it."""
    return f"bvae-tune {name} {shlex.quote(str(path))}"


def way_on(path: Path) -> str:
    """What follows on the reason for which a study at `path` had to stop."""
    return f"What was recorded is safe; when the cause is gone, go on with: {command('resume', path)}"


def nearest(path: Path) -> Path:
    """The path as a person would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def counted(number: float, what: str) -> str:
    """`1 trial`, `3 trials`, `0.5 GPUs`."""
    return f"{number:g} {what}" + ("" if number == 1 else "s")


def size(count: float) -> str:
    """Bytes as `4,000.0 GB` or, below one of these, `0.3 MB`."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def percent(share: float | None) -> str:
    """A share in [0, 1] as `72.3%`; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f}%"


def percent_with_spread(share: float | None, spread: float | None) -> str:
    """`72.3% ± 4.1`, both in percent; without a spread (one replica has none) the share alone."""
    return f"{percent(share)} ± {100 * spread:.1f}" if share is not None and spread else percent(share)


def nats(value: float | None) -> str:
    """An amount of information in nats with two decimals, without the unit: `15.22`; a dash where there is none."""
    return "–" if value is None else f"{value:.2f}"


def significant(value: float) -> str:
    """Three significant digits, without an exponent below a million: `0.00552`, `1.26`, `1,050`; a dash for NaN."""
    if math.isnan(value):
        return "–"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if 1e3 <= abs(rounded) < 1e6 else f"{rounded:.3g}"


def duration(seconds: float | None, *, short: bool = False) -> str:
    """`8 s`, `2 min 05 s` (short: `2 min`), `3 h 10 min`, `2 d 4 h`; a dash where there is none."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" if short else f"{whole // 60} min {whole % 60:02d} s"
    minutes = whole // 60
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def clock(seconds: float | None) -> str:
    """`0:08`, `2:05`, `3:10:00`, for columns; a dash where there is none."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
