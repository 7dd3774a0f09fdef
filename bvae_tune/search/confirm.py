"""How much of the best score was luck: the best configuration and β = 1, trained again on seeds that no search saw."""

from __future__ import annotations

import dataclasses
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bvae_tune.errors import InputError, RunError
from bvae_tune.randomness import derive_seed
from bvae_tune.search.runner import add_control, drive
from bvae_tune.search.study import Study

if TYPE_CHECKING:
    from rich.console import Console

BEST, BASELINE = "best", "beta=1"


@dataclass(frozen=True)
class Confirmation:
    """The best trial's configuration against β = 1 at the same M, in pairs of the same seeds.

    Attributes:
        trial: number of the searched trial.
        beta, beta_norm, latent_size: of its configuration.
        searched: its score in the search, which chose it for that.
        best: its scores on fresh seeds, one per pair (shares in [0, 1]).
        baseline: those of β = 1 on the same seeds.
        pairs: L of the scores.
        failed: pairs of which a member failed; they are left out.
        collapsed, baseline_collapsed: of the retrainings of the best configuration, and of those of β = 1, how many
            have every latent switched off.
    """

    trial: int
    beta: float
    beta_norm: float
    latent_size: int
    searched: float
    best: tuple[float, ...]
    baseline: tuple[float, ...]
    pairs: int
    failed: int
    collapsed: int
    baseline_collapsed: int

    @property
    def leads(self) -> tuple[float, ...]:
        """Best minus baseline, pair by pair."""
        return tuple(best - baseline for best, baseline in zip(self.best, self.baseline, strict=True))

    @property
    def lead(self) -> float:
        """Mean of the leads."""
        return statistics.fmean(self.leads)

    @property
    def standard_error(self) -> float:
        """Standard error of the mean lead: standard deviation of the leads (n - 1) over √n; NaN for one pair."""
        return statistics.stdev(self.leads) / math.sqrt(len(self.leads)) if len(self.leads) > 1 else math.nan

    @property
    def best_spread(self) -> tuple[float, float]:
        """Mean and standard deviation of `best`; NaN for one."""
        return _spread(self.best)

    @property
    def baseline_spread(self) -> tuple[float, float]:
        """Mean and standard deviation of `baseline`; NaN for one."""
        return _spread(self.baseline)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return dataclasses.asdict(self) | {
            "leads": list(self.leads),
            "lead": self.lead,
            "standard_error": self.standard_error,
        }


def confirm(
    path: str | Path, seeds: int = 4, *, address: str | None = None, console: Console | None = None
) -> Confirmation:
    """Train the best configuration and β = 1 at the same M on fresh seeds, and compare them pair by pair.

    Both members of pair p have the replica seeds `derive_seed(search.seed, "confirm trial <number>", p * R + replica)`
    and the evaluation seed `derive_seed(search.seed, "confirm evaluation", p)`, at the search's budget and protocol.
    They are controls of the record: a killed confirmation goes on, one that is done is only read, and more seeds add
    to it. A pair that failed is run again.

    Args:
        path: the study's folder.
        seeds: pairs.
        address, console: as for `search`.

    Raises:
        InputError: fewer than two seeds, no finished trial, a best one without β or of β = 1, or another process
            drives the study.
        RunError: no pair could be trained; and as for `search`.
        SearchInterrupted: as for `search`.
    """
    if seeds < 2:
        raise InputError(f"--seeds {seeds}: give at least 2, or there is no spread to judge by")
    study = Study.open(path)
    best = study.best
    if best is None:
        raise InputError(study.without_best)
    model, _ = study.configuration(best)
    if not model.has_beta:
        raise InputError(f"{study.path}: its best trial is an {model.architecture}, which has no β to compare with 1")
    if best.beta == 1:
        raise InputError(f"{study.path}: its best trial has β = 1 itself, so there is nothing to compare")
    study = drive(study.path, lambda opened: _enqueue(opened, seeds), address=address, console=console, searching=False)
    found = read_confirmation(study)
    if found is None:
        reasons = [record.reason for record in study.controls if record.kind == "confirm" and record.reason]
        raise RunError(f"{study.path}: no pair could be trained; the first: {reasons[0] if reasons else 'unknown'}")
    return found


def read_confirmation(study: Study) -> Confirmation | None:
    """What the record knows of the best trial's confirmation; None before a pair of it is complete."""
    best = study.best
    if best is None or best.result is None or best.score is None:
        return None
    scores: dict[tuple[str, int], float] = {}
    failed: set[int] = set()
    collapsed = {BEST: 0, BASELINE: 0}
    for record, attributes in study.confirmations(best):
        if record.score is not None:
            scores[attributes["member"], attributes["pair"]] = record.score
            collapsed[attributes["member"]] += record.collapsed
        elif record.state == "failed":
            failed.add(attributes["pair"])
    whole = sorted(pair for member, pair in scores if member == BEST and (BASELINE, pair) in scores)
    if not whole:
        return None
    return Confirmation(
        trial=best.number,
        beta=best.beta,
        beta_norm=best.beta_norm,
        latent_size=best.latent_size,
        searched=best.score,
        best=tuple(scores[BEST, pair] for pair in whole),
        baseline=tuple(scores[BASELINE, pair] for pair in whole),
        pairs=best.result.score.pairs,
        failed=len(failed - set(whole)),
        collapsed=collapsed[BEST],
        baseline_collapsed=collapsed[BASELINE],
    )


def _enqueue(study: Study, seeds: int) -> None:
    best = study.best
    assert best is not None
    config = study.config
    replicas, seed = config.protocol.replicas, config.search.seed
    model, training = study.configuration(best)
    members = {
        BEST: (model, best.parameters, best.label),
        BASELINE: (
            dataclasses.replace(model, beta=1.0, beta_norm=None),
            {key: value for key, value in best.parameters.items() if key not in ("model.beta", "model.beta_norm")},
            f"beta=1 for {best.label}",
        ),
    }
    present = {
        (attributes["member"], attributes["pair"])
        for record, attributes in study.confirmations(best)
        if record.state != "failed"
    }
    for pair in range(seeds):
        fresh = [derive_seed(seed, f"confirm trial {best.number}", pair * replicas + r) for r in range(replicas)]
        for member, (configured, parameters, label) in members.items():
            if (member, pair) not in present:
                add_control(
                    study,
                    "confirm",
                    f"{label}, pair {pair}",
                    configured,
                    training,
                    fresh,
                    derive_seed(seed, "confirm evaluation", pair),
                    parameters=parameters,
                    member=member,
                    pair=pair,
                    trial=best.number,
                )


def _spread(values: tuple[float, ...]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan
