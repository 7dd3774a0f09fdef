"""DC-IGN against plain modules and automatic differentiation, and what it learns. Seeds: 3, 7, 5 of the banks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bvae_tune.data.image_store import ImageStore
from bvae_tune.data.sources import import_arrays
from bvae_tune.errors import InputError
from bvae_tune.metrics.mutual_information import information
from bvae_tune.models.config import FACTOR_LATENTS, ModelConfig
from bvae_tune.models.networks import load_model
from bvae_tune.training.bank import Bank
from bvae_tune.training.batches import OneFactorBatches
from bvae_tune.training.checkpoint import from_bytes, to_bytes
from bvae_tune.training.config import TrainingConfig
from bvae_tune.training.dcign import DCIGN

SEEDS, BETAS, B = [3, 7, 5], [1.0, 4.0, 0.5], 8
MODEL = ModelConfig("dcign", (4, 6, 5))


def _training(optimizer: str = "rmsprop", **settings: Any) -> TrainingConfig:
    return TrainingConfig(optimizer, **({"learning_rate": 1e-3, "batch_size": B, "steps": 60} | settings))


def _modules() -> tuple[nn.Sequential, nn.Sequential]:
    """Table 1's DC-IGN for 64x64x1 at a few channels: encoder to 20 values, decoder to logits."""
    encoder = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(5 * 8 * 8, 20),
    )  # fmt: skip
    decoder = nn.Sequential(
        nn.Linear(10, 5 * 8 * 8), nn.ReLU(), nn.Unflatten(1, (5, 8, 8)),
        nn.Upsample(scale_factor=2), nn.Conv2d(5, 6, 3, padding=1), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.Conv2d(6, 4, 3, padding=1), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.Conv2d(4, 1, 3, padding=1), nn.Flatten(),
    )  # fmt: skip
    return encoder, decoder


def _surrogate(
    encoder: nn.Sequential, decoder: nn.Sequential, images: Tensor, noise: Tensor, factor: str, beta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A loss whose gradient is DC-IGN's, with the reconstruction and the KL of each latent."""
    mean, logvar = encoder(images.view(-1, 1, 64, 64)).chunk(2, dim=1)
    free = torch.zeros(10, dtype=torch.bool)
    free[list(FACTOR_LATENTS[factor])] = True
    centre = mean.mean(0).detach()
    logits = decoder(torch.where(free, mean + noise * (0.5 * logvar).exp(), centre))
    reconstruction = functional.binary_cross_entropy_with_logits(logits, images, reduction="sum") / len(images)
    kl = (0.5 * (mean.square() + logvar.exp() - 1 - logvar)).mean(0)
    penalised = free | (torch.arange(10) == 9)
    apart = (0.5 * (mean - centre).square() * ~free).sum() / len(images)
    return reconstruction + beta * kl[penalised].sum() + apart / 100, reconstruction, kl


def test_loss_and_gradients_are_those_of_plain_modules_with_clamped_latents(shapes_grid: ImageStore) -> None:
    learner = DCIGN(MODEL, _training(), shapes_grid, BETAS, "cpu")
    learner.init(SEEDS)
    weights = learner.model.parameters
    space = shapes_grid.factor_space
    assert space is not None
    plan = OneFactorBatches(space, B)
    told = set()
    for step in range(6):
        batch, noise = plan.batch(step, SEEDS), learner.noise(step)
        assert batch.factor is not None
        gradients, losses = learner.gradients(batch, step)
        for replica, beta in enumerate(BETAS):
            encoder, decoder = _modules()
            theirs = [*encoder.parameters(), *decoder.parameters()]
            with torch.no_grad():
                for values, ours in zip(theirs, weights.values(), strict=True):
                    values.copy_(ours[replica])
            factor = space.names[int(batch.factor[replica])]
            told.add(factor)
            images = shapes_grid.gather(batch.indices[replica])
            loss, reconstruction, kl = _surrogate(encoder, decoder, images, noise[replica], factor, beta)
            loss.backward()
            torch.testing.assert_close(losses.reconstruction[replica], reconstruction, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(losses.kl_per_latent[replica], kl, rtol=1e-4, atol=1e-6)
            for ours, values in zip(gradients.values(), theirs, strict=True):
                assert values.grad is not None
                scale = values.grad.abs().max()
                assert scale > 0
                torch.testing.assert_close(ours[replica] / scale, values.grad / scale, rtol=1e-3, atol=1e-4)
    assert told == set(FACTOR_LATENTS)


# RMSprop starts with steps of ten times the rate whatever the gradient, rounding included: together with Adam only.
@pytest.mark.parametrize(("optimizer", "together"), [("rmsprop", 1), ("adam", 2)])
def test_a_replica_in_a_bank_is_the_same_seed_alone(shapes_grid: ImageStore, optimizer: str, together: int) -> None:
    training = _training(optimizer, schedule="cosine", warmup=0.05)
    bank = Bank(MODEL, training, shapes_grid, SEEDS, BETAS, together=together)
    alone = [Bank(MODEL, training, shapes_grid, [seed], [beta]) for seed, beta in zip(SEEDS, BETAS, strict=True)]
    bank.train(1)
    for replica, single in enumerate(alone):
        single.train(1)
        for name, values in single.state().items():
            if name.startswith("optimizer/square/"):  # after one step the squared gradient times a constant
                scale = values.abs().max()
                assert scale > 0
                torch.testing.assert_close(bank.state()[name][replica] / scale, values[0] / scale, rtol=1e-3, atol=1e-4)
    before = bank.weights()
    bank.train(20)
    for replica, single in enumerate(alone):
        single.train(20)
        for name, values in single.weights().items():
            ours = bank.weights()[name][replica]
            # Adam turns the rounding of a gradient near zero into a good part of a step, on some processors more than
            # on others: nearly all elements are within a tenth of a step, and all within a third.
            assert (ours - values[0]).norm() < 0.05 * (ours - before[name][replica]).norm()
            assert torch.isclose(ours, values[0], rtol=1e-3, atol=1e-4).double().mean() > 0.99
            torch.testing.assert_close(ours, values[0], rtol=1e-3, atol=3e-4)
            if together == 1:
                assert torch.equal(ours, values[0])


def test_a_resumed_bank_is_one_never_interrupted(shapes_grid: ImageStore) -> None:
    undisturbed, stopped, resumed = (Bank(MODEL, _training(), shapes_grid, SEEDS[:2]) for _ in range(3))
    undisturbed.train(33)
    expected = undisturbed.train(40)
    stopped.train(33)
    resumed.load(from_bytes(to_bytes(stopped.state(), {}))[0])
    assert resumed.train(40).loss == expected.loss
    for name, values in undisturbed.state().items():
        assert torch.equal(values, resumed.state()[name]), name


def test_other_precisions_are_refused(shapes_grid: ImageStore) -> None:
    with pytest.raises(InputError, match=r"training\.precision: 'bfloat16'; dcign is trained in float32"):
        Bank(MODEL, _training(precision="bfloat16"), shapes_grid, [1])


def test_beta_is_1_where_none_is_given(shapes_grid: ImageStore) -> None:
    assert Bank(MODEL, _training(), shapes_grid, [1]).betas == (1.0,)
    assert Bank(ModelConfig("dcign", (4, 6, 5), beta=2.0), _training(), shapes_grid, [1]).betas == (2.0,)


def test_saved_weights_encode_and_decode_like_the_bank(shapes_grid: ImageStore) -> None:
    bank = Bank(MODEL, _training(), shapes_grid, [1, 2])
    bank.train(3)
    loaded = load_model(bank.weights(), MODEL, 1, 64, 64)
    codes = bank.encode(shapes_grid.gather(torch.arange(10))[None]).mean
    assert torch.equal(loaded.encode(shapes_grid.gather(torch.arange(10))[None]).mean, codes)
    assert torch.equal(loaded.decode(codes), bank.decode(codes))
    assert loaded.decode(codes).shape == (2, 10, 4096)


def test_images_without_the_grid_of_the_five_factors_are_refused(
    store: ImageStore, shapes_grid: ImageStore, tmp_path: Path
) -> None:
    wanted = "dcign needs an image of every combination of the factors scale, position_x, position_y, rotation, shape"
    with pytest.raises(InputError, match=f"{wanted}; these images show no known factor"):
        Bank(MODEL, _training(), store, [1])
    every = np.arange(shapes_grid.count)
    images = shapes_grid.gather(every).numpy().reshape(-1, 64, 64)
    factors, names = shapes_grid.factors(every), shapes_grid.factor_names
    some = import_arrays(images[:-1], factors=factors[:-1], factor_names=names, path=tmp_path / "some.arrow")
    with pytest.raises(InputError, match="show not every combination, in order, of shape, scale, rotation"):
        Bank(MODEL, _training(), some, [1])
    renamed = [name.replace("rotation", "angle") for name in names]
    other = import_arrays(images, factors=factors, factor_names=renamed, path=tmp_path / "other.arrow")
    with pytest.raises(InputError, match="these images show the complete grid of shape, scale, angle"):
        Bank(MODEL, _training(), other, [1])


def _information(bank: Bank, store: ImageStore, latent: int) -> dict[str, float]:
    """What one latent knows of each factor, over all images; chance is 0."""
    every = np.arange(store.count)
    codes = bank.encode(store.gather(every)[None])
    assert codes.logvar is not None
    mean, logvar = (values[..., latent : latent + 1].numpy() for values in (codes.mean, codes.logvar))
    shares = information(mean, store.factors(every), logvar).factors[0]
    return dict(zip(store.factor_names, shares.tolist(), strict=True))


@pytest.mark.slow
def test_training_lowers_the_reconstruction_and_the_latents_of_position_answer_to_it(shapes_grid: ImageStore) -> None:
    """About 11,000 images at a twelfth of Table 1's channels; the other factors take longer."""
    steps = 700
    bank = Bank(ModelConfig("dcign", (8, 8, 8)), _training(learning_rate=3e-3, batch_size=16), shapes_grid, [7])
    first = bank.train(20)
    bank.train(steps - 50)
    last = bank.train(steps)
    assert last.reconstruction[0] < 0.6 * first.reconstruction[0]
    for factor, other in (("position_x", "position_y"), ("position_y", "position_x")):
        (latent,) = FACTOR_LATENTS[factor]
        known = _information(bank, shapes_grid, latent)
        assert max(known, key=lambda name: known[name]) == factor
        assert known[factor] > 0.3
        assert known[factor] > 3 * known[other]
    assert last.kl_per_latent[0][9] < 0.05  # the latent of no factor goes to its prior
