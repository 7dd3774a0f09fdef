"""Fig. 5 right: the score over a grid of β_norm and M.

Each cell is a trial of a grid search, with a record and checkpoints of its own; a column, one M with all its β, is one
bank (`resources.trials_per_bank`).

The paper's claims: for a given M the score is an inverted U in β_norm, its peak moves to higher β_norm as M grows, and
good reconstructions go with entangled codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from bvae_tune.errors import InputError, RunError
from bvae_tune.experiments import Scale
from bvae_tune.experiments.reproduction import SMOKE, run_study, scaled
from bvae_tune.search.records import TrialRecord
from bvae_tune.search.runner import add_baselines
from bvae_tune.search.study import Study

if TYPE_CHECKING:
    from rich.console import Console

SPACES: Final[dict[Scale, tuple[str, Sequence[str]]]] = {
    Scale.SMOKE: (
        "fig5_right",
        (
            "space.beta_norm={grid: [0.016, 0.256]}",
            "space.latent_size={grid: [4, 10]}",
            "search.trials=4",
            "protocol.replicas=1",
            *SMOKE,
        ),
    ),
    Scale.CPU: ("fig5_right", ()),
    Scale.HOURS: ("fig5_right", ("protocol.replicas=6", "training.steps=15000", "training.report_every=5000")),
    Scale.PAPER: ("fig5_right_paper", ()),
}
SHOWN: Final = 12  # images that are reconstructed


@dataclass(frozen=True)
class ScoreGrid:
    """Scores by M and β_norm; NaN where a trial has not finished.

    Attributes:
        latent_sizes: (S,) ascending M.
        beta_norms: (B,) ascending β_norm = β M / N (Sec. A.5).
        scores: (S, B) shares in [0, 1], each over the replicas of a trial.
        spreads: (S, B) standard deviation over the replicas; 0 for one.
        replicas: (2, S, B) the lowest and the highest score of a replica.
        reconstruction: (S, B) nats per image.
        kl: (S, B) nats per image.
        collapsed: (S, B) bool, every latent is switched off (see `TrialResult.collapsed`).
        dimensions: N.
        pairs: L of the scores.
        chance: of the scores.
    """

    latent_sizes: tuple[int, ...]
    beta_norms: tuple[float, ...]
    scores: npt.NDArray[np.float64]
    spreads: npt.NDArray[np.float64]
    replicas: npt.NDArray[np.float64]
    reconstruction: npt.NDArray[np.float64]
    kl: npt.NDArray[np.float64]
    collapsed: npt.NDArray[np.bool_]
    dimensions: int
    pairs: int
    chance: float

    @property
    def peaks(self) -> npt.NDArray[np.int64]:
        """(S,) position of the best β_norm for each M, collapsed codes last; -1 where no trial of it has finished."""
        known = ~np.isnan(self.scores).all(axis=1)
        ranks = np.where(np.isnan(self.scores), -2.0, self.scores - self.collapsed)
        return np.where(known, ranks.argmax(axis=1), -1)

    @property
    def correlation(self) -> float | None:
        """Spearman's rank correlation of M and its best β_norm; None below three M, or where all have the same best."""
        sizes = [size for size, peak in zip(self.latent_sizes, self.peaks, strict=True) if peak >= 0]
        peaks = [self.beta_norms[peak] for peak in self.peaks if peak >= 0]
        return _rank_correlation(sizes, peaks)

    @property
    def correlation_with_reconstruction(self) -> float | None:
        """Spearman's of score and nats per image, over cells up to the peak of their M; positive: blurrier is better.

        Beyond the peak latents switch off, which costs both. None as for `correlation`.
        """
        position = np.arange(len(self.beta_norms))
        rising = (position <= self.peaks[:, None]) & ~np.isnan(self.scores)
        return _rank_correlation(self.scores[rising], self.reconstruction[rising])

    def to_dict(self) -> dict[str, Any]:
        """Plain data: a row for each cell, and what they come to."""
        cells = [
            {
                "latent_size": size,
                "beta_norm": beta_norm,
                "beta": beta_norm * self.dimensions / size,
                "score": self.scores[at],
                "spread": self.spreads[at],
                "lowest_replica": self.replicas[0][at],
                "highest_replica": self.replicas[1][at],
                "reconstruction": self.reconstruction[at],
                "kl": self.kl[at],
                "collapsed": bool(self.collapsed[at]),
                "best_of_its_latent_size": bool(self.peaks[at[0]] == at[1]),
            }
            for at in np.ndindex(self.scores.shape)
            for size, beta_norm in [(self.latent_sizes[at[0]], self.beta_norms[at[1]])]
        ]
        return {
            "pairs": self.pairs,
            "chance": self.chance,
            "correlation": self.correlation,
            "correlation_with_reconstruction": self.correlation_with_reconstruction,
            "cells": cells,
        }


@dataclass(frozen=True)
class Reconstructions:
    """What a replica of a trial makes of some images.

    Attributes:
        record: the trial.
        replica: which one.
        pixels: (n, C, H, W) float32 in [0, 1], the images.
        decoded: (n, C, H, W), from the means of their codes.
    """

    record: TrialRecord
    replica: int
    pixels: npt.NDArray[np.float32]
    decoded: npt.NDArray[np.float32]


def run_score_grid(
    scale: Scale,
    storage: str | Path,
    name: str | None = None,
    settings: Sequence[str] = (),
    *,
    address: str | None = None,
    console: Console | None = None,
) -> Study:
    """Run the grid as the study `fig5-right-<scale>`, or go on with it.

    Args:
        scale: of the packaged search space.
        storage: the folder of studies.
        name: of the study, in place of the usual one.
        settings: `key=value` on top of the search space.
        address, console: as for `bvae_tune.search`.

    Raises:
        InputError, RunError, SearchInterrupted: as for `run_study`.
    """
    config = scaled(scale, SPACES, settings)
    searched = set(config.space)
    if config.search.sampler != "grid" or searched != {"model.beta_norm", "model.latent_size"}:
        raise InputError(
            f"space: {', '.join(sorted(searched)) or 'nothing'}; this figure is a grid of beta_norm and latent_size"
        )
    if config.search.keep_models < config.search.trials:
        raise InputError(
            f"search.keep_models: {config.search.keep_models}; this figure draws images by any of the "
            f"{config.search.trials} cells, so keep as many"
        )
    name = name or f"fig5-right-{scale}"
    return run_study(config, name, storage, add_baselines, address=address, console=console)


def read_score_grid(study: Study) -> ScoreGrid:
    """The grid of a study whose trials searched β_norm and M.

    Raises:
        RunError: no trial has finished.
    """
    finished = _finished(study)
    sizes = tuple(sorted({record.latent_size for record in finished}))
    # The record has β_norm as it was computed from β and M, to the last bit or not.
    beta_norms = tuple(sorted({_beta_norm(record) for record in finished}))
    scores, spreads, lowest, highest, reconstruction, kl = np.full((6, len(sizes), len(beta_norms)), np.nan)
    collapsed = np.zeros_like(scores, bool)
    for record in finished:
        assert record.result is not None
        result = record.result
        at = (sizes.index(record.latent_size), beta_norms.index(_beta_norm(record)))
        scores[at], spreads[at] = result.score.score, result.score.spread
        lowest[at], highest[at] = min(result.score.replica_scores), max(result.score.replica_scores)
        reconstruction[at], kl[at] = np.mean(result.reconstruction), np.mean(result.kl)
        collapsed[at] = result.collapsed
    return ScoreGrid(
        latent_sizes=sizes,
        beta_norms=beta_norms,
        scores=scores,
        spreads=spreads,
        replicas=np.stack([lowest, highest]),
        reconstruction=reconstruction,
        kl=kl,
        collapsed=collapsed,
        dimensions=study.facts["dimensions"],
        pairs=result.score.pairs,
        chance=result.score.chance,
    )


def entangled_and_disentangled(study: Study) -> tuple[Reconstructions, Reconstructions]:
    """Those by the best trial's best replica, after those by the worst of the lowest trial of its M.

    The latter has a lower β_norm where there is any.

    Raises:
        RunError: no trial has finished.
        InputError: the weights are not kept, or the images have changed.
    """
    from bvae_tune.search.kept import reconstruct  # torch

    best = study.best
    finished = _finished(study)
    assert best is not None
    others = [record for record in finished if record.latent_size == best.latent_size and record != best] or [best]
    below = [record for record in others if _beta_norm(record) < _beta_norm(best)]
    lowest = min(below or others, key=lambda record: record.score or 0.0)
    assert lowest.result is not None
    assert best.result is not None
    worst_replica, best_replica = lowest.result.score.worst_replica, best.result.score.best_replica
    return (
        Reconstructions(lowest, worst_replica, *reconstruct(study, lowest, worst_replica, SHOWN)),
        Reconstructions(best, best_replica, *reconstruct(study, best, best_replica, SHOWN)),
    )


def _rank_correlation(one: npt.ArrayLike, other: npt.ArrayLike) -> float | None:
    """Spearman's; None below three pairs, or where one of the two is constant."""
    from scipy.stats import spearmanr  # slow to import

    one, other = np.asarray(one), np.asarray(other)
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)


def _finished(study: Study) -> list[TrialRecord]:
    finished = [record for record in study.trials if record.score is not None]
    if not finished:
        raise RunError(f"{study.path}: no trial has finished; there is nothing to draw")
    return finished


def _beta_norm(record: TrialRecord) -> float:
    return float(record.parameters["model.beta_norm"])
