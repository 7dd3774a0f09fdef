"""InfoGAN as a learner (Table 1, Sec. A.2): generator against discriminator, with a bound on the information of codes.

A step draws images from uniform latents, then

- the discriminator and the recognition network take one Adam step on -log D(x) - log(1 - D(G(z, c))) - λ L_I,
- the generator takes one on -log D(G(z, c)) - λ L_I, judged by the discriminator as it now is,

where L_I is the bound of `information_bound` (Chen et al., 2016, Eqs. 5 and 6). λ is 0.1, theirs for five continuous
codes; neither paper gives it for 2D shapes. Every batch that the discriminator sees has instance noise of standard
deviation 0.2 added (A.2), and real and drawn images are normalised each by their own batch. The running statistics of
discriminator and recognition are those of real images without that noise, since such images are what is encoded.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from bvae_tune.data.image_store import ImageStore
from bvae_tune.models.config import ModelConfig, check_image_size
from bvae_tune.models.infogan import (
    CODES,
    NOISE,
    GenerativeNetwork,
    TrainedInfoGAN,
    information_bound,
    is_statistic,
    replica_of,
)
from bvae_tune.models.layers import ParameterSpec
from bvae_tune.models.networks import initial_parameters
from bvae_tune.models.stack import some_of
from bvae_tune.randomness import derive_seed
from bvae_tune.training.batches import BLOCK_STEPS, Batch, StepNumbers
from bvae_tune.training.config import TrainingConfig, check_training, learning_rate_at
from bvae_tune.training.optimizers import Adam, Slots, initial_slots, slots_of
from bvae_tune.training.state import named, take_over
from bvae_tune.training.vae import StepLosses, joined

INFORMATION_WEIGHT: Final = 0.1
INSTANCE_NOISE: Final = 0.2
DISCRIMINATOR_SHARE: Final = 0.2  # of the learning rate: 2e-4 where the generator has 1e-3 (Table 1)
MEAN_DECAY: Final = 0.5  # of Adam, as in Radford et al. (2015)


class InfoGAN:
    """Trains R replicas, one after the other within a step; a bank gives it one at a time.

    Its losses per step are `discriminator`, `generator` (nats per image, without the information) and
    `mutual information bound` (nats): a discriminator loss near 0, a generator loss that climbs, or a bound that falls
    are how its instability shows.

    Args:
        model: the widths.
        training: learning rate of the generator, schedule and batch size.
        store: the images.
        device: "cpu", "cuda", ...

    Raises:
        InputError: images that are not 64x64, or a training that this model does not have.
    """

    def __init__(self, model: ModelConfig, training: TrainingConfig, store: ImageStore, device: str) -> None:
        check_image_size(model, store.height, store.width)
        check_training(model, training)
        self._training, self._store, self._device = training, store, device
        self._network = GenerativeNetwork(model.layer_widths, store.channels)

        def draw(numbers: np.random.Generator) -> npt.NDArray[np.float32]:
            uniform = numbers.random((BLOCK_STEPS, training.batch_size, NOISE + CODES), dtype=np.float32)
            return 2 * uniform - 1

        self._latents = StepNumbers("generator latents", draw, device)

    def init(self, seeds: Sequence[int]) -> None:
        """Fresh parameters and optimiser state, one replica per seed."""
        self._seeds = tuple(seeds)
        parameters = initial_parameters(self._network, seeds, self._device)
        trained = {name: values for name, values in parameters.items() if not is_statistic(name)}
        self._hold(parameters, initial_slots(self._training, trained))

    def only(self, replicas: slice) -> Self:
        """A learner of some of the replicas, over the same tensors."""
        some = copy.copy(self)
        some._seeds = self._seeds[replicas]
        some._hold(some_of(self._parameters, replicas), slots_of(self._slots, replicas))
        return some

    def _hold(self, parameters: dict[str, Tensor], slots: Slots) -> None:
        self._parameters, self._slots = parameters, slots
        self._generators = [self._optimizer(self._network.generator_specs, r) for r in range(len(self._seeds))]
        self._inferences = [self._optimizer(self._network.inference_specs, r) for r in range(len(self._seeds))]

    def _optimizer(self, specs: Mapping[str, ParameterSpec], replica: int) -> Adam:
        names = [name for name in specs if not is_statistic(name)]
        slots = {slot: {name: held[name][replica] for name in names} for slot, held in self._slots.items()}
        return Adam({name: self._parameters[name][replica] for name in names}, slots, MEAN_DECAY)

    @property
    def model(self) -> TrainedInfoGAN:
        """The encoder and decoder as they are now."""
        return TrainedInfoGAN(self._network, self._parameters)

    def step(self, batch: Batch, step: int) -> StepLosses:
        """One update of all networks; the generator's loss is that against the discriminator after its own update."""
        return joined([self._play(replica, batch, step, update=True) for replica in range(len(self._seeds))])

    def losses(self, batch: Batch, step: int) -> StepLosses:
        """The losses of a batch, without an update of parameters or running statistics."""
        return joined([self._play(replica, batch, step, update=False) for replica in range(len(self._seeds))])

    def _play(self, replica: int, batch: Batch, step: int, update: bool) -> StepLosses:
        network = self._network
        rate = learning_rate_at(self._training, step)
        parameters = {
            name: values if is_statistic(name) else values.detach().requires_grad_()
            for name, values in replica_of(self._parameters, replica).items()
        }
        images = 2 * self._store.gather(batch.indices[replica], self._device) - 1
        latents = self.latents(step)[replica]
        noise_real, noise_drawn, noise_redrawn = self.instance_noise(replica, step)

        drawn = network.generate(parameters, latents, "tracked" if update else "batch")
        if update:
            with torch.no_grad():  # for the running statistics
                network.recognise(parameters, network.features(parameters, images, "tracked"), "tracked")
        of_real = network.features(parameters, images + noise_real, "batch")
        of_drawn = network.features(parameters, drawn.detach() + noise_drawn, "batch")
        discriminator = functional.softplus(-network.judge(parameters, of_real)).mean()
        discriminator = discriminator + functional.softplus(network.judge(parameters, of_drawn)).mean()
        bound = self._bound(parameters, of_drawn, latents)
        if update:
            loss = discriminator - INFORMATION_WEIGHT * bound
            gradients = _gradients(loss, parameters, network.inference_specs)
            self._inferences[replica].step(gradients, DISCRIMINATOR_SHARE * rate, step)

        of_drawn = network.features(parameters, drawn + noise_redrawn, "batch")
        generator = functional.softplus(-network.judge(parameters, of_drawn)).mean()
        if update:
            loss = generator - INFORMATION_WEIGHT * self._bound(parameters, of_drawn, latents)
            gradients = _gradients(loss, parameters, network.generator_specs)
            self._generators[replica].step(gradients, rate, step)
        found = {"discriminator": discriminator, "generator": generator, "mutual information bound": bound}
        return StepLosses(further={name: value.detach()[None] for name, value in found.items()})

    def _bound(self, parameters: Mapping[str, Tensor], features: Tensor, latents: Tensor) -> Tensor:
        means = self._network.recognise(parameters, features, "batch")
        return information_bound(means, parameters["recognition.logvar"], latents[:, NOISE:])

    def latents(self, step: int) -> Tensor:
        """The z and c, side by side (R, B, 10), from which step `step` draws its images."""
        return self._latents.at(step, self._seeds)

    def instance_noise(self, replica: int, step: int) -> Tensor:
        """What step `step` adds to the discriminator's batches (3, B, D): real, drawn, and drawn for the generator."""
        numbers = torch.Generator(self._device).manual_seed(derive_seed(self._seeds[replica], "instance noise", step))
        shape = (3, self._training.batch_size, self._store.dimensions)
        return INSTANCE_NOISE * torch.randn(shape, generator=numbers, device=self._device)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters, running statistics (model/...), optimiser state (optimizer/...), (R, ...) each: not copies."""
        return named(self._parameters, self._slots)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state with the names of `tensors`.

        Raises:
            InputError: the state belongs to another configuration or another number of replicas.
        """
        take_over(self.tensors, self._network.specs, state)


def _gradients(loss: Tensor, parameters: Mapping[str, Tensor], specs: Mapping[str, ParameterSpec]) -> list[Tensor]:
    trained = [parameters[name] for name in specs if not is_statistic(name)]
    return list(torch.autograd.grad(loss, trained))
