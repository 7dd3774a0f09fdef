"""Fig. 6: what each latent of a model answers to, and what it does to an image.

One study: its only trial is the β-VAE, its controls are the VAE (β = 1), DC-IGN and InfoGAN.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from bvae_tune.data.sources import open_dataset
from bvae_tune.errors import RunError
from bvae_tune.experiments import Scale
from bvae_tune.experiments.reproduction import FEW_STEPS, SMOKE, add_model, budget, check_shapes, run_study, scaled
from bvae_tune.search.records import TrialRecord
from bvae_tune.search.study import Study
from bvae_tune.space import load_space
from bvae_tune.wording import significant

if TYPE_CHECKING:
    from rich.console import Console

VAE, DCIGN, INFOGAN = "VAE (β = 1)", "DC-IGN", "InfoGAN"
_RIVALS: Final = {"dcign": DCIGN, "infogan": INFOGAN}
_LONG: Final = ("training.steps=30000", "training.report_every=7500")
SPACES: Final[dict[Scale, tuple[str, Sequence[str]]]] = {
    Scale.SMOKE: ("fig6", SMOKE),
    Scale.CPU: ("fig6", ()),
    Scale.HOURS: ("fig6", _LONG),
    Scale.PAPER: ("fig6_paper", ()),
}
RIVALS: Final[dict[Scale, Mapping[str, tuple[str, Sequence[str]]]]] = {
    Scale.SMOKE: {
        DCIGN: ("dcign", ("model.widths=[4, 4, 4]", *FEW_STEPS)),
        INFOGAN: ("infogan", ("model.widths=[64, 64, 8, 4, 16]", *FEW_STEPS)),
    },
    Scale.CPU: {DCIGN: ("dcign", ()), INFOGAN: ("infogan", ())},
    Scale.HOURS: {
        DCIGN: ("dcign", _LONG),
        INFOGAN: ("infogan", ("training.steps=9000", "training.report_every=3000")),
    },
    Scale.PAPER: {DCIGN: ("dcign_paper", ()), INFOGAN: ("infogan_paper", ())},
}
# Images that the activations are averaged over; None for all.
IMAGES: Final = {Scale.SMOKE: 4_096, Scale.CPU: 65_536, Scale.HOURS: None, Scale.PAPER: None}
GROUPS: Final = (("position_y", "position_x"), ("shape", "scale"), ("shape", "rotation"))
STEPS: Final = 5


@dataclass(frozen=True)
class Portrait:
    """One model of Fig. 6, its M latents in the order in which they are shown.

    Attributes:
        label: of the model.
        record: the trial, whose best replica is shown.
        budget: what was trained, in words.
        latents: (M,) their numbers: by posterior variance, the most certain first, as they come for DC-IGN and InfoGAN.
        variance: (M,) of their posteriors, mean over images; None where the model has none.
        position: (M, 32, 32) mean code by position, rows position_y.
        scale: (M, shapes, scales) mean code.
        rotation: (M, shapes, rotations) mean code.
        traversed: (M, steps, C, H, W) float32 in [0, 1], the image with one latent set to each of `values`.
        values: (steps,).
    """

    label: str
    record: TrialRecord
    budget: str
    latents: tuple[int, ...]
    variance: tuple[float, ...] | None
    position: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    rotation: npt.NDArray[np.float64]
    traversed: npt.NDArray[np.float32]
    values: tuple[float, ...]


def run_portraits(
    scale: Scale,
    storage: str | Path,
    name: str | None = None,
    settings: Sequence[str] = (),
    image: int | None = None,
    *,
    address: str | None = None,
    console: Console | None = None,
) -> Study:
    """Train the four models as the study `fig6-<scale>`, or go on with it.

    Args:
        scale: of the packaged search spaces.
        storage: the folder of studies.
        name: of the study, in place of the usual one.
        settings: `key=value` on top of the search space of the β-VAE and the VAE.
        image: that will be drawn.
        address, console: as for `bvae_tune.search`.

    Raises:
        InputError, RunError, SearchInterrupted: as for `run_study`.
    """
    config = scaled(scale, SPACES, settings)

    def prepare(study: Study) -> None:
        store = open_dataset(study.config.dataset)
        check_shapes(store)
        if image is not None:
            from bvae_tune.search.kept import check_image  # torch

            check_image(store, image)
        vae = dataclasses.replace(config.model, beta=1.0, beta_norm=None)
        add_model(study, "fig6", VAE, vae, config.training, keep=True)
        for label, (space, changes) in RIVALS[scale].items():
            rival = load_space(space, changes)
            add_model(study, "fig6", label, rival.model, rival.training, keep=True)

    return run_study(config, name or f"fig6-{scale}", storage, prepare, address=address, console=console)


def read_portraits(study: Study, image: int | None, images: int | None) -> list[Portrait]:
    """The models of a study whose weights are kept: its best trial, then its controls.

    Args:
        study: of `run_portraits`, or any other.
        image: whose code is traversed; the first labelled one if not given.
        images: so many are averaged over; None for all.

    Raises:
        RunError: no trial has finished.
        InputError: the images are not the complete grid of three shapes, scale, rotation and position, or have changed.
    """
    from bvae_tune.search.kept import check_image  # torch

    store = open_dataset(study.config.dataset)
    check_shapes(store)
    if image is not None:
        check_image(store, image)
    best = study.best
    if best is None:
        raise RunError(f"{study.path}: no trial has finished; there is nothing to draw")
    kept = [record for record in study.controls if record.keep and record.score is not None]
    return [_portrait(study, record, image, images) for record in (best, *kept)]


def _portrait(study: Study, record: TrialRecord, image: int | None, images: int | None) -> Portrait:
    from bvae_tune.search.kept import activations, traverse  # torch

    found = activations(study, record, GROUPS, images)
    traversal = traverse(study, record, image, steps=STEPS)
    model, _ = study.configuration(record)
    order = np.arange(len(traversal.decoded))
    if model.architecture in ("fc", "conv") and found.variance is not None:
        order = np.argsort(found.variance)
    position, scale, rotation = (means[order] for means in found.means)
    return Portrait(
        label=_RIVALS.get(model.architecture, f"β-VAE (β = {significant(record.beta)})")
        if record.kind == "search"
        else record.label,
        record=record,
        budget=budget(study, record),
        latents=tuple(order.tolist()),
        variance=None if found.variance is None else tuple(found.variance[order].tolist()),
        position=position,
        scale=scale,
        rotation=rotation,
        traversed=traversal.decoded[order],
        values=traversal.values,
    )
