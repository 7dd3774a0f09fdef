"""Figures of a study, each a function from trials to a matplotlib Figure; `write_png` puts one on disk.

Figures are built on `matplotlib.figure.Figure` without pyplot: no window, no global state, any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from bvae_tune.search.progress import last_score
from bvae_tune.search.records import ranked
from bvae_tune.wording import nats, percent, percent_with_spread, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bvae_tune.search.records import TrialRecord

DPI = 150
SMALL, TEXT, TITLE = 8.0, 9.0, 11.0  # points
INK, FAINT, RED = "#222222", "#777777", "#c0392b"


def write_png(figure: Figure, path: Path) -> None:
    """Write the figure at its own size: `figure.get_size_inches() * figure.dpi` pixels."""
    figure.savefig(path, dpi=figure.dpi, format="png")


def score_and_kl(trials: Sequence[TrialRecord], controls: Sequence[TrialRecord], title: str) -> Figure:
    """Score against β over a study, and below it the KL reached: the capacity ε that each β implies (Sec. A.6).

    Args:
        trials: searched ones. Coloured by M, filled: finished, with the spread over replicas as a bar, and a thick
            cross where every latent is switched off; hollow: pruned, at their last report. Thin red crosses at the
            foot: failed. The best one is ringed and named.
        controls: baselines are horizontal lines, beside chance; confirmations are small diamonds, or small thick
            crosses where every latent is switched off.
        title: over the figure.
    """
    figure = Figure(figsize=(8.0, 7.2), dpi=DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    confirmed = [record for record in controls if record.kind == "confirm" and record.score is not None]
    baselines = [record for record in controls if record.kind == "baseline" and record.score is not None]
    finished = [record for record in trials if record.state == "complete" and record.score is not None]
    pruned = [record for record in trials if record.state == "pruned" and record.intermediate]
    failed = [record for record in trials if record.state == "failed"]
    drawn = (*finished, *pruned, *confirmed)

    sizes = sorted({record.latent_size for record in drawn})
    palette = mpl.colormaps["viridis"](np.linspace(0.0, 0.92, len(sizes)))  # its last yellows vanish on white
    for record in drawn:
        colour = to_hex(palette[sizes.index(record.latent_size)])
        _spread_bar(above, record, colour)
        _mark(above, record, last_score(record) or 0.0, colour)
        if record.kl is not None:
            _mark(below, record, record.kl, colour)
    for record in failed:
        above.plot(record.beta, 0.025, "x", color=RED, markersize=5, transform=above.get_xaxis_transform())

    scores = [record.result.score for record in (*trials, *controls) if record.result]
    above.set_ylim(0, 1.15)
    above.set_yticks(np.linspace(0, 1, 6))
    above.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _style(above, f"score (L = {scores[0].pairs})" if scores else "score")
    # Not logarithmic: the KL of a code that is switched off is zero, and has its place at the foot.
    below.set_ylim(0, 1.1 * max((record.kl or 0.0 for record in (*drawn, *baselines)), default=0.0) or 1.0)
    below.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    _style(below, "KL reached (nats per image)")
    below.set_xlabel("β", fontsize=TEXT, color=INK)
    figure.align_ylabels()
    _ticks(below)
    if finished:
        best = ranked(finished)[0]
        _ring(above, best, best.score or 0.0)
        _ring(below, best, best.kl or 0.0)
        _name(above, best)
    lines = [(record.score or 0.0, record.label, percent(record.score)) for record in baselines]
    _reference_lines(above, [*lines, *((score.chance, "chance", percent(score.chance)) for score in scores[:1])])
    kls = [(record.kl, record.label, f"{nats(record.kl)} nats") for record in baselines if record.kl is not None]
    _reference_lines(below, kls)

    shown = [
        ([record for record in finished if not record.collapsed], "finished", "o", FAINT, FAINT, 6),
        ([record for record in finished if record.collapsed], "finished, code switched off", "X", FAINT, FAINT, 6),
        (pruned, "pruned, last report", "o", FAINT, "none", 6),
        ([record for record in confirmed if not record.collapsed], "fresh seeds", "D", FAINT, FAINT, 4),
        ([record for record in confirmed if record.collapsed], "fresh seeds, code switched off", "X", FAINT, FAINT, 4),
        (failed, "failed", "x", RED, RED, 5),
    ]
    handles = [
        Line2D([], [], linestyle="none", label=name, marker=marker, color=colour, markerfacecolor=face, markersize=size)
        for records, name, marker, colour, face, size in shown
        if records
    ]
    figure.legend(handles=handles, loc="outside lower right", ncols=3, fontsize=SMALL, frameon=False, labelcolor=INK)
    if len(sizes) > 1:
        colours = ScalarMappable(BoundaryNorm(np.arange(len(sizes) + 1) - 0.5, len(sizes)), ListedColormap(palette))
        bar = figure.colorbar(colours, ax=(above, below), fraction=0.04, pad=0.03, aspect=32)
        bar.set_label("latents M", fontsize=TEXT, color=INK)
        ticks = range(0, len(sizes), max(1, round(len(sizes) / 10)))
        bar.set_ticks(ticks, labels=[str(sizes[place]) for place in ticks])
        bar.ax.tick_params(which="both", labelsize=SMALL, labelcolor=INK, length=0)
        bar.outline.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE, color=INK)
    return figure


def _spread_bar(axes: Axes, record: TrialRecord, colour: str) -> None:
    if record.result and record.state == "complete" and record.result.score.spread > 0:
        score = record.result.score
        axes.errorbar(record.beta, score.score, score.spread, fmt="none", ecolor=colour, elinewidth=1.2, zorder=2)


def _mark(axes: Axes, record: TrialRecord, height: float, colour: str) -> None:
    hollow = record.state == "pruned"
    cross = record.state == "complete" and record.collapsed
    axes.plot(
        record.beta,
        height,
        marker="X" if cross else "D" if record.kind == "confirm" else "o",
        markersize=4.5 if record.kind == "confirm" else 7,
        markerfacecolor="none" if hollow else colour,
        markeredgecolor=colour if hollow else "white",
        markeredgewidth=1.3 if hollow else 0.6,
        clip_on=False,  # or a KL of zero would be half a point
        zorder=3,
    )


def _ring(axes: Axes, best: TrialRecord, height: float) -> None:
    axes.plot(
        best.beta, height, "o", markersize=12, markerfacecolor="none", markeredgecolor=INK, clip_on=False, zorder=4
    )


def _name(axes: Axes, best: TrialRecord) -> None:
    score, spread = best.score or 0.0, best.result.score.spread if best.result else 0.0
    axes.annotate(
        f"{best.label}: {percent_with_spread(score, spread)}\nβ {significant(best.beta)}, M {best.latent_size}",
        (best.beta, score),
        # Above 100%, where no other trial can lie.
        xytext=(best.beta, 1.03),
        arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkB": 6},
        ha="center",
        va="bottom",
        fontsize=SMALL,
        color=INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},  # the line at β = 1 may pass behind it
    )


def _reference_lines(axes: Axes, lines: Sequence[tuple[float, str, str]]) -> None:
    """A horizontal line for each (height, label, its height in words), named beside the axes."""
    height = 0.0
    for value, label, words in sorted(lines):
        axes.axhline(value, color=FAINT, linewidth=1.0, linestyle=":" if label == "chance" else "--", zorder=1)
        height = max(value, height)
        axes.annotate(
            f"{label} {words}",
            (1.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(1.03, height),
            textcoords=("axes fraction", "data"),
            arrowprops={
                "arrowstyle": "-",
                "color": FAINT,
                "linewidth": 0.7,
                "shrinkA": 2,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
            va="center",
            fontsize=SMALL,
            color=FAINT,
            annotation_clip=False,
        )
        height += 0.06 * axes.get_ylim()[1]  # lines of nearly one height would write over each other


def _ticks(axes: Axes) -> None:
    """Of β: at 1, 2 and 5 of each decade, or at every decade where there are many; both panels share them."""
    low, high = np.log10(axes.get_xlim())
    few = high - low <= 4
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=None if few else 12))


def _style(axes: Axes, heights: str) -> None:
    axes.set_xscale("log")
    axes.margins(x=0.08)
    axes.axvline(1.0, color="#bbbbbb", linewidth=1.0, zorder=1)  # the ordinary VAE
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(heights, fontsize=TEXT, color=INK)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL, labelcolor=INK, length=0)
    axes.tick_params(axis="x", which="minor", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
