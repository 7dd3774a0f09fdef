"""The 2D shapes of Sec. 4.2: 3 shapes x 6 scales x 40 rotations x 32 x 32 positions, binary, 64x64.

A pixel is white when its centre lies inside the outline. The centres of the 32 positions are 32/31 pixels apart, so
relative to an object every pixel centre of every position lies on one lattice with 31 lines to the pixel. An object of
one shape, scale and rotation therefore needs each lattice line's crossings with its outline only once: all of its 1,024
images are made of these lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bvae_tune.data.factors import FactorSpace
from bvae_tune.data.image_store import ImageStore, write_store

SHAPES: Final = ("square", "ellipse", "heart")
SIDE: Final = 64
POSITIONS: Final = 32
ROTATIONS: Final = 40
SPACE: Final = FactorSpace(
    names=("shape", "scale", "rotation", "position_x", "position_y"),
    values=(
        (0.0, 1.0, 2.0),
        tuple(np.linspace(0.5, 1.0, 6).tolist()),
        tuple(np.linspace(0.0, 2.0 * np.pi, ROTATIONS).tolist()),
        tuple(np.linspace(0.0, 1.0, POSITIONS).tolist()),
        tuple(np.linspace(0.0, 1.0, POSITIONS).tolist()),
    ),
)
# Part of the cache's name: a changed outline or rule must never meet images drawn by an older one.
RENDERING: Final = 1

_SQUARE_HALF_SIDE: Final = 9.6
_ELLIPSE_HALF_AXES: Final = (12.77, 7.21)
# The heart is x = sum_k a_k sin(kt), y = sum_k b_k cos(kt), k from 1 and from 0: the shortest symmetric closed curve
# that leaves next to no pixel of the real dSprites frames on its wrong side.
_HEART_SINES: Final = (7.219, 0.208, -2.374, 0.007)
_HEART_COSINES: Final = (-1.394, -8.878, 3.180, 1.232, 0.658)
_CURVE_POINTS: Final = 512

_LINES: Final = POSITIONS - 1  # lattice lines to the pixel
_FIRST_CENTRE: Final = 16.0
_REACH: Final = 14 * _LINES  # no outline leaves 14 pixels around its centre
_BLANK: Final = 2 * _REACH  # the line that stands for all beyond

Progress = Callable[[int, int], None]


def render(factors: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Draw images.

    Args:
        factors: (n, 5) indices of shape, scale, rotation, position_x (column) and position_y (row), within `SPACE`.

    Returns:
        (n, 64, 64) bool.

    Raises:
        ValueError: a factor lies outside `SPACE`.
    """
    objects, which = np.unique(SPACE.indices(factors) // POSITIONS**2, return_inverse=True)
    rows = np.empty((len(factors), SIDE), np.uint64)
    for number, (shape, scale, rotation) in enumerate(_OBJECTS.factors(objects).tolist()):
        mine = np.flatnonzero(which == number)
        lines = _lattice_lines(shape, scale, rotation)
        rows[mine] = lines[factors[mine, 3, None], _LINE_OF_ROW[factors[mine, 4]]]
    return np.unpackbits(rows.view(np.uint8), axis=1).astype(bool).reshape(-1, SIDE, SIDE)


def build_shapes(path: str | Path, progress: Progress | None = None) -> ImageStore:
    """Draw all 737,280 images into an image store at `path`.

    Args:
        path: the file to write (replaced atomically).
        progress: called with (images drawn, images in all).

    Raises:
        RunError: the file cannot be written (a full disk, say).
    """
    rows = np.empty((_OBJECTS.count, POSITIONS, POSITIONS * SIDE), np.uint64)
    for number, (shape, scale, rotation) in enumerate(_OBJECTS.factors(np.arange(_OBJECTS.count)).tolist()):
        lines = _lattice_lines(shape, scale, rotation)
        np.take(lines, _LINE_OF_ROW.reshape(-1), axis=1, out=rows[number], mode="clip")
        if progress is not None:
            progress((number + 1) * POSITIONS**2, SPACE.count)
    return write_store(
        path,
        rows.view(np.uint8).reshape(SPACE.count, SIDE * SIDE // 8),
        name="2D shapes",
        size=(1, SIDE, SIDE),
        bits=1,
        factors=SPACE.factors(np.arange(SPACE.count)),
        factor_space=SPACE,
    )


@dataclass(frozen=True)
class EqualImages:
    """How many images of one shape and scale are equal to an earlier one.

    Attributes:
        shape: its name.
        scale: its value.
        images: how many there are.
        closing: of these, equal because the last rotation is the first one.
        other: equal for another reason: symmetry, or too few pixels to tell two rotations apart.
    """

    shape: str
    scale: float
    images: int
    closing: int
    other: int


def equal_images(store: ImageStore) -> tuple[EqualImages, ...]:
    """Count the equal images of a store of 2D shapes, per shape and scale. Reads all of them (seconds)."""
    positions = POSITIONS**2
    counts = []
    for block, (shape, scale) in enumerate(np.ndindex(*SPACE.sizes[:2])):
        size = ROTATIONS * positions
        rows = store.packed[block * size : (block + 1) * size]
        closing = int((rows[:positions] == rows[-positions:]).all(axis=1).sum())
        different = len(set(rows.view(f"V{rows.shape[1]}")[:, 0].tolist()))
        counts.append(EqualImages(SHAPES[shape], SPACE.values[1][scale], size, closing, size - different - closing))
    return tuple(counts)


_OBJECTS: Final = FactorSpace(SPACE.names[:3], SPACE.values[:3])


def _line_of_row() -> npt.NDArray[np.int64]:
    """(32, 64): the lattice line of each row of an image, per position_y; `_BLANK` where no object reaches."""
    positions, rows = np.ogrid[:POSITIONS, :SIDE]
    line = _LINES * (rows - int(_FIRST_CENTRE)) - (_LINES + 1) * positions + _LINES // 2 + _REACH
    return np.where((line >= 0) & (line < _BLANK), line, _BLANK)


_LINE_OF_ROW: Final = _line_of_row()
# Column c is bit 7 - c % 8 of byte c // 8. Entry k has the columns from k on set: two crossings, exclusive-or, a span.
_COLUMNS_FROM: Final = np.packbits(np.tri(SIDE + 1, SIDE, -1, dtype=bool) == 0, axis=1).view(np.uint64)[:, 0]
_CENTRES: Final = _FIRST_CENTRE + np.arange(POSITIONS) * (_LINES + 1) / _LINES


@cache
def _outline(shape: int) -> npt.NDArray[np.float64]:
    """(points, 2): the closed outline at scale 1, in pixels from the centre, x to the right and y down."""
    t = np.linspace(0.0, 2.0 * np.pi, _CURVE_POINTS, endpoint=False)
    match SHAPES[shape]:
        case "square":
            return _SQUARE_HALF_SIDE * np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
        case "ellipse":
            return np.stack([np.cos(t), np.sin(t)], axis=1) * _ELLIPSE_HALF_AXES
        case _:
            x = sum(a * np.sin(k * t) for k, a in enumerate(_HEART_SINES, start=1))
            y = sum(b * np.cos(k * t) for k, b in enumerate(_HEART_COSINES))
            return np.stack([x, y], axis=1)


def _lattice_lines(shape: int, scale: int, rotation: int) -> npt.NDArray[np.uint64]:
    """(32, lines + 1): 64 packed pixels for each position_x and lattice line of one object; the last line is blank."""
    # The closing rotation is the first one, to the last bit: the sine of the floating-point 2 pi is not 0.
    angle = SPACE.values[2][rotation % (ROTATIONS - 1)]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # counterclockwise, y down
    start = _outline(shape) * SPACE.values[1][scale] @ turn
    start[:, 1] = start[:, 1] * _LINES - 0.5 + _REACH  # pixel centres lie half a pixel off: line q at (q + 0.5) / 31
    end = np.roll(start, -1, axis=0)
    low = np.ceil(np.minimum(start[:, 1], end[:, 1])).astype(np.int64)
    crossed = np.ceil(np.maximum(start[:, 1], end[:, 1])).astype(np.int64) - low
    edge = np.repeat(np.arange(len(start)), crossed)
    line = np.arange(len(edge)) - np.repeat(np.cumsum(crossed) - crossed, crossed) + low[edge]
    slope = (end[edge, 0] - start[edge, 0]) / (end[edge, 1] - start[edge, 1])
    x = start[edge, 0] + (line - start[edge, 1]) * slope
    order = np.argsort(line)
    x, line = x[order], line[order]
    columns = np.ceil(_CENTRES[:, None] + x - 0.5).astype(np.int64)
    touched, first = np.unique(line, return_index=True)
    lines = np.zeros((POSITIONS, _BLANK + 1), np.uint64)
    lines[:, touched] = np.bitwise_xor.reduceat(_COLUMNS_FROM[columns], first, axis=1)
    return lines
