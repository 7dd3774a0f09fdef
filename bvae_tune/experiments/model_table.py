"""Fig. 5 left: the score of every system of the paper on 2D shapes.

One study holds the models that are trained: its trials search the best β of a convolutional β-VAE, its controls are the
others, last of them the fc network at that β. The systems without training steps stand in `linear_systems`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bvae_tune.data.sources import open_dataset
from bvae_tune.errors import InputError
from bvae_tune.experiments import Scale
from bvae_tune.experiments.linear_systems import (
    ICA,
    ICA_PAIRS,
    LENGTHS,
    PCA,
    PCA_STANDARDISED,
    RAW,
    TRUTH,
    linear_scores,
)
from bvae_tune.experiments.reproduction import FEW_STEPS, SMOKE, add_model, budget, check_shapes, run_study, scaled
from bvae_tune.metrics.protocol import TrialScore
from bvae_tune.search.records import TrialRecord
from bvae_tune.search.study import Study
from bvae_tune.space import load_space
from bvae_tune.wording import counted, significant

if TYPE_CHECKING:
    from rich.console import Console

UNTRAINED, VAE, BETA_VAE, BEST = "VAE untrained", "VAE", "β-VAE, β = 4", "β-VAE, conv's best β"
VAE_CONV, BETA_VAE_CONV, BEST_CONV = "VAE, conv", "β-VAE, β = 4, conv", "β-VAE, best β, conv"
DCIGN, INFOGAN = "DC-IGN", "InfoGAN"
# Fig. 5 left: mean and spread.
PAPER: Final[Mapping[str, tuple[float, float | None]]] = {
    TRUTH: (1.0, None),
    RAW: (0.4575, 0.008),
    PCA: (0.849, 0.004),
    PCA_STANDARDISED: (0.849, 0.004),
    ICA: (0.4203, 0.106),
    ICA_PAIRS: (0.4203, 0.106),
    DCIGN: (0.993, 0.001),
    INFOGAN: (0.735, 0.009),
    UNTRAINED: (0.4414, 0.025),
    VAE: (0.6158, 0.005),
    BETA_VAE: (0.9923, 0.001),
}

_FIXED: Final = ("space.beta=null", "space.latent_size=null")
_NARROW_FC: Final = (*_FIXED, "model.widths=[300, 300]", "training.steps=6000", "training.report_every=1500")
# 1.0 million images.
_WHOLE_FC: Final = (*_FIXED, "training.steps=15600", "training.report_every=1300")
_SMALL_FC: Final = (*_FIXED, "model.widths=[16]", *FEW_STEPS)
SPACES: Final[dict[Scale, tuple[str, Sequence[str]]]] = {
    Scale.SMOKE: ("fig5_left", ("search.trials=1", "protocol.replicas=2", *SMOKE)),
    Scale.CPU: ("fig5_left", ()),
    Scale.HOURS: ("fig5_left", ("search.trials=8", "training.steps=15000")),
    Scale.PAPER: ("fig5_left_paper", ()),
}
Setting = tuple[str, Sequence[str]]  # a packaged search space, and what is changed in it


def _trained(
    fc: Sequence[str], dcign: Setting, infogan: Setting, untrained: Sequence[str] = _FIXED
) -> dict[str, Setting]:
    """The systems besides those without a network and the convolutional β-VAEs.

    `fc` is what is changed in `shapes_paper` for the fc networks, `untrained` for the one without a step: it takes no
    time, so that it can be the paper's where the trained ones are narrower.
    """
    return {
        UNTRAINED: ("shapes_paper", (*untrained, "model.beta=1", "training.steps=0")),
        VAE: ("shapes_paper", (*fc, "model.beta=1")),
        BETA_VAE: ("shapes_paper", (*fc, "model.beta=4")),
        DCIGN: dcign,
        INFOGAN: infogan,
    }


TRAINED: Final[dict[Scale, Mapping[str, Setting]]] = {
    Scale.SMOKE: _trained(
        _SMALL_FC,
        ("dcign", ("model.widths=[4, 4, 4]", *FEW_STEPS)),
        ("infogan", ("model.widths=[64, 64, 8, 4, 16]", *FEW_STEPS)),
        untrained=_SMALL_FC,
    ),
    Scale.CPU: _trained(_NARROW_FC, ("dcign", ()), ("infogan", ())),
    Scale.HOURS: _trained(_WHOLE_FC, ("dcign", ("training.steps=15000",)), ("infogan", ("training.steps=6000",))),
    Scale.PAPER: _trained(_FIXED, ("dcign_paper", ()), ("infogan_paper", ())),
}


@dataclass(frozen=True)
class System:
    """A row of the table.

    Attributes:
        label: of the system.
        paper: mean and spread in the paper, shares in [0, 1]; None where it has no such row.
        score: ours; None where all that was trained has failed.
        budget: what was fitted or trained, in words; of a failure the reason.
        kl: nats per image, the capacity ε that its β implies (Sec. A.6); None where there is no posterior.
    """

    label: str
    paper: tuple[float, float | None] | None
    score: TrialScore | None
    budget: str
    kl: float | None = None

    @property
    def agreement(self) -> tuple[int | None, int | None] | None:
        """The two neighbouring L of the profile between which the score passes the paper's.

        (None, L): it is above the paper's from the first L on; (L, None): below up to the last. None without one of the
        two.
        """
        if self.paper is None or self.score is None:
            return None
        lengths = sorted(self.score.profile)
        below = max((pairs for pairs in lengths if self.score.profile[pairs] < self.paper[0]), default=0)
        return below or None, next((pairs for pairs in lengths if pairs > below), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, flat, with the difference from the paper at each L (in shares)."""
        paper, spread = self.paper or (None, None)
        row: dict[str, Any] = {"system": self.label, "paper": paper, "paper_spread": spread, "budget": self.budget}
        score = self.score
        if score is None:
            return row
        for pairs in LENGTHS:
            row[f"score_at_{pairs}"] = score.profile[pairs]
            row[f"difference_at_{pairs}"] = None if paper is None else score.profile[pairs] - paper
        row |= {"spread": score.spread, "pairs": score.pairs, "mig": score.mig, "kl": self.kl}
        row["replica_scores"] = list(score.replica_scores)
        row |= {"classifier": score.classifier, "converged": score.converged}
        return row | {f"information_{name}": share for name, share in score.information.items()}


def run_model_table(
    scale: Scale,
    storage: str | Path,
    name: str | None = None,
    settings: Sequence[str] = (),
    *,
    address: str | None = None,
    console: Console | None = None,
) -> Study:
    """Train the systems as the study `fig5-left-<scale>`, or go on with it.

    Args:
        scale: of the packaged search spaces.
        storage: the folder of studies.
        name: of the study, in place of the usual one.
        settings: `key=value` on top of the search space of the convolutional β-VAEs; what they say of labels, metric
            and protocol holds for every system.
        address, console: as for `bvae_tune.search`.

    Raises:
        InputError, RunError, SearchInterrupted: as for `run_study`.
    """

    def add_systems(study: Study) -> None:
        check_shapes(open_dataset(study.config.dataset))
        for label, (space, changes) in TRAINED[scale].items():
            system = load_space(space, changes)
            add_model(study, "fig5 left", label, system.model, system.training)
        for label, beta in ((VAE_CONV, 1.0), (BETA_VAE_CONV, 4.0)):
            model = dataclasses.replace(config.model, beta=beta, beta_norm=None)
            add_model(study, "fig5 left", label, model, config.training)

    def add_best(study: Study) -> None:
        if study.best is not None:
            space, changes = TRAINED[scale][VAE]
            vae = load_space(space, changes)
            add_model(study, "fig5 left", BEST, dataclasses.replace(vae.model, beta=study.best.beta), vae.training)

    config = scaled(scale, SPACES, settings)
    missing = set(LENGTHS) - set(config.metric.lengths)
    if missing:
        raise InputError(f"metric.profile: {list(config.metric.profile)}; the table takes L = 4, 16 and 64")
    name = name or f"fig5-left-{scale}"
    run_study(config, name, storage, add_systems, address=address, console=console)
    # The search has ended: what stands on its best β can follow.
    return run_study(config, name, storage, add_best, address=address, console=console)


def read_systems(study: Study, images: int | None, told: Callable[[str], None] = lambda _: None) -> list[System]:
    """The table's rows in the paper's order; systems without training steps are fitted where they are not yet.

    Args:
        study: of `run_model_table`.
        images: so many are what components are fitted to, where they are not yet; None for all.
        told: called with what is being done.

    Raises:
        InputError: the images are no grid of shapes, or have changed.
    """
    linear = linear_scores(study, images, told)
    rows = [System(label, PAPER.get(label), score, note) for label, (score, note) in linear.items()]
    latest = {record.label: record for record in study.controls}  # one that failed may have been run again
    for label in (DCIGN, INFOGAN, UNTRAINED, VAE, BETA_VAE, BEST, VAE_CONV, BETA_VAE_CONV):
        record = latest.get(label)
        if record is not None and record.state in ("complete", "failed"):
            rows.append(_trained_system(study, label, record, f"β {significant(record.beta)}, " * (label == BEST)))
    best = study.best
    if best is not None:
        of = f"β {significant(best.beta)} of {counted(len(study.trials), 'trial')}; "
        rows.append(_trained_system(study, BEST_CONV, best, of))
    return rows


def _trained_system(study: Study, label: str, record: TrialRecord, what: str) -> System:
    """A row; `what` goes before its budget."""
    if record.result is None or record.state == "failed":
        return System(label, PAPER.get(label), None, f"failed: {record.reason}")
    return System(label, PAPER.get(label), record.result.score, what + budget(study, record), record.kl)


def learning_curves(study: Study) -> dict[str, list[tuple[int, float]]]:
    """For each trained system (images seen by a replica, score at L = `metric.pairs`) of every report."""
    found = {}
    records = {record.label: record for record in study.controls if record.state == "complete"}
    records.pop(UNTRAINED, None)
    if study.best:
        records[BEST_CONV] = study.best
    for label, record in records.items():
        if record.intermediate:
            _, training = study.configuration(record)
            found[label] = [(step * training.batch_size, score) for step, score in record.intermediate.items()]
    return found
