"""The β-VAE as a learner: Eq. 4, one step at a time, for R replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bvae_tune.data.image_store import ImageStore
from bvae_tune.models.codes import Trained
from bvae_tune.models.config import ModelConfig
from bvae_tune.models.likelihoods import kl_divergence, reconstruction_loss
from bvae_tune.models.networks import TrainedModel, build_network, initial_parameters
from bvae_tune.models.stack import some_of
from bvae_tune.training.batches import BLOCK_STEPS, Batch, StepNumbers
from bvae_tune.training.config import TrainingConfig, beta_share_at, learning_rate_at
from bvae_tune.training.memory import is_out_of_memory
from bvae_tune.training.optimizers import Optimizer, build_optimizer, initial_slots
from bvae_tune.training.state import named, take_over


@dataclass(frozen=True)
class StepLosses:
    """Means over the batch of one step, on the device, in nats: reconstruction (R,), KL per latent (R, M).

    A model without them leaves both empty, and names its own losses, (R,) each, in `further`.
    """

    reconstruction: Tensor = field(default_factory=lambda: torch.empty(0))
    kl_per_latent: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    further: Mapping[str, Tensor] = field(default_factory=dict)


class Learner(Protocol):
    """What a bank trains. It owns its losses and its optimisers."""

    together: int

    @property
    def model(self) -> Trained:
        """The encoder and decoder as they are now."""
        ...

    def init(self, seeds: Sequence[int]) -> None:
        """Fresh parameters and optimiser state, one replica per seed."""
        ...

    def step(self, batch: Batch, step: int) -> StepLosses:
        """One update of all replicas; the losses are those before it."""
        ...

    def losses(self, batch: Batch, step: int) -> StepLosses:
        """The losses of a batch, without an update."""
        ...

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters (model/...) and optimiser state (optimizer/slot/...), (R, ...) each: not copies."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state with the names of `tensors`."""
        ...


@dataclass(frozen=True)
class Turn:
    """Replicas computed at once: views of their parameters and of their optimiser's state."""

    replicas: slice
    parameters: dict[str, Tensor]
    optimizer: Optimizer


class BetaVAE:
    """Minimises reconstruction + β KL, each summed over pixels or latents and averaged over the batch (Eq. 4).

    Args:
        model: the network and its likelihood.
        training: optimiser, schedule and precision.
        store: the images.
        betas: β of each replica.
        device: "cpu", "cuda", ...
        together: replicas computed at once. The others wait their turn within the step, with the same result; a step
            that runs out of memory goes on with half as many.
    """

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig,
        store: ImageStore,
        betas: Sequence[float],
        device: str,
        together: int,
    ) -> None:
        self._config, self._training, self._store, self._device = model, training, store, device
        self._network = build_network(model, store.channels, store.height, store.width)
        self._betas = torch.tensor(betas, dtype=torch.float32, device=device)
        self._precision = torch.bfloat16 if training.precision == "bfloat16" else torch.float32
        self.together = together

        def draw(numbers: np.random.Generator) -> npt.NDArray[np.float32]:
            return numbers.standard_normal((BLOCK_STEPS, training.batch_size, model.latent_size), dtype=np.float32)

        self._noise = StepNumbers("latent noise", draw, device)

    def init(self, seeds: Sequence[int]) -> None:
        """Fresh parameters and optimiser state, one replica per seed."""
        self._seeds = tuple(seeds)
        self._parameters = initial_parameters(self._network, seeds, self._device)
        self._slots = initial_slots(self._training, self._parameters)
        self.turns = self._turns_from(0)

    def _turns_from(self, first: int) -> list[Turn]:
        turns = []
        for start in range(first, len(self._seeds), self.together):
            some = slice(start, start + self.together)
            parameters = some_of(self._parameters, some)
            slots = {slot: some_of(held, some) for slot, held in self._slots.items()}
            turns.append(Turn(some, parameters, build_optimizer(self._training, parameters, slots)))
        return turns

    @property
    def model(self) -> TrainedModel:
        """The encoder and decoder as they are now."""
        return TrainedModel(self._config, self._network, self._parameters)

    def step(self, batch: Batch, step: int) -> StepLosses:
        """One update of all replicas; the losses are those before it.

        Raises:
            RuntimeError, MemoryError: out of memory with one replica at a time; those before it have made their step.
        """
        learning_rate = learning_rate_at(self._training, step)
        turns: list[Turn] = self.turns
        parts: list[StepLosses] = []
        while turns:
            try:
                gradients, losses = self.gradients(turns[0], batch, step)
                turns[0].optimizer.step(list(gradients.values()), learning_rate, step)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.together == 1:
                    raise
                self.together = (self.together + 1) // 2
                self.turns, turns = self._turns_from(0), self._turns_from(turns[0].replicas.start)
            else:
                parts.append(losses)
                turns = turns[1:]
        return _joined(parts)

    def losses(self, batch: Batch, step: int) -> StepLosses:
        """The losses of a batch, without an update."""
        return _joined([self.gradients(turn, batch, step)[1] for turn in self.turns])

    def noise(self, step: int) -> Tensor:
        """The normal numbers (R, B, M) that spread the codes of step `step`."""
        return self._noise.at(step, self._seeds)

    @torch.no_grad()
    def gradients(self, turn: Turn, batch: Batch, step: int) -> tuple[dict[str, Tensor], StepLosses]:
        """Gradients of the loss of each replica of `turn`, name -> (those, ...), and the losses."""
        images = self._store.gather(batch.indices[turn.replicas], self._device)
        noise = self.noise(step)[turn.replicas]
        betas = self._betas[turn.replicas, None, None] * beta_share_at(self._training, step)
        encoder, decoder = self._network.encoder, self._network.decoder
        parameters = {name: values.to(self._precision) for name, values in turn.parameters.items()}

        encoded = encoder.forward(parameters, images.to(self._precision))
        mean, logvar = encoded[-1].float().chunk(2, dim=-1)
        deviation = (0.5 * logvar).exp()
        decoded = decoder.forward(parameters, (mean + noise * deviation).to(self._precision))
        reconstruction, to_outputs = reconstruction_loss(self._config, decoded[-1], images)
        kl = kl_divergence(mean, logvar)

        # The loss is a mean over the batch: each image's gradient is divided by its size.
        share = 1 / images.shape[1]
        to_codes, of_decoder = decoder.backward(parameters, decoded, to_outputs.mul_(share).to(self._precision), True)
        assert to_codes is not None
        to_mean = to_codes + betas * share * mean
        to_logvar = 0.5 * (to_codes * noise * deviation + betas * share * (deviation.square() - 1))
        to_encoded = torch.cat([to_mean, to_logvar], dim=-1).to(self._precision)
        _, of_encoder = encoder.backward(parameters, encoded, to_encoded, False)
        return of_encoder | of_decoder, StepLosses(reconstruction.mean(1), kl.mean(1))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters (model/...) and optimiser state (optimizer/slot/...), (R, ...) each: not copies."""
        return named(self._parameters, self._slots)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state with the names of `tensors`.

        Raises:
            InputError: the state belongs to another configuration or another number of replicas.
        """
        take_over(self.tensors, self._network.specs, state)


def _joined(parts: Sequence[StepLosses]) -> StepLosses:
    if len(parts) == 1:
        return parts[0]
    return StepLosses(
        torch.cat([part.reconstruction for part in parts]), torch.cat([part.kl_per_latent for part in parts])
    )
