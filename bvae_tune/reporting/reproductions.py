"""The paper's figures, drawn from what a reproduction found."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bvae_tune.experiments.linear_systems import LENGTHS, PCA, PCA_STANDARDISED, RAW
from bvae_tune.experiments.model_table import UNTRAINED
from bvae_tune.experiments.portraits import STEPS
from bvae_tune.reporting.figures import DPI, FAINT, INK, SMALL, TEXT, TITLE
from bvae_tune.wording import nats, percent, percent_with_spread, significant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from bvae_tune.experiments.model_table import System
    from bvae_tune.experiments.portraits import Portrait
    from bvae_tune.experiments.score_grid import Reconstructions, ScoreGrid

_HEADINGS = (
    *("system", "paper"),
    *(f"L = {pairs}" for pairs in LENGTHS),
    *("replicas", "MIG", "KL", "information", "budget"),
)
_WIDTHS = (0.15, 0.08, 0.09, 0.09, 0.09, 0.065, 0.05, 0.035, 0.09, 0.26)  # of these columns in the picture
_UNCONVERGED = "*"
WITHOUT_LUCK = (RAW, PCA, PCA_STANDARDISED, UNTRAINED)
ORANGE = "#e67e22"  # of β = 1, as in the paper
SHAPES = ("#d62728", "#2ca02c", "#1f77b4")  # square, ellipse, heart: red, green and blue, as in the paper


def score_grid_table(grid: ScoreGrid) -> RenderableType:
    """For each M its best β_norm and β, its score there, and the score at the lowest β_norm."""
    lowest = f"at β_norm {significant(grid.beta_norms[0])}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("M", "best β_norm", "β", "score", lowest, "KL (nats)", "reconstruction (nats)"):
        table.add_column(heading, justify="right")
    for row, (size, peak) in enumerate(zip(grid.latent_sizes, grid.peaks, strict=True)):
        beta_norm = grid.beta_norms[peak]
        table.add_row(
            str(size),
            significant(beta_norm),
            significant(beta_norm * grid.dimensions / size),
            percent_with_spread(grid.scores[row, peak], grid.spreads[row, peak]),
            percent(None if np.isnan(grid.scores[row, 0]) else grid.scores[row, 0]),
            significant(grid.kl[row, peak]),
            significant(grid.reconstruction[row, peak]),
        )
    notes = f"scores at L = {grid.pairs}, chance {percent(grid.chance)}"
    return Group(table, Text(notes, style="dim"), Text(_correlation(grid)), Text(_blur(grid)))


def score_grid_figure(grid: ScoreGrid, entangled: Reconstructions, disentangled: Reconstructions, title: str) -> Figure:
    """Fig. 5 right: score against β_norm for each M, the best β_norm against M, and two trials' reconstructions.

    Args:
        grid: what was found. Bars are the range of the replicas. A triangle at the foot marks β = 1 for each M, a cross
            a cell whose latents are all switched off.
        entangled, disentangled: the same images by a trial of a low score and by the best one.
        title: over the figure.
    """
    figure = Figure(figsize=(10.0, 7.6), dpi=DPI, layout="constrained")
    curves, images = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.75, 1)).ravel()
    left, right = curves.subplots(1, 2, width_ratios=(2, 1))
    colours = mpl.colormaps["viridis"](np.linspace(0.0, 0.88, len(grid.latent_sizes)))
    for row, (size, colour) in enumerate(zip(grid.latent_sizes, colours, strict=True)):
        known = ~np.isnan(grid.scores[row])
        x, y = np.array(grid.beta_norms)[known], grid.scores[row, known]
        left.errorbar(
            x,
            y,
            np.abs(grid.replicas[:, row, known] - y),
            color=colour,
            marker="o",
            markersize=4.5,
            elinewidth=0.8,
            label=f"M = {size}",
        )
        off = grid.collapsed[row, known]
        left.plot(x[off], y[off], "X", color=colour, markersize=11, markeredgecolor="white", zorder=4)
        peak = grid.peaks[row]
        left.plot(
            grid.beta_norms[peak],
            grid.scores[row, peak],
            "o",
            markersize=11,
            markerfacecolor="none",
            markeredgecolor=colour,
        )
        left.plot(size / grid.dimensions, 0.02, "^", color=colour, markersize=6, transform=left.get_xaxis_transform())
        right.plot(size, grid.beta_norms[peak], "o", color=colour, markersize=7)
    right.plot(
        grid.latent_sizes, np.array(grid.latent_sizes) / grid.dimensions, color=ORANGE, linewidth=1.2, label="β = 1"
    )
    left.axhline(grid.chance, color=FAINT, linewidth=1.0, linestyle=":")
    left.set_ylim(0, 1.05)
    left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    score = f"score (L = {grid.pairs}; bars: range of the replicas)"
    _style(left, "β_norm = β M / N (triangles: β = 1; crosses: every latent switched off)", score, grid.beta_norms)
    _style(right, "latents M", "best β_norm", grid.latent_sizes)
    right.set_yscale("log")
    right.yaxis.set_major_locator(FixedLocator(list(grid.beta_norms)))
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value)))
    right.yaxis.set_minor_locator(NullLocator())
    for axes in (left, right):
        axes.legend(fontsize=SMALL, frameon=False, labelcolor=INK)
    right.set_title(_correlation(grid, short=True), fontsize=SMALL, color=INK)
    _strip(images.subplots(), entangled, disentangled)
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE, color=INK)
    return figure


def portraits_figure(portraits: Sequence[Portrait], title: str) -> Figure:
    """Fig. 6: a block for each model, a column for each latent.

    Rows: mean code over positions (red high, blue low), over scale and over rotation by shape (square red, ellipse
    green, heart blue), then the image with that latent set to each value, then the variance of its posterior. The
    codes of a model share one scale, so what a latent ignores is flat and pale.
    """
    columns = 2 if len(portraits) > 1 else 1
    rows = -(-len(portraits) // columns)
    widest = max(len(portrait.latents) for portrait in portraits)
    figure = Figure(figsize=(columns * (0.9 + 0.62 * widest), rows * 6.2 + 0.5), dpi=DPI, layout="constrained")
    blocks = np.atleast_1d(figure.subfigures(rows, columns, squeeze=False)).ravel()
    for letter, block, portrait in zip("ABCDEFGH", blocks, portraits, strict=False):
        place, by_scale, by_rotation, images = block.subplots(4, 1, sharex=True, height_ratios=(1, 1, 1, STEPS))
        limit = float(np.nanmax(np.abs(portrait.position)))
        limit = max(limit, *(float(np.nanmax(np.abs(curve))) for curve in (portrait.scale, portrait.rotation)))
        for column in range(len(portrait.latents)):
            across = (column + 0.03, column + 0.97)
            place.imshow(
                portrait.position[column],
                cmap="RdBu_r",
                vmin=-limit,
                vmax=limit,
                extent=(*across, 0.0, 1.0),
                aspect="auto",
                interpolation="nearest",
            )
            for axes, curves in ((by_scale, portrait.scale[column]), (by_rotation, portrait.rotation[column])):
                for curve, colour in zip(curves, SHAPES, strict=False):
                    axes.plot(np.linspace(column + 0.1, column + 0.9, len(curve)), curve, color=colour, linewidth=0.9)
            for step, picture in enumerate(portrait.traversed[column]):
                shown = np.broadcast_to(np.moveaxis(picture, 0, -1), (*picture.shape[1:], 3))
                below = STEPS - step
                images.imshow(shown, extent=(*across, below - 0.97, below - 0.03), aspect="auto")
        _portrait_axes(portrait, place, by_scale, by_rotation, images, limit, widest)
        words = f"{letter}: {portrait.label}"
        if portrait.record.result is not None:
            score = portrait.record.result.score
            replicas = len(score.replica_scores)
            which = f", best of {replicas} replicas" if replicas > 1 else ""
            words += f"{which}, score {percent(max(score.replica_scores))} (L = {score.pairs})\n"
            words += textwrap.fill(portrait.budget, max(40, 9 * widest))
        block.suptitle(words, x=0.02, ha="left", fontsize=TEXT, color=INK)
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE, color=INK)
    return figure


def _portrait_axes(
    portrait: Portrait, place: Axes, by_scale: Axes, by_rotation: Axes, images: Axes, limit: float, widest: int
) -> None:
    for axes in (place, by_scale, by_rotation, images):
        axes.set_xlim(0, widest)
        axes.tick_params(labelsize=SMALL, labelcolor=INK, length=0)
        for side in axes.spines.values():
            side.set_visible(False)
    for axes, words in ((place, "position"), (by_scale, "scale"), (by_rotation, "rotation")):
        axes.set_yticks([])
        axes.set_ylabel(words, fontsize=SMALL, color=INK, rotation=0, ha="right", va="center")
    for axes in (by_scale, by_rotation):
        axes.set_ylim(-1.05 * limit, 1.05 * limit)
        axes.axhline(0, color="#e6e6e6", linewidth=0.7, zorder=0)
    images.set_ylim(0, STEPS)
    images.set_yticks([STEPS - step - 0.5 for step in range(STEPS)])
    images.set_yticklabels([f"{value:+.2g}".replace("-", "−") if value else "0" for value in portrait.values])
    names = [f"z{latent}" for latent in portrait.latents]
    if portrait.variance is not None:
        names = [f"{name}\n{variance:.2f}" for name, variance in zip(names, portrait.variance, strict=True)]
        words = "latent and the variance of its posterior"
    else:
        words = "code; images are drawn with the noise variables at 0"
    images.set_xlabel(words, x=len(names) / 2 / widest, fontsize=SMALL, color=INK)
    images.set_xticks([column + 0.5 for column in range(len(names))], names)


def systems_table(systems: Sequence[System]) -> RenderableType:
    """A row per system: the paper's score, ours at each L with the difference, MIG, KL, information, budget."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, heading in enumerate(_HEADINGS):
        folded = heading in ("information", "budget")
        justify: Literal["left", "right"] = "left" if folded or not number else "right"
        table.add_column(heading, justify=justify, no_wrap=not folded, overflow="fold")
    for system in systems:
        table.add_row(*_cells(system))
    lines = [_agreement(system) for system in systems if system.label in WITHOUT_LUCK and system.agreement]
    heading = "L at which systems that need no luck in training have the paper's score:"
    return Group(table, Text(_notes(systems), style="dim"), Text("\n".join([heading, *lines])))


def systems_figure(systems: Sequence[System], curves: Mapping[str, Sequence[tuple[int, float]]], title: str) -> Figure:
    """Fig. 5 left as a picture: ours at each L beside the paper's, how scores went in training, and all as a table.

    Args:
        systems: the rows.
        curves: label -> (images seen by a replica, score) of every report.
        title: over the figure.
    """
    figure = Figure(figsize=(12.5, 1.6 + 0.64 * len(systems)), dpi=DPI, layout="constrained")
    plots, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.3, 1)).ravel()
    left, right = plots.subplots(1, 2, width_ratios=(1.5, 1))
    _draw_table(below.subplots(), systems)
    below.supxlabel(_notes(systems), fontsize=SMALL, color=INK)
    colours = mpl.colormaps["viridis"](np.linspace(0.15, 0.85, len(LENGTHS)))
    places = np.arange(len(systems))[::-1]
    scores = [(system.score, place) for system, place in zip(systems, places, strict=True) if system.score]
    for pairs, colour in zip(LENGTHS, colours, strict=True):
        across = [score.profile[pairs] for score, _ in scores]
        left.plot(across, [place for _, place in scores], "o", color=colour, label=f"L = {pairs}")
    papers = [(system.paper[0], place) for system, place in zip(systems, places, strict=True) if system.paper]
    left.plot(*zip(*papers, strict=True), "D", color=ORANGE, markerfacecolor="none", markersize=9, label="paper")
    left.axvline(scores[0][0].chance, color=FAINT, linewidth=1.0, linestyle=":")
    left.set_yticks(places, [system.label for system in systems])
    left.set_xlim(0, 1.03)
    left.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    left.set_xlabel("score", fontsize=TEXT, color=INK)
    for label, points in curves.items():
        right.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    right.set_ylim(0, 1.03)
    right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e6:g} M"))
    right.set_xlabel("images seen by a replica", fontsize=TEXT, color=INK)
    right.set_ylabel(f"score (L = {scores[0][0].pairs})", fontsize=TEXT, color=INK)
    for axes in (left, right):
        axes.legend(fontsize=SMALL, frameon=False, labelcolor=INK)
        _plain(axes)
    figure.suptitle(title, x=0.01, ha="left", fontsize=TITLE, color=INK)
    return figure


def _notes(systems: Sequence[System]) -> str:
    """What the columns of the table are."""
    scores = [system.score for system in systems if system.score]
    notes = (
        f"in brackets: points above or below the paper; range of the replicas at L = {scores[0].pairs}; KL in nats per "
        f"image; information of the best latent in percent: {', '.join(scores[0].information)}; "
        f"classifier: {scores[0].classifier}"
    )
    if not all(score.converged for score in scores):
        notes += f"; {_UNCONVERGED} a fit of the classifier did not end by its own rule"
    return notes


def _cells(system: System) -> list[str]:
    """A row of the table, in the order of `_HEADINGS`."""
    score, paper = system.score, percent_with_spread(*system.paper) if system.paper else "–"
    if score is None:
        return [system.label, paper, *["–"] * (len(_HEADINGS) - 3), system.budget]
    replicas = [f"{100 * value:.0f}" for value in (min(score.replica_scores), max(score.replica_scores))]
    return [
        system.label + ("" if score.converged else _UNCONVERGED),
        paper,
        *(_with_difference(score.profile[pairs], system.paper) for pairs in LENGTHS),
        " to ".join(replicas) if len(score.replica_scores) > 1 else "–",
        percent(score.mig),
        nats(system.kl),
        " ".join(f"{100 * share:.0f}" for share in score.information.values()),
        system.budget,
    ]


def _agreement(system: System) -> str:
    assert system.paper is not None
    assert system.score is not None
    assert system.agreement is not None
    below, above = system.agreement
    profile = {pairs: f"{pairs} ({percent(score)})" for pairs, score in system.score.profile.items()}
    if below is None:
        place = f"below {profile[min(profile)]}"
    elif above is None:
        place = f"above {profile[max(profile)]}"
    else:
        place = f"between {profile[below]} and {profile[above]}"
    return f"  {system.label}, {percent(system.paper[0])}: {place}"


def _with_difference(score: float, paper: tuple[float, float | None] | None) -> str:
    return percent(score) if paper is None else f"{percent(score)} ({100 * (score - paper[0]):+.1f})"


def _draw_table(axes: Axes, systems: Sequence[System]) -> None:
    axes.set_axis_off()
    cells = [[*shown, textwrap.fill(budget, 46)] for *shown, budget in map(_cells, systems)]
    lines = [1, *(budget.count("\n") + 1 for *_, budget in cells)]
    table = axes.table(cells, colLabels=_HEADINGS, colWidths=_WIDTHS, cellLoc="right", loc="center", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(SMALL)
    for (row, column), cell in table.get_celld().items():
        cell.set_height((lines[row] + 0.5) / (sum(lines) + 0.5 * len(lines)))
        cell.set_edgecolor("#e6e6e6")
        cell.get_text().set_color(INK)
        if column in (0, len(_HEADINGS) - 1):
            cell.get_text().set_horizontalalignment("left")


def _plain(axes: Axes) -> None:
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL, labelcolor=INK, length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _strip(axes: Axes, entangled: Reconstructions, disentangled: Reconstructions) -> None:
    rows = (entangled.pixels, entangled.decoded, disentangled.decoded)
    gap = 3
    count, _, height, width = entangled.pixels.shape
    sheet = np.ones((3 * (height + gap) - gap, count * (width + gap) - gap, 3))
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            y, x = row * (height + gap), column * (width + gap)
            sheet[y : y + height, x : x + width] = np.broadcast_to(np.moveaxis(picture, 0, -1), (height, width, 3))
    axes.imshow(sheet, interpolation="nearest")
    axes.set_yticks([row * (height + gap) + height / 2 for row in range(3)])
    axes.set_yticklabels(["images", _words("entangled", entangled), _words("disentangled", disentangled)])
    axes.set_xticks([])
    axes.tick_params(labelsize=SMALL, labelcolor=INK, length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _words(what: str, shown: Reconstructions) -> str:
    record = shown.record
    assert record.result is not None
    score = record.result.score
    which = "best" if shown.replica == score.best_replica else "worst"
    nats = significant(record.result.reconstruction[shown.replica])
    return (
        f"{what}: β_norm {significant(record.beta_norm)}\nβ {significant(record.beta)}, M {record.latent_size}\n"
        f"{which} replica: score {percent(score.replica_scores[shown.replica])}\nreconstruction {nats} nats"
    )


def _correlation(grid: ScoreGrid, short: bool = False) -> str:
    rank = grid.correlation
    if rank is None:
        return "" if short else "M and its best β_norm: too few to correlate"
    words = f"rank correlation {rank:+.2f}"
    return words if short else f"M and its best β_norm: {words} over {len(grid.latent_sizes)} sizes (paper: positive)"


def _blur(grid: ScoreGrid) -> str:
    rank = grid.correlation_with_reconstruction
    words = "too few to correlate" if rank is None else f"rank correlation {rank:+.2f} (paper: positive)"
    return f"score and nats of reconstruction, up to the peak of each M: {words}"


def _style(axes: Axes, across: str, along: str, ticks: tuple[float, ...]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(across, fontsize=TEXT, color=INK)
    axes.set_ylabel(along, fontsize=TEXT, color=INK)
    _plain(axes)
