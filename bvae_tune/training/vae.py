"""The β-VAE as a learner: Eq. 4, one step at a time, for R replicas."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

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
from bvae_tune.training.optimizers import Slots, build_optimizer, initial_slots, slots_of
from bvae_tune.training.state import named, take_over


@dataclass(frozen=True)
class StepLosses:
    """Means over the batch, on the device, in nats: reconstruction (R,), KL per latent (R, M). Steps may be summed.

    A model without them leaves both empty, and names its own losses, (R,) each, in `further`.
    """

    reconstruction: Tensor = field(default_factory=lambda: torch.empty(0))
    kl_per_latent: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    further: Mapping[str, Tensor] = field(default_factory=dict)

    def __add__(self, other: StepLosses) -> StepLosses:
        """Sums, float64."""
        return StepLosses(
            self.reconstruction.double() + other.reconstruction,
            self.kl_per_latent.double() + other.kl_per_latent,
            {name: values.double() + other.further[name] for name, values in self.further.items()},
        )


def joined(parts: Sequence[StepLosses]) -> StepLosses:
    """The losses of replicas that were computed apart."""
    return StepLosses(
        torch.cat([part.reconstruction for part in parts]),
        torch.cat([part.kl_per_latent for part in parts]),
        {name: torch.cat([part.further[name] for part in parts]) for name in parts[0].further},
    )


class Learner(Protocol):
    """What a bank trains. It owns its losses and its optimisers."""

    @property
    def model(self) -> Trained:
        """The encoder and decoder as they are now."""
        ...

    def init(self, seeds: Sequence[int]) -> None:
        """Fresh parameters and optimiser state, one replica per seed."""
        ...

    def only(self, replicas: slice) -> Self:
        """A learner of some of the replicas, over the same tensors."""
        ...

    def step(self, batch: Batch, step: int) -> StepLosses:
        """One update of all replicas; the losses are those before it.

        Where memory runs out nothing has changed. A learner that cannot promise that is given one replica at a time.
        """
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


class BetaVAE:
    """Minimises reconstruction + β KL, each summed over pixels or latents and averaged over the batch (Eq. 4).

    Args:
        model: the network and its likelihood.
        training: optimiser, schedule and precision.
        store: the images.
        betas: β of each replica.
        device: "cpu", "cuda", ...
    """

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig,
        store: ImageStore,
        betas: Sequence[float],
        device: str,
    ) -> None:
        self._config, self._training, self._store, self._device = model, training, store, device
        self._network = build_network(model, store.channels, store.height, store.width)
        self._betas = torch.tensor(betas, dtype=torch.float32, device=device)
        self._precision = torch.bfloat16 if training.precision == "bfloat16" else torch.float32

        def draw(numbers: np.random.Generator) -> npt.NDArray[np.float32]:
            return numbers.standard_normal((BLOCK_STEPS, training.batch_size, model.latent_size), dtype=np.float32)

        self._noise = StepNumbers("latent noise", draw, device)

    def init(self, seeds: Sequence[int]) -> None:
        """Fresh parameters and optimiser state, one replica per seed."""
        self._seeds = tuple(seeds)
        parameters = initial_parameters(self._network, seeds, self._device)
        self._hold(parameters, initial_slots(self._training, parameters))

    def only(self, replicas: slice) -> Self:
        """A learner of some of the replicas, over the same tensors."""
        some = copy.copy(self)
        some._seeds, some._betas = self._seeds[replicas], self._betas[replicas]
        some._hold(some_of(self._parameters, replicas), slots_of(self._slots, replicas))
        return some

    def _hold(self, parameters: dict[str, Tensor], slots: Slots) -> None:
        self._parameters, self._slots = parameters, slots
        self._optimizer = build_optimizer(self._training, parameters, slots)

    @property
    def model(self) -> TrainedModel:
        """The encoder and decoder as they are now."""
        return TrainedModel(self._config, self._network, self._parameters)

    def step(self, batch: Batch, step: int) -> StepLosses:
        """One update of all replicas; the losses are those before it.

        Raises:
            RuntimeError, MemoryError: out of memory; nothing has changed (but see `RMSprop`).
        """
        gradients, losses = self.gradients(batch, step)
        self._optimizer.step(list(gradients.values()), learning_rate_at(self._training, step), step)
        return losses

    def losses(self, batch: Batch, step: int) -> StepLosses:
        """The losses of a batch, without an update."""
        return self.gradients(batch, step)[1]

    def noise(self, step: int) -> Tensor:
        """The normal numbers (R, B, M) that spread the codes of step `step`."""
        return self._noise.at(step, self._seeds)

    @torch.no_grad()
    def gradients(self, batch: Batch, step: int) -> tuple[dict[str, Tensor], StepLosses]:
        """Gradients of the loss of each replica, name -> (R, ...), and the losses."""
        images = self._store.gather(batch.indices, self._device)
        noise = self.noise(step)
        betas = self._betas[:, None, None] * beta_share_at(self._training, step)
        encoder, decoder = self._network.encoder, self._network.decoder
        parameters = {name: values.to(self._precision) for name, values in self._parameters.items()}

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
