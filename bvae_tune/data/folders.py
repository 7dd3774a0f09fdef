"""Folders of image files: which files there are, and what their names or CelebA's list say of their factors."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bvae_tune.data.pictures import SUFFIXES
from bvae_tune.errors import InputError

CELEBA_IMAGES: Final = "img_align_celeba"
CELEBA_LIST: Final = "list_attr_celeba.txt"
CELEBA_ORIGIN: Final = (
    "get CelebA from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, and put its img_align_celeba/"
    " (img_align_celeba.zip unpacked: 000001.jpg and on) and list_attr_celeba.txt into one folder"
)


@dataclass(frozen=True)
class Listing:
    """The image files of a folder.

    Attributes:
        folder: absolute path.
        files: their paths in it, with "/", in order of the alphabet.
        fingerprint: hexadecimal digest of every file's path, size and time of its last change (in ns).
    """

    folder: Path
    files: tuple[str, ...]
    fingerprint: str


def list_pictures(folder: Path, wanted: str) -> Listing:
    """Find the image files in a folder and the folders in it, at any depth.

    What begins with a dot is not looked at, nor are links to folders.

    Args:
        folder: absolute path.
        wanted: where the images come from or what they must look like, for whoever lacks them.

    Raises:
        InputError: no such folder, no images in it, or a file that cannot be looked at.
    """
    if not folder.is_dir():
        raise InputError(f"dataset.path: {folder}: no such folder; {wanted}")
    prefix = len(str(folder)) + 1
    found: list[tuple[str, int, int]] = []
    try:
        for parent, folders, names in os.walk(folder, onerror=_refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                    path = os.path.join(parent, name)
                    status = os.stat(path)
                    found.append((path[prefix:], status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise InputError(f"dataset.path: {error.filename}: cannot be read ({error.strerror})") from None
    if not found:
        raise InputError(f"dataset.path: {folder}: no images in it; expected files {', '.join(SUFFIXES)}; {wanted}")
    found.sort()
    for path, _, _ in found:
        if path.encode(errors="ignore").decode() != path:
            raise InputError(f"dataset.path: {folder}: {path!r}: rename this file; expected a name in UTF-8")
    return Listing(folder, tuple(path for path, _, _ in found), _digest(found))


def _refuse(error: OSError) -> None:
    raise error


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def factors_of_names(files: Sequence[str], pattern: str, folder: Path) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Factors from the names of files.

    Args:
        files: n paths in `folder`.
        pattern: a regular expression, searched for in each path, that has a named group for each factor.
        folder: for errors.

    Returns:
        (n, K) float64 and the K groups' names. A group that holds numbers in every path gives them; of another, the
        different texts are numbered in order of the alphabet; NaN where a group is empty or did not take part.

    Raises:
        InputError: a path in which the pattern is not found.
    """
    expression = re.compile(pattern)
    names = list(expression.groupindex)
    texts: list[tuple[str, ...]] = []
    for file in files:
        match = expression.search(file)
        if match is None:
            raise InputError(f"dataset.pattern: '{pattern}' is not found in {file!r}, a file of {folder}")
        texts.append(tuple(match[name] or "" for name in names))
    return np.stack([_numbers(column) for column in zip(*texts, strict=True)], axis=1), names


def _numbers(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    try:
        numbers = np.array([float(text or "nan") for text in texts])
    except ValueError:
        numbers = np.full(len(texts), math.inf)
    if np.isinf(numbers).any():
        rank = {text: float(number) for number, text in enumerate(sorted(set(texts) - {""}))}
        return np.array([rank.get(text, math.nan) for text in texts])
    return numbers


@dataclass(frozen=True)
class Attributes:
    """CelebA's list.

    Attributes:
        files: n names of images, in the list's order.
        factors: (n, K) float64, -1 or 1.
        names: the K attributes.
    """

    files: tuple[str, ...]
    factors: npt.NDArray[np.float64]
    names: list[str]


def list_celeba(folder: Path) -> Listing:
    """Find the images of CelebA as published: img_align_celeba/ in a folder that holds list_attr_celeba.txt too.

    The fingerprint covers the list by size and time of change, as it does the images. `Listing.folder` is that of the
    images.

    Raises:
        InputError: folder, list or images are missing.
    """
    if not folder.is_dir():
        raise InputError(f"dataset.path: {folder}: no such folder; {CELEBA_ORIGIN}")
    images, attributes = folder / CELEBA_IMAGES, folder / CELEBA_LIST
    for path, there in ((images, images.is_dir()), (attributes, attributes.is_file())):
        if not there:
            raise InputError(f"dataset.path: {folder}: holds no {path.name}; {CELEBA_ORIGIN}")
    listing = list_pictures(images, CELEBA_ORIGIN)
    status = attributes.stat()
    return Listing(images, listing.files, _digest([listing.fingerprint, status.st_size, status.st_mtime_ns]))


def read_attributes(folder: Path, listing: Listing) -> Attributes:
    """Read list_attr_celeba.txt.

    It holds the number of images, then the names of the attributes, then a line per image: its file in
    img_align_celeba/, and -1 or 1 per attribute.

    Args:
        folder: CelebA's.
        listing: as `list_celeba` gives it.

    Raises:
        InputError: list and images do not fit, or it is no such list; says which line.
    """
    path = folder / CELEBA_LIST
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
    there = set(listing.files)
    files, factors, names = _read_list(path, lines, there)
    unlisted = there - set(files)
    if unlisted:
        raise InputError(f"{path}: has no line for {min(unlisted)}, which is in {listing.folder}")
    return Attributes(files, factors, names)


def _read_list(
    path: Path, lines: list[str], there: set[str]
) -> tuple[tuple[str, ...], npt.NDArray[np.float64], list[str]]:
    """Files, (n, K) values and K names; `there` are the files that exist."""
    names = lines[1].split() if len(lines) > 1 else []
    if not names or len(set(names)) < len(names):
        raise InputError(f"{path}, line 2: expected the attributes' names, all different; found {' '.join(names)!r}")
    rows = [line.split() for line in lines[2:]]
    while rows and not rows[-1]:
        rows.pop()
    if lines[0].strip() != str(len(rows)):
        raise InputError(
            f"{path}, line 1: {lines[0].strip()!r}; expected the number of images, and {len(rows)} lines follow"
        )
    values = np.empty((len(rows), len(names)), np.float64)
    files: dict[str, int] = {}
    for number, row in enumerate(rows, start=3):
        if len(row) != len(names) + 1 or not set(row[1:]) <= {"-1", "1"}:
            raise InputError(
                f"{path}, line {number}: {' '.join(row)[:60]!r}; expected a file and {len(names)} values, each -1 or 1"
            )
        if row[0] not in there:
            raise InputError(f"{path}, line {number}: there is no {row[0]} in {path.parent / CELEBA_IMAGES}")
        if row[0] in files:
            raise InputError(f"{path}, line {number}: {row[0]} is there twice, first in line {files[row[0]]}")
        files[row[0]] = number
        values[number - 3] = [float(text) for text in row[1:]]
    return tuple(files), values, names
