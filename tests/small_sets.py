"""Small sets of images in the layouts of the published ones, rendered here with factors that are known. Seed: 0."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64
ATTRIBUTES = ("Smiling", "Bangs", "Blond_Hair", "Young", "Male", "Eyeglasses", "Wearing_Hat")


@dataclass(frozen=True)
class SmallSet:
    """Images on disk and what they were made of.

    Attributes:
        path: the folder to give as dataset.path.
        files: n paths, in the order in which the images are to be read.
        images: (n, H, W) or (n, H, W, 3) uint8, as they were before they were saved.
        factors: (n, K) numbers.
        names: of the K factors.
    """

    path: Path
    files: list[str]
    images: np.ndarray
    factors: np.ndarray
    names: list[str]


def make_chairs(folder: Path) -> SmallSet:
    """8 chairs at 2 elevations from 16 sides, as rendered_chairs/<chair>/renders/image_001_p020_t011_r096.png."""
    chairs = [f"{number:032x}" for number in (11, 23, 37, 41, 59, 67, 73, 89)]
    azimuths = [11 + 22 * step for step in range(16)]
    rows = []
    for chair, name in enumerate(chairs):
        for number, (elevation, azimuth) in enumerate(itertools.product((20, 30), azimuths), start=1):
            file = f"{name}/renders/image_{number:03d}_p{elevation:03d}_t{azimuth:03d}_r096.png"
            points, normals = _chair(width=0.5 + 0.06 * chair, back=1.2 - 0.08 * chair, lean=5 * (chair % 4))
            view = _turn(azimuth, elevation)
            image = 255 - _splat(points @ view.T, 255 - _shade(normals @ view.T, np.array([0.3, -0.5, 0.8])))
            rows.append((file, image, (chair, elevation, azimuth)))
    return _save(folder / "rendered_chairs", rows, ["chair", "elevation", "azimuth"])


def make_faces(folder: Path) -> SmallSet:
    """2 heads at 7 azimuths, 5 elevations and in 3 lights, as faces/<face>/azimuth_-30_elevation_10_light_45.png."""
    rows = []
    grid = itertools.product(range(2), range(-60, 61, 20), range(-20, 21, 10), (-45, 0, 45))
    for face, azimuth, elevation, light in grid:
        points, normals, colours = _head(length=1.2 + 0.15 * face)
        view = _turn(azimuth, elevation)
        angle = np.radians(light)
        shade = _shade(normals @ view.T, np.array([np.sin(angle), 0.0, np.cos(angle)]))
        image = _splat(points @ view.T, shade * colours)
        file = f"face_{face}/azimuth_{azimuth}_elevation_{elevation}_light_{light}.png"
        rows.append((file, image, (face, azimuth, elevation, light)))
    return _save(folder / "faces", rows, ["face", "azimuth", "elevation", "light"])


def make_celeba(folder: Path, count: int = 240) -> SmallSet:
    """Coloured faces of 178 x 218 pixels, as img_align_celeba/000001.jpg, and their list_attr_celeba.txt."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random((count, len(ATTRIBUTES))) < 0.5, -1, 1)
    path = folder / "celeba"
    (path / "img_align_celeba").mkdir(parents=True)
    files, images = [], []
    for number, row in enumerate(values, start=1):
        files.append(f"{number:06d}.jpg")
        images.append(_portrait(row == 1, rng.uniform(-8, 8, 2)))
        Image.fromarray(images[-1]).save(path / "img_align_celeba" / files[-1], quality=95, subsampling=0)
    lines = [f"{file}  {' '.join(f'{value:2d}' for value in row)}" for file, row in zip(files, values, strict=True)]
    (path / "list_attr_celeba.txt").write_text("\n".join([str(count), " ".join(ATTRIBUTES), *lines, ""]))
    return SmallSet(path, files, np.stack(images), values, list(ATTRIBUTES))


def _save(path: Path, rows: list[tuple[str, np.ndarray, tuple[int, ...]]], names: list[str]) -> SmallSet:
    rows.sort()
    for file, image, _ in rows:
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / file)
    files, images, factors = zip(*rows, strict=True)
    return SmallSet(path, list(files), np.stack(images), np.array(factors), names)


def _box(low: tuple[float, ...], high: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Points on the faces of a box, closer than pixels are, and the normals there: (n, 3) each."""
    points, normals = [], []
    edges = [np.linspace(start, end, int(30 * (end - start)) + 2) for start, end in zip(low, high, strict=True)]
    for axis, outward in itertools.product(range(3), (-1, 1)):
        face = [*edges[:axis], edges[axis][[0 if outward < 0 else -1]], *edges[axis + 1 :]]
        points.append(np.stack(np.meshgrid(*face, indexing="ij"), axis=-1).reshape(-1, 3))
        normals.append(np.tile(np.eye(3)[axis] * outward, (len(points[-1]), 1)))
    return np.concatenate(points), np.concatenate(normals)


def _chair(width: float, back: float, lean: float) -> tuple[np.ndarray, np.ndarray]:
    """Seat, four legs, and a back that leans (degrees) on its joint with the seat; y up, about 1 from the origin."""
    parts = [_box((-width, -0.1, -0.5), (width, 0.05, 0.5))]
    for x, z in itertools.product((-width, width - 0.1), (-0.5, 0.4)):
        parts.append(_box((x, -0.9, z), (x + 0.1, -0.1, z + 0.1)))
    joint, turned = np.array([0.0, 0.05, -0.5]), _turn(0, -lean)
    points, normals = _box((-width, 0.05, -0.5), (width, back - 0.2, -0.4))
    parts.append(((points - joint) @ turned.T + joint, normals @ turned.T))
    points, normals = (np.concatenate(each) for each in zip(*parts, strict=True))
    return points, normals


def _head(length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An ellipsoid with a nose and dark eyes that looks along z."""
    theta, phi = np.meshgrid(np.linspace(0, np.pi, 120), np.linspace(0, 2 * np.pi, 240))
    sphere = np.stack([np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)], axis=-1).reshape(-1, 3)
    axes = np.array([0.75, 0.8 * length, 0.85])
    eyes = np.array([[0.3, 0.2, 0.93], [-0.3, 0.2, 0.93]])
    dark = (np.linalg.norm(sphere[:, None] - eyes, axis=2) < 0.17).any(axis=1)
    nose = sphere * 0.16 + np.array([0.0, -0.05, 0.9])
    normals = sphere / axes
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colours = np.concatenate([np.where(dark, 0.25, 1.0), np.ones(len(nose))])
    return np.concatenate([sphere * axes, nose]), np.concatenate([normals, sphere]), colours


def _turn(azimuth: float, elevation: float) -> np.ndarray:
    """The view of a camera on these angles (degrees): x to the right, y up, z towards it."""
    a, e = np.radians(azimuth), np.radians(elevation)
    about_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(e), -np.sin(e)], [0, np.sin(e), np.cos(e)]])
    return about_x @ about_y


def _shade(normals: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Grey values 40 to 240 by the angle to the light."""
    return 40 + 200 * np.clip(normals @ (light / np.linalg.norm(light)), 0, 1)


def _splat(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(64, 64) uint8: each pixel has the value of its nearest point, 0 where there is none."""
    image = np.zeros((SIDE, SIDE), np.uint8)
    column = np.clip((points[:, 0] * 22 + SIDE / 2).astype(int), 0, SIDE - 1)
    row = np.clip((SIDE / 2 - points[:, 1] * 22).astype(int), 0, SIDE - 1)
    order = np.argsort(points[:, 2], kind="stable")
    image[row[order], column[order]] = values[order]
    return image


def _portrait(attributes: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """(218, 178, 3): a face of flat colours, its edges a pixel or two soft."""
    smiling, bangs, blond, young, male, glasses, hat = attributes
    y, x = np.mgrid[:218, :178].astype(float) - np.array([114, 89])[:, None, None] - shift[:, None, None]
    image = np.full((218, 178, 3), (90, 120, 160), float)

    def paint(distance: np.ndarray, colour: tuple[int, int, int]) -> None:
        share = np.clip(0.5 - distance / 2, 0, 1)[..., None]
        image[:] = image * (1 - share) + np.array(colour) * share

    def ellipse(cy: float, cx: float, ry: float, rx: float) -> np.ndarray:
        return (np.hypot((y - cy) / ry, (x - cx) / rx) - 1) * min(ry, rx)

    hair = (220, 190, 110) if blond else (60, 40, 30)
    paint(ellipse(-5, 0, 78 if male else 92, 62), hair)
    paint(ellipse(5, 0, 60, 46), (235, 200, 175) if young else (205, 165, 140))
    if bangs:
        paint(np.maximum(ellipse(5, 0, 62, 48), y + 28), hair)
    if hat:
        paint(np.maximum(np.abs(y + 70) - 18, np.abs(x) - 60), (150, 30, 40))
    for side in (-18, 18):
        paint(ellipse(-8, side, 5, 8), (40, 40, 60))
        if glasses:
            paint(np.abs(ellipse(-8, side, 13, 15)) - 2, (10, 10, 10))
    paint(np.abs(y - 36 + (x**2 / 60 if smiling else 0)) + np.maximum(np.abs(x) - 20, 0) - 3, (170, 50, 60))
    return np.rint(image).astype(np.uint8)
