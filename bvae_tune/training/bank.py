"""R replicas of one configuration, trained as one program."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bvae_tune.data.image_store import ImageStore
from bvae_tune.errors import InputError, RunError
from bvae_tune.models.codes import Codes, Trained
from bvae_tune.models.config import ModelConfig, beta_of
from bvae_tune.models.stack import some_of
from bvae_tune.training.batches import BatchPlan, OneFactorBatches, UniformBatches
from bvae_tune.training.config import TrainingConfig
from bvae_tune.training.dcign import DCIGN, factor_grid
from bvae_tune.training.infogan import InfoGAN
from bvae_tune.training.memory import OUT_OF_MEMORY_ADVICE, is_out_of_memory, keep_freed_memory
from bvae_tune.training.state import ALL, on_host
from bvae_tune.training.vae import BetaVAE, Learner, StepLosses, joined

__all__ = ["Bank", "TrainingConfig", "TrainingReport"]


@dataclass(frozen=True)
class TrainingReport:
    """What one call of `Bank.train` did. Losses are means over its steps, in nats per image.

    Attributes:
        step: steps trained in all.
        images_seen: by each replica, in all.
        seconds: wall time of the call.
        images_per_second: over all replicas; 0 where no step was taken.
        loss: reconstruction + β KL per replica (R,), with β's final value where it is annealed; like the next three
            empty for InfoGAN. DC-IGN minimises the KL of a step's free latents only, this one has that of all.
        reconstruction: per replica (R,).
        kl: summed over latents, per replica (R,).
        kl_per_latent: (R, M).
        notice: what a person should know (replicas trained in turns for lack of memory, a precision that the processor
            is slow at), or None.
        further_losses: of models that have others, by name, each per replica (R,).
    """

    step: int
    images_seen: int
    seconds: float
    images_per_second: float
    loss: tuple[float, ...]
    reconstruction: tuple[float, ...]
    kl: tuple[float, ...]
    kl_per_latent: tuple[tuple[float, ...], ...]
    notice: str | None = None
    further_losses: dict[str, tuple[float, ...]] = field(default_factory=dict)


class Bank:
    """R replicas of one configuration; an Encoder and a Decoder as well.

    Args:
        model: the network; its β is used where `betas` is None.
        seeds: one replica each. A replica's numbers depend on its own seed only, never on its neighbours.
        betas: β of each replica, in place of the model's; none for a model without β.
        device: "cpu", "cuda", ...
        together: replicas computed at once; the others wait until these have made all steps that a call of `train`
            asks for, with the same result but for rounding. None: all on a GPU, one on a CPU, where that measured best.
            Of InfoGAN it is always one. A step that runs out of memory goes on with half as many.

    Raises:
        InputError: no seed, another number of betas than seeds, no β at all, or images the architecture cannot take or
            cannot learn from.

    Attributes:
        step_count: steps trained in all, by calls of `train` that have ended.
        finite: (R,) whether every loss, parameter and value of the optimiser's state of a replica has been finite.
    """

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig,
        store: ImageStore,
        seeds: Sequence[int],
        betas: Sequence[float] | None = None,
        device: str = "cpu",
        together: int | None = None,
    ) -> None:
        if betas is None:
            betas = [beta_of(model, store.dimensions)] * len(seeds) if model.has_beta else []
        if not seeds or len(betas) != len(seeds) * model.has_beta:
            raise InputError(f"a bank takes one β per seed, at least one: {len(seeds)} seeds, {len(betas)} betas")
        keep_freed_memory()
        self.model, self.training, self.seeds, self.betas = model, training, tuple(seeds), tuple(betas)
        self.device = device
        self.step_count = 0
        self.finite = (True,) * len(seeds)
        self._batches = _batch_plan(model, training, store, device)
        if model.architecture == "infogan":
            together = 1  # its step cannot be made again where memory runs out in the middle
        elif together is None:
            together = 1 if torch.device(device).type == "cpu" else len(seeds)
        self._wanted = self._together = min(together, len(seeds))
        self._learner = _learner(model, training, store, betas, device)
        self._learner.init(seeds)

    def train(self, until_step: int) -> TrainingReport:
        """Train up to step `until_step` (no further than asked; nothing where it is reached) and report.

        A replica that diverges does not raise: `finite` is False for it from then on. Where no step is left, the losses
        are those of the batch that would come next.

        Raises:
            RunError: out of memory even with one replica at a time.

        After an error the replicas stand at different steps: load a state before going on.
        """
        began, first = time.perf_counter(), self.step_count
        total = self._in_turns(slice(0, len(self.seeds)), first, until_step)
        self.step_count = max(first, until_step)
        return self._report(total, self.step_count - first, began)

    def _in_turns(self, replicas: slice, first: int, until: int) -> StepLosses:
        """As many replicas at once as may be, through all steps: on a CPU their weights then stay in the cache."""
        parts, start = [], replicas.start
        while start < replicas.stop:
            turn = slice(start, min(start + self._together, replicas.stop))
            parts.append(self._at_once(turn, first, until))
            start = turn.stop
        return joined(parts)

    def _at_once(self, replicas: slice, first: int, until: int) -> StepLosses:
        learner, seeds = self._learner.only(replicas), self.seeds[replicas]
        total: StepLosses | None = None
        for step in range(first, until):
            losses = self._step(learner, seeds, step)
            if losses is None:
                if len(seeds) == 1:
                    what = f"one replica at a time and training.batch_size {self.training.batch_size:,}"
                    raise RunError(f"out of memory at step {step} with {what}; {OUT_OF_MEMORY_ADVICE}")
                self._together = (len(seeds) + 1) // 2
                rest = self._in_turns(replicas, step, until)
                return rest if total is None else total + rest
            total = losses if total is None else total + losses
        if total is None:
            return learner.losses(self._batches.batch(first, seeds), first)
        return total

    def _step(self, learner: Learner, seeds: Sequence[int], step: int) -> StepLosses | None:
        """None where memory ran out; the error ends here, since it would hold what the step has allocated."""
        try:
            return learner.step(self._batches.batch(step, seeds), step)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _report(self, total: StepLosses, steps: int, began: float) -> TrainingReport:
        reconstruction = (total.reconstruction.double() / max(1, steps)).cpu()
        kl_per_latent = (total.kl_per_latent.double() / max(1, steps)).cpu()
        kl = kl_per_latent.sum(1)
        loss = reconstruction + torch.tensor(self.betas, dtype=torch.float64) * kl
        further = {name: (values.double() / max(1, steps)).cpu() for name, values in total.further.items()}
        seconds = time.perf_counter() - began
        self.finite = self._still_finite([losses for losses in (loss, *further.values()) if len(losses)])
        batch = self.training.batch_size
        return TrainingReport(
            step=self.step_count,
            images_seen=self.step_count * batch,
            seconds=seconds,
            images_per_second=steps * batch * len(self.seeds) / seconds,
            loss=tuple(loss.tolist()),
            reconstruction=tuple(reconstruction.tolist()),
            kl=tuple(kl.tolist()),
            kl_per_latent=tuple(tuple(row) for row in kl_per_latent.tolist()),
            notice=self._notice(),
            further_losses={name: tuple(losses.tolist()) for name, losses in further.items()},
        )

    def _notice(self) -> str | None:
        parts = []
        if self._together != self._wanted:
            parts.append(
                f"out of memory with {self._wanted} replicas of the bank at once: trained in turns of {self._together}"
            )
        if self.training.precision == "bfloat16" and not has_bfloat16(self.device):
            parts.append("this processor has no bfloat16 products: training.precision float32 is several times faster")
        return "; ".join(parts) or None

    def _still_finite(self, losses: Sequence[Tensor]) -> tuple[bool, ...]:
        # Where a squared gradient overflows, the loss stays finite, but its weight never moves again.
        finite = [_finite(values).cpu() for values in self._learner.tensors.values()]
        finite += [each.isfinite() for each in losses]
        return tuple((torch.stack(finite).all(0) & torch.tensor(self.finite)).tolist())

    def trained(self, replicas: slice = ALL) -> Trained:
        """Encoder and decoder of some replicas, as they are now: views, not copies."""
        return self._learner.model.only(replicas)

    def encode(self, images: Tensor) -> Codes:
        """Images (R or 1, n, D) in [0, 1] -> codes (R, n, M)."""
        return self._learner.model.encode(images)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (R, n, M) -> images (R, n, D) in [0, 1]."""
        return self._learner.model.decode(codes)

    def weights(self, replicas: slice = ALL) -> dict[str, Tensor]:
        """Parameters of some replicas, name -> (R, ...) float32, copies on the host; `load_model` takes them."""
        return on_host(self.trained(replicas).parameters)

    def state(self, replicas: slice = ALL) -> dict[str, Tensor]:
        """Parameters, optimiser state and step of some replicas, flat, copies on the host."""
        return {**on_host(some_of(self._learner.tensors, replicas)), "step": torch.tensor(self.step_count)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, with the same numbers as if never interrupted.

        Raises:
            InputError: the state belongs to another configuration or another number of replicas.
        """
        self._learner.load({name: values for name, values in state.items() if name != "step"})
        self.step_count = int(state["step"])


def _finite(values: Tensor) -> Tensor:
    """(R, ...) -> (R,), whether all are finite. A sum tells so in a thirtieth of the time, unless it overflows."""
    finite = values.sum(dim=tuple(range(1, values.ndim))).isfinite()
    return finite if finite.all() else values.isfinite().flatten(1).all(1)


def _batch_plan(model: ModelConfig, training: TrainingConfig, store: ImageStore, device: str) -> BatchPlan:
    if model.architecture == "dcign":
        return OneFactorBatches(factor_grid(model, store), training.batch_size, device)
    return UniformBatches(store.count, training.batch_size, device)


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware; every GPU counts as if it did."""
    if torch.device(device).type != "cpu":
        return True
    return any(there for name, there in torch.cpu.get_capabilities().items() if "bf16" in name)


def _learner(
    model: ModelConfig,
    training: TrainingConfig,
    store: ImageStore,
    betas: Sequence[float],
    device: str,
) -> Learner:
    if model.architecture == "infogan":
        return InfoGAN(model, training, store, device)
    learner = DCIGN if model.architecture == "dcign" else BetaVAE
    return learner(model, training, store, betas, device)
