"""Figures made of images, whose pixels are never resampled: a dataset's sample sheet and latent traversals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bvae_tune.reporting.figures import DPI, FAINT, INK, TEXT, TITLE
from bvae_tune.wording import nats, significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bvae_tune.data.image_store import ImageStore

Images = NDArray[np.float32]

CELL = 128  # pixels that an image's longer side aims at, in whole multiples of its own
GAP = 6
MARGIN = 24
HEAD = 72  # pixels for the title
USED = 0.1  # nats; a latent of less KL is as good as unused


def sample_sheet(store: ImageStore, columns: int = 10, seed: int = 0) -> Figure:
    """What a dataset looks like: every factor from its first value to its last, and images drawn at random.

    The row of a factor holds the others at their middle values. Where the first factor has at most five values (as
    the shapes have) the random images come in one row for each.
    """
    generator = np.random.default_rng(seed)
    rows: list[NDArray[np.int64]] = []
    titles: list[str] = []
    space = store.factor_space
    if space is not None:
        middle = np.array(space.sizes) // 2
        for k, (name, values) in enumerate(zip(space.names, space.values, strict=True)):
            levels = np.unique(np.linspace(0, len(values) - 1, columns).round().astype(np.int64))
            factors = np.tile(middle, (len(levels), 1))
            factors[:, k] = levels
            rows.append(space.indices(factors))
            span = f"{significant(values[0])} to {significant(values[-1])}"
            titles.append(f"{name.replace('_', ' ')}\n{len(values)} values,\n{span}")
    if space is not None and space.sizes[0] <= 5:
        block = store.count // space.sizes[0]  # the first factor is the slowest
        for level, value in enumerate(space.values[0]):
            rows.append(level * block + generator.choice(block, min(columns, block), replace=False))
            titles.append(f"random,\n{space.names[0].replace('_', ' ')} {significant(value)}")
    else:
        drawn = generator.choice(store.count, min(4 * columns, store.count), replace=False)
        parts = [drawn[start : start + columns] for start in range(0, len(drawn), columns)]
        rows += parts
        titles += ["random"] * len(parts)

    cells = np.full((len(rows), columns, store.channels, store.height, store.width), np.nan, np.float32)
    for row, indices in enumerate(rows):
        cells[row, : len(indices)] = np.asarray(store.gather(indices)).reshape(-1, *cells.shape[2:])
    depth = "binary" if store.bits == 1 else f"{store.bits} bit"
    title = f"{store.name}: {store.count:,} images of {store.width} × {store.height} pixels, {depth}"
    figure, axes, (height, _) = _grid(cells, title, left=150, top=HEAD, right=MARGIN, bottom=MARGIN)
    for row, words in enumerate(titles):
        _text(axes, -14, row * (height + GAP) + height / 2, words, "right", "center")
    return figure


def traversals(
    image: Images,
    reconstruction: Images,
    decoded: Images,
    kl: Sequence[float] | None,
    values: Sequence[float],
    title: str,
    meanings: Sequence[str] | None = None,
    shown: int | None = None,
) -> Figure:
    """Latent traversals: a row for each latent in order of KL, a column for each value that the latent is set to.

    Args:
        image: (C, H, W) in [0, 1], the image whose code is traversed; C is 1 or 3.
        reconstruction: (C, H, W), from its undisturbed code.
        decoded: (M, steps, C, H, W), row m with latent m set to each of `values`.
        kl: (M,) nats per image; latents with hardly any are named in grey. They are counted from 0, as in the codes.
            None for codes without a variance, which keep their own order.
        values: (steps,), one per column.
        title: over the figure.
        meanings: (M,) what each latent stands for ("scale 61%"), under its KL; empty for nothing.
        shown: so many latents at most, those of the highest KL; None for all.
    """
    order = (np.arange(len(decoded)) if kl is None else np.argsort(-np.asarray(kl), kind="stable"))[:shown]
    cells = np.full((max(2, len(order)), 1 + len(values), *image.shape), np.nan, np.float32)
    cells[0, 0], cells[1, 0] = image, reconstruction
    cells[: len(order), 1:] = decoded[order]
    figure, axes, (height, width) = _grid(cells, title, left=40, top=HEAD + 40, right=230, bottom=48, apart=24)
    _text(axes, width / 2, -10, "image", "center", "bottom")
    _text(axes, width / 2, 2 * height + GAP + 10, "reconstruction", "center", "top")
    for column, value in enumerate(values, start=1):
        x = column * (width + GAP) + 24 + width / 2
        _text(axes, x, -10, f"{value:+.3g}".replace("-", "−") if value else "0", "center", "bottom")
    for row, latent in enumerate(order):
        words = f"latent {latent}" if kl is None else f"latent {latent}: KL {nats(kl[latent])}"
        if meanings and meanings[latent]:
            words += f"\n{meanings[latent]}"
        x, y = cells.shape[1] * (width + GAP) + 24 + 8, row * (height + GAP) + height / 2
        used = kl is None or kl[latent] >= USED
        _text(axes, x, y, words, "left", "center", INK if used else FAINT)
    return figure


def _grid(
    cells: Images, title: str, *, left: int, top: int, right: int, bottom: int, apart: int = 0
) -> tuple[Figure, Axes, tuple[int, int]]:
    """A figure around (rows, columns, C, H, W) images in [0, 1], NaN where there is none, each pixel a whole block.

    Margins in pixels; `apart` widens the gap after the first column. The axes' data coordinates are pixels from the
    upper left corner of the first image. Returns figure, axes and the (height, width) that an image takes.
    """
    rows, columns = cells.shape[:2]
    scale = max(1, round(CELL / max(cells.shape[3:])))
    blocks = np.moveaxis(cells, 2, -1).repeat(scale, axis=2).repeat(scale, axis=3)
    blocks = np.broadcast_to(blocks, (*blocks.shape[:-1], 3))
    height, width = blocks.shape[2:4]
    sheet = np.ones((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP + apart, 3), np.float32)
    for row, column in np.ndindex(rows, columns):
        y, x = row * (height + GAP), column * (width + GAP) + (apart if column else 0)
        if not np.isnan(blocks[row, column]).any():
            sheet[y : y + height, x : x + width] = np.clip(blocks[row, column], 0.0, 1.0)
    full_width, full_height = left + sheet.shape[1] + right, top + sheet.shape[0] + bottom
    figure = Figure(figsize=(full_width / DPI, full_height / DPI), dpi=DPI)
    place = (left / full_width, bottom / full_height, sheet.shape[1] / full_width, sheet.shape[0] / full_height)
    axes = figure.add_axes(place)
    axes.imshow(sheet, interpolation="nearest", extent=(0, sheet.shape[1], sheet.shape[0], 0), aspect="auto")
    axes.set_axis_off()
    figure.text(
        MARGIN / full_width, 1 - HEAD / 2 / full_height, title, ha="left", va="center", fontsize=TITLE, color=INK
    )
    return figure, axes, (height, width)


def _text(axes: Axes, x: float, y: float, words: str, across: str, along: str, colour: str = INK) -> None:
    axes.text(x, y, words, horizontalalignment=across, verticalalignment=along, fontsize=TEXT, color=colour)
