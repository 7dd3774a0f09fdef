"""Image files (PNG, JPEG, ...) as the rows of an image store: read by Pillow on all cores, brought to one size."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from bvae_tune.data.arrays import Packed, Rows
from bvae_tune.data.shapes import Progress
from bvae_tune.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")

_FORMATS: Final = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_ANIMATED: Final = ("PNG", "GIF", "WEBP")  # not JPEG, where cameras keep previews and depths as further images
_CHANNELS: Final = {"1": 1, "L": 1, "LA": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3, "CMYK": 3, "YCbCr": 3}
# What Pillow's decoders raise for files that are no images, or broken ones.
_BROKEN: Final = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error)
_CHUNK: Final = 16  # images that a thread reads at a time

Picture = tuple[str, Path | bytes]  # what it is called in errors; its file, or the content of one


@dataclass(frozen=True)
class Framing:
    """What every image is brought to.

    Attributes:
        size: pixels of each side. The square in an image's middle is cut out, and scaled by Pillow's bilinear filter,
            which takes in every pixel when it makes an image smaller. None leaves images as they are.
        channels: 1 or 3. Grey is made of colour by Pillow's "L" (0.299 red + 0.587 green + 0.114 blue). None leaves
            images as they are; one with a palette is of colour.
        crop: side of the square, as a share of the image's shorter side.
    """

    size: int | None = None
    channels: int | None = None
    crop: float = 1.0


def read_picture(name: str, content: Path | bytes, framing: Framing) -> npt.NDArray[np.uint8]:
    """One image, (C, H, W) uint8.

    Transparency is dropped: what counts is the colour beneath it. A camera's note that the image is to be turned is
    not looked at.

    Args:
        name: what the image is called in errors.
        content: its file, or the bytes of one: PNG, JPEG, BMP, GIF or WebP.
        framing: what it is brought to.

    Raises:
        InputError: no image or a broken one, several in one file, or more than eight bits a channel.
    """
    from PIL import Image

    try:
        with Image.open(content if isinstance(content, Path) else io.BytesIO(content), formats=_FORMATS) as image:
            if image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1:
                raise InputError(f"{name}: a moving image; expected a single one, so save each frame as a file")
            if image.mode not in _CHANNELS:
                raise InputError(
                    f"{name}: pixels of kind {image.mode!r}; expected eight bits a channel, grey or colour"
                )
            return _framed(image, framing)
    except InputError:
        raise
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: cannot be read as an image ({error})") from None


def _framed(image: Image.Image, framing: Framing) -> npt.NDArray[np.uint8]:
    from PIL import Image

    channels = framing.channels or _CHANNELS[image.mode]
    image.load()
    image.info.pop("transparency", None)  # or Pillow warns that it is lost
    flat = image.convert("L" if channels == 1 else "RGB")
    if framing.size is not None:
        side = max(1, round(min(flat.size) * framing.crop))
        left, top = (flat.width - side) // 2, (flat.height - side) // 2
        square = flat.crop((left, top, left + side, top + side))
        flat = square.resize((framing.size, framing.size), Image.Resampling.BILINEAR)
    pixels = np.asarray(flat, np.uint8).reshape(flat.height, flat.width, channels)
    return np.ascontiguousarray(np.moveaxis(pixels, 2, 0))


def pack_pictures(
    pictures: Iterable[Picture], count: int, framing: Framing, where: str, progress: Progress | None = None
) -> Packed:
    """Read and pack images, one bit a value if all are black or white, else eight.

    A thread per core reads them; beside the packed rows, a few dozen images are in memory at a time.

    Args:
        pictures: `count` of them, one or more.
        count: how many.
        framing: what each is brought to.
        where: what they are called together, in errors.
        progress: called with (images packed, images in all).

    Returns:
        As `arrays.pack_images`.

    Raises:
        InputError: see `read_picture`; images of several sizes; too little memory.
    """
    cores = len(os.sched_getaffinity(0))
    rows: Rows | None = None
    first: tuple[str, tuple[int, ...]] = ("", ())
    with ThreadPoolExecutor(cores) as threads:
        for names, images in _read_ahead(threads, pictures, framing, 2 * cores):
            for name, image in zip(names, images, strict=True):
                if rows is None:
                    first = (name, image.shape)
                    channels, height, width = image.shape
                    rows = Rows(count, (channels, height, width), (255,), where)
                _check_alike(first, (name, image.shape))
            if rows is not None:
                rows.add(np.stack(images).reshape(len(images), -1))
                if progress is not None:
                    progress(rows.done, count)
    if rows is None:
        raise InputError(f"{where}: no images")
    return rows.packed()


def _read_ahead(
    threads: ThreadPoolExecutor, pictures: Iterable[Picture], framing: Framing, most: int
) -> Iterator[tuple[list[str], list[npt.NDArray[np.uint8]]]]:
    """Names and images a chunk at a time, in order, at most `most` chunks ahead."""
    remaining = iter(pictures)
    waiting: deque[tuple[list[str], Future[list[npt.NDArray[np.uint8]]]]] = deque()
    while True:
        while len(waiting) < most and (chunk := list(islice(remaining, _CHUNK))):
            waiting.append(([name for name, _ in chunk], threads.submit(_read_chunk, chunk, framing)))
        if not waiting:
            return
        names, images = waiting.popleft()
        yield names, images.result()


def _read_chunk(chunk: list[Picture], framing: Framing) -> list[npt.NDArray[np.uint8]]:
    return [read_picture(name, content, framing) for name, content in chunk]


def _check_alike(first: tuple[str, tuple[int, ...]], other: tuple[str, tuple[int, ...]]) -> None:
    """Raises InputError where two images, (name, shape), differ in shape."""
    (name, shape), (other_name, other_shape) = first, other
    if shape[1:] != other_shape[1:]:
        raise InputError(
            f"{name} has {shape[2]} x {shape[1]} pixels, {other_name} has {other_shape[2]} x {other_shape[1]}: images"
            " of one dataset are of one size; give dataset.size, to which all are cut and scaled (64, say)"
        )
    if shape[0] != other_shape[0]:
        kinds = {1: "grey", 3: "in colour"}
        raise InputError(
            f"{name} is {kinds[shape[0]]}, {other_name} is {kinds[other_shape[0]]}: images of one dataset have the same"
            " channels; give dataset.channels: 1 or 3"
        )
