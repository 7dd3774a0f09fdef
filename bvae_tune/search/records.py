"""What the record says of a trial: frozen data, read from Optuna's trials and from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from bvae_tune.metrics.agreement import INFORMATIVE_KL
from bvae_tune.metrics.protocol import TrialScore
from bvae_tune.models.config import ModelConfig, beta_norm_of, beta_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Kind = Literal["search", "baseline", "confirm"]
State = Literal["complete", "pruned", "failed", "running", "interrupted", "waiting"]

FINISHED: tuple[State, ...] = ("complete", "pruned", "failed")
STATES: Mapping[str, State] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}


@dataclass(frozen=True)
class TrialResult:
    """One report of a trial: its evaluation after `step` training steps, and what training cost so far.

    Attributes:
        step: training steps of each replica.
        images_seen: by each replica.
        score: the evaluation.
        reconstruction: per replica (R,), nats per image, mean since the report before; empty for InfoGAN.
        kl: per replica (R,), nats per image, summed over latents, mean since the report before; empty for InfoGAN.
        kl_per_latent: (R, M), nats per image; empty for InfoGAN.
        images_per_second: over all replicas, since the report before.
        seconds_training: wall time spent training, over the whole trial; of a bank of several trials its share.
        seconds_evaluating: wall time spent encoding and scoring, over the whole trial.
        notice: what a person should know of this trial, as that memory allowed only one replica at a time.
        further_losses: of models that have others, by name, each per replica (R,), mean since the report before.
    """

    step: int
    images_seen: int
    score: TrialScore
    reconstruction: tuple[float, ...]
    kl: tuple[float, ...]
    kl_per_latent: tuple[tuple[float, ...], ...]
    images_per_second: float
    seconds_training: float
    seconds_evaluating: float
    notice: str | None = None
    further_losses: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def collapsed(self) -> bool:
        """Whether every latent of every replica is switched off, each KL below INFORMATIVE_KL.

        A code drawn from such a posterior is noise, however well a classifier reads what is left in the means.
        """
        return bool(self.kl_per_latent) and max(map(max, self.kl_per_latent)) < INFORMATIVE_KL

    def to_dict(self) -> dict[str, Any]:
        """Plain data, safe for JSON."""
        return {**asdict(self), "score": self.score.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialResult:
        """What `to_dict` gave, also after a way through JSON."""
        # Reports from before there were models with further losses do not name them.
        values = {each.name: data[each.name] for each in fields(cls) if each.name != "further_losses"}
        values["score"] = TrialScore.from_dict(data["score"])
        values["reconstruction"] = tuple(data["reconstruction"])
        values["kl"] = tuple(data["kl"])
        values["kl_per_latent"] = tuple(tuple(row) for row in data["kl_per_latent"])
        values["further_losses"] = {name: tuple(losses) for name, losses in data.get("further_losses", {}).items()}
        return cls(**values)


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the record has it.

    Attributes:
        number: counted from 0, searched trials and controls (baselines, confirmations) each on their own.
        kind: "search", "baseline" or "confirm".
        label: what a person calls it: "trial 7", "untrained", "beta=1", "trial 7, pair 2".
        state: how it stands; "interrupted" if it has begun, has not ended, and nobody drives its study.
        parameters: searched values by dotted key, as `model.beta`.
        beta, beta_norm, latent_size: of its model (beta_norm = beta M / N, Sec. A.5); NaN for a model without β.
        score: its final score, a share in [0, 1]; None unless complete.
        intermediate: score by training step, every report.
        result: the last report.
        seconds: training and evaluating, wall time; of a bank of several trials its share.
        reason: why it failed.
        keep: whether a control's weights stay when it has ended; of searched trials the best ones' do.
        steps: training steps that a control is to take; a searched trial's follow from the search space.
    """

    number: int
    kind: Kind
    label: str
    state: State
    parameters: dict[str, Any]
    beta: float
    beta_norm: float
    latent_size: int
    score: float | None
    intermediate: dict[int, float]
    result: TrialResult | None
    seconds: float | None
    reason: str | None
    keep: bool = False
    steps: int | None = None

    @property
    def kl(self) -> float | None:
        """The KL reached at the last report: nats per image, summed over latents, mean over replicas; None before one.

        It is the capacity ε of the code that the trial's β implies (Eq. 2, Sec. A.6).
        """
        return sum(self.result.kl) / len(self.result.kl) if self.result and self.result.kl else None

    @property
    def collapsed(self) -> bool:
        """Whether its code is at the last report (see `TrialResult.collapsed`)."""
        return self.result is not None and self.result.collapsed


def objective(result: TrialResult) -> float:
    """What the sampler is told of a trial that has ended: its score, or chance where its code is collapsed."""
    return result.score.chance if result.collapsed else result.score.score


def ranked(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that ended with a score: the highest first, the earlier of equals first, and collapsed ones last.

    What a collapsed code scores does not come back on other seeds.
    """
    complete = [trial for trial in trials if trial.state == "complete" and trial.score is not None]
    return sorted(complete, key=lambda trial: (trial.collapsed, -(trial.score or 0.0), trial.number))


def read_trial(trial: FrozenTrial) -> TrialRecord:
    """The record of one of Optuna's trials, searched or control."""
    attributes = trial.user_attrs
    setting = attributes.get("setting", {})
    result = TrialResult.from_dict(attributes["result"]) if "result" in attributes else None
    kind: Kind = attributes.get("kind", "search")
    return TrialRecord(
        number=trial.number,
        kind=kind,
        label=attributes.get("label", f"trial {trial.number}"),
        state=STATES[trial.state.name],
        parameters=dict(attributes.get("parameters", trial.params)),
        beta=setting.get("beta", float("nan")),
        beta_norm=setting.get("beta_norm", float("nan")),
        latent_size=setting.get("latent_size", 0),
        score=result.score.score if result and trial.state.name == "COMPLETE" else None,
        intermediate=dict(sorted(trial.intermediate_values.items())),
        result=result,
        seconds=result.seconds_training + result.seconds_evaluating if result else None,
        reason=attributes.get("reason"),
        keep=attributes.get("keep", False),
        steps=attributes.get("training", {}).get("steps"),
    )


def setting_of(model: ModelConfig, dimensions: int) -> dict[str, float | int]:
    """What a trial is shown by: M and, where the model has them, β and β_norm = β M / N (Sec. A.5)."""
    setting: dict[str, float | int] = {"latent_size": model.latent_size}
    if model.has_beta:
        setting |= {"beta": beta_of(model, dimensions), "beta_norm": beta_norm_of(model, dimensions)}
    return setting
