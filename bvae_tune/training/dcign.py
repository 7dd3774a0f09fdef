"""DC-IGN as a learner: a variational autoencoder whose latents are told which factor is theirs (Kulkarni et al., 2015).

Within a mini-batch one factor alone varies, and the learner knows which. Sec. 3.2 of Kulkarni et al.:

- forward, the latents of all other factors are clamped: every image's is replaced by its mean over the batch, so what
  differs between the images can pass through the latents of the varying factor only;
- backward, the gradient of a clamped latent is replaced by its difference from that mean, times 1/100 (their factor),
  which draws it together over images that differ in nothing of its concern.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from bvae_tune.data.factors import FactorSpace
from bvae_tune.data.image_store import ImageStore
from bvae_tune.models.config import FACTOR_LATENTS, ModelConfig, check_factors
from bvae_tune.models.likelihoods import kl_divergence, reconstruction_loss
from bvae_tune.training.batches import Batch
from bvae_tune.training.config import TrainingConfig, beta_share_at, check_training
from bvae_tune.training.vae import BetaVAE, StepLosses

INVARIANCE: Final = 1 / 100


def factor_grid(model: ModelConfig, store: ImageStore) -> FactorSpace:
    """The grid of the images' factors that have more than one value.

    Raises:
        InputError: the images are not the complete grid of the five factors.
    """
    space = store.factor_space
    check_factors(model, store.varying_factors, space is not None)
    assert space is not None
    return space.varying


class DCIGN(BetaVAE):
    """Minimises reconstruction + β KL with clamped latents; batches say which factor varies (`OneFactorBatches`).

    One latent each is for scale, position_x, position_y and rotation, five are for shape (Fig. 6C). A clamped latent is
    its posterior mean, without noise; neither reconstruction nor KL reaches it. The tenth latent belongs to no factor:
    it is clamped in every batch, and besides the invariance gradient it has that of its KL at all times, which takes
    it to the prior. So it carries nothing, and its KL of next to nothing says so.

    Args:
        as for `BetaVAE`.

    Raises:
        InputError: the images are not the complete grid of the five factors, or not 64x64, or the training is not in
            float32.
    """

    def __init__(
        self,
        model: ModelConfig,
        training: TrainingConfig,
        store: ImageStore,
        betas: Sequence[float],
        device: str,
    ) -> None:
        check_training(model, training)
        super().__init__(model, training, store, betas, device)
        names = factor_grid(model, store).names
        belongs = torch.zeros(len(names), model.latent_size, dtype=torch.bool)
        for factor, name in enumerate(names):
            belongs[factor, list(FACTOR_LATENTS[name])] = True
        self._belongs: Tensor = belongs.to(device)
        self._unowned: Tensor = ~self._belongs.any(0)

    @torch.no_grad()
    def gradients(self, batch: Batch, step: int) -> tuple[dict[str, Tensor], StepLosses]:
        """Gradients of each replica, name -> (R, ...), and the losses.

        The reconstruction is that from the clamped codes; the KL is that of all latents.
        """
        assert batch.factor is not None
        images = self._store.gather(batch.indices, self._device)
        noise = self.noise(step)
        betas = self._betas[:, None, None] * beta_share_at(self._training, step)
        free = self._belongs[batch.factor][:, None]  # (R, 1, M)
        encoder, decoder = self._network.encoder, self._network.decoder
        parameters = self._parameters

        encoded = encoder.forward(parameters, images)
        mean, logvar = encoded[-1].chunk(2, dim=-1)
        deviation = (0.5 * logvar).exp()
        centre = mean.mean(1, keepdim=True)
        codes = torch.where(free, mean + noise * deviation, centre)
        decoded = decoder.forward(parameters, codes)
        reconstruction, to_outputs = reconstruction_loss(self._config, decoded[-1], images)
        kl = kl_divergence(mean, logvar)

        # The loss is a mean over the batch: each image's gradient is divided by its size.
        share = 1 / images.shape[1]
        to_codes, of_decoder = decoder.backward(parameters, decoded, to_outputs.mul_(share), True)
        assert to_codes is not None
        weights = betas * (free | self._unowned)
        to_mean = torch.where(free, to_codes, INVARIANCE * share * (mean - centre)) + weights * share * mean
        from_codes = torch.where(free, to_codes * noise * deviation, 0)
        to_logvar = 0.5 * (from_codes + weights * share * (deviation.square() - 1))
        to_encoded = torch.cat([to_mean, to_logvar], dim=-1)
        _, of_encoder = encoder.backward(parameters, encoded, to_encoded, False)
        return of_encoder | of_decoder, StepLosses(reconstruction.mean(1), kl.mean(1))
