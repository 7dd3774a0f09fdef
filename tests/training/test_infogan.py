"""InfoGAN against plain modules and PyTorch's optimisers, and what it learns. Seeds: 3, 7, 5 of the banks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bvae_tune.data.image_store import ImageStore
from bvae_tune.errors import InputError
from bvae_tune.models.config import ModelConfig
from bvae_tune.models.infogan import information_bound
from bvae_tune.models.networks import load_model
from bvae_tune.training.bank import Bank
from bvae_tune.training.batches import UniformBatches
from bvae_tune.training.checkpoint import from_bytes, to_bytes
from bvae_tune.training.config import TrainingConfig
from bvae_tune.training.infogan import InfoGAN

SEEDS, B = [3, 7, 5], 6
MODEL = ModelConfig("infogan", (12, 64, 6, 4, 8))


def _training(**settings: Any) -> TrainingConfig:
    return TrainingConfig("adam", **({"learning_rate": 1e-3, "batch_size": B, "steps": 60} | settings))


class PlainInfoGAN:
    """Table 1's InfoGAN at MODEL's widths as plain modules, in training mode, with our parameters copied in."""

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        self.generator = nn.Sequential(
            nn.Linear(10, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(),
            nn.Linear(12, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Unflatten(1, (1, 8, 8)),
            nn.ConvTranspose2d(1, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
            nn.ConvTranspose2d(6, 4, 4, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
            nn.ConvTranspose2d(4, 1, 4, 2, 1), nn.Tanh(), nn.Flatten(),
        )  # fmt: skip
        self.trunk = nn.Sequential(
            nn.Unflatten(1, (1, 64, 64)), nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(4, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6), nn.LeakyReLU(0.2),
            nn.Conv2d(6, 1, 4, 2, 1, bias=False), nn.BatchNorm2d(1), nn.LeakyReLU(0.2), nn.Flatten(),
            nn.Linear(64, 12, bias=False), nn.BatchNorm1d(12), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.judge = nn.Linear(12, 1)
        self.recognition = nn.Sequential(
            nn.Linear(12, 8, bias=False), nn.BatchNorm1d(8), nn.LeakyReLU(0.2), nn.Linear(8, 5)
        )
        self.logvar = nn.Parameter(torch.empty(5))
        self.inference = nn.ModuleList([self.trunk, self.judge, self.recognition])
        with torch.no_grad():
            for theirs, ours in zip(self.tensors(), parameters.values(), strict=True):
                theirs.copy_(ours)

    def tensors(self) -> list[Tensor]:
        """Parameters and running statistics in the order of ours."""
        found: list[Tensor] = []
        for module in (*self.generator, *self.trunk, self.judge, *self.recognition):
            found += module.parameters()
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                found += [module.running_mean, module.running_var]
        return [*found, self.logvar]

    @contextmanager
    def running_frozen(self) -> Iterator[None]:
        """Passes within leave the running statistics of the inference networks as they are."""
        norms = [one for one in self.inference.modules() if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 0.0
        yield
        for norm in norms:
            norm.momentum = 0.1


def test_three_steps_are_those_of_plain_modules_and_torch_optim(store: ImageStore) -> None:
    learner = InfoGAN(MODEL, _training(), store, "cpu")
    learner.init(SEEDS[:2])
    plain = [PlainInfoGAN({name: each[r] for name, each in learner.model.parameters.items()}) for r in (0, 1)]
    adams = [
        (
            torch.optim.Adam(one.generator.parameters(), 1e-3, (0.5, 0.999)),
            torch.optim.Adam([*one.inference.parameters(), one.logvar], 2e-4, (0.5, 0.999)),
        )
        for one in plain
    ]
    plan = UniformBatches(store.count, B)
    for step in range(3):
        batch = plan.batch(step, SEEDS[:2])
        losses = learner.step(batch, step).further
        for replica, (one, (of_generator, of_inference)) in enumerate(zip(plain, adams, strict=True)):
            images = 2 * store.gather(batch.indices[replica]) - 1
            latents, noise = learner.latents(step)[replica], learner.instance_noise(replica, step)
            codes = latents[:, 5:]
            drawn = one.generator(latents)
            with torch.no_grad():
                one.recognition(one.trunk(images))
            with one.running_frozen():
                real = one.trunk(images + noise[0])
                fake = one.trunk(drawn.detach() + noise[1])
                bound = _bound(one.recognition(fake), one.logvar, codes)
            labels = torch.ones(B, 1)
            discriminator = functional.binary_cross_entropy_with_logits(one.judge(real), labels)
            discriminator = discriminator + functional.binary_cross_entropy_with_logits(one.judge(fake), 0 * labels)
            of_inference.zero_grad()
            (discriminator - 0.1 * bound).backward()
            of_inference.step()
            with one.running_frozen():
                fake = one.trunk(drawn + noise[2])
                later_bound = _bound(one.recognition(fake), one.logvar, codes)
            generator = functional.binary_cross_entropy_with_logits(one.judge(fake), labels)
            of_generator.zero_grad()
            (generator - 0.1 * later_bound).backward()
            of_generator.step()
            expected = {"discriminator": discriminator, "generator": generator, "mutual information bound": bound}
            assert losses.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(losses[name][replica], value.detach(), rtol=1e-4, atol=1e-5)
    for replica, one in enumerate(plain):
        for theirs, (name, ours) in zip(one.tensors(), learner.model.parameters.items(), strict=True):
            torch.testing.assert_close(ours[replica], theirs.detach(), rtol=1e-3, atol=2e-4, msg=name)


def _bound(mean: Tensor, logvar: Tensor, codes: Tensor) -> Tensor:
    gaussian = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    uniform = torch.distributions.Uniform(torch.full((5,), -1.0), 1.0)
    return gaussian.log_prob(codes).sum(1).mean() + uniform.entropy().sum()


def test_the_bound_of_means_that_know_nothing_and_of_means_that_know_all() -> None:
    codes = 2 * torch.rand(200_000, 5, generator=torch.Generator().manual_seed(0)) - 1
    blind = information_bound(torch.zeros(1, 5), torch.full((5,), math.log(1 / 3)), codes)
    assert blind.item() == pytest.approx(5 * (math.log(2) - 0.5 * math.log(2 * math.pi * math.e / 3)), abs=0.01)
    sharp = torch.full((5,), 2 * math.log(0.01))
    knowing = information_bound(codes, sharp, codes)
    assert knowing.item() == pytest.approx(5 * (math.log(2) - 0.5 * math.log(2 * math.pi * 0.01**2)), abs=1e-3)


def test_a_replica_in_a_bank_is_the_same_seed_alone(store: ImageStore) -> None:
    bank = Bank(MODEL, _training(), store, SEEDS)
    alone = [Bank(MODEL, _training(), store, [seed]) for seed in SEEDS]
    bank.train(20)
    for replica, single in enumerate(alone):
        single.train(20)
        for name, values in single.state().items():
            if name != "step":
                assert torch.equal(bank.state()[name][replica], values[0]), name


def test_a_resumed_bank_is_one_never_interrupted(store: ImageStore) -> None:
    undisturbed, stopped, resumed = (Bank(MODEL, _training(), store, SEEDS[:2]) for _ in range(3))
    undisturbed.train(33)
    expected = undisturbed.train(40)
    stopped.train(33)
    state = from_bytes(to_bytes(stopped.state(), {}))[0]
    assert not torch.equal(state["model/discriminator.1.running_mean"], torch.zeros(2, 6))
    resumed.load(state)
    assert resumed.train(40).further_losses == expected.further_losses
    for name, values in undisturbed.state().items():
        assert torch.equal(values, resumed.state()[name]), name


def test_a_report_has_its_own_losses_and_no_others(store: ImageStore) -> None:
    bank = Bank(MODEL, _training(), store, SEEDS)
    before = bank.weights()
    untrained = bank.train(0)
    assert all(torch.equal(values, before[name]) for name, values in bank.weights().items())
    report = bank.train(3)
    for each in (untrained, report):
        assert (each.loss, each.reconstruction, each.kl, each.kl_per_latent) == ((), (), (), ())
        assert list(each.further_losses) == ["discriminator", "generator", "mutual information bound"]
        assert {len(losses) for losses in each.further_losses.values()} == {3}
    one_by_one = Bank(MODEL, _training(), store, SEEDS)
    parts = [one_by_one.train(step + 1).further_losses["generator"][1] for step in range(3)]
    assert report.further_losses["generator"][1] == pytest.approx(sum(parts) / 3)
    assert all(bank.finite)


def test_losses_that_are_not_finite_are_reported_not_raised(store: ImageStore) -> None:
    bank = Bank(MODEL, _training(learning_rate=1e30), store, [3])
    bank.train(5)
    assert not all(bank.finite)


def test_codes_and_images_depend_on_no_neighbour_and_come_back_from_saved_weights(store: ImageStore) -> None:
    bank = Bank(MODEL, _training(), store, SEEDS[:2])
    bank.train(5)
    images = store.gather(torch.arange(10))[None]
    codes = bank.encode(images)
    assert codes.logvar is None
    assert codes.mean.shape == (2, 10, 5)
    torch.testing.assert_close(bank.encode(images[:, 3:4]).mean, codes.mean[:, 3:4])
    drawn = bank.decode(codes.mean)
    assert drawn.shape == (2, 10, 4096)
    assert 0 <= drawn.min() <= drawn.max() <= 1
    torch.testing.assert_close(bank.decode(codes.mean[:, 3:4]), drawn[:, 3:4])
    loaded = load_model(bank.weights(), MODEL, 1, 64, 64)
    assert torch.equal(loaded.encode(images).mean, codes.mean)
    assert torch.equal(loaded.decode(codes.mean), drawn)
    with pytest.raises(InputError, match=r"generator\.3\.weight"):
        load_model(bank.weights(), ModelConfig("infogan", (12, 64, 6, 5, 8)), 1, 64, 64)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adagrad"}, "training.optimizer: 'adagrad'; infogan is trained with adam"),
        ({"precision": "bfloat16"}, "training.precision: 'bfloat16'"),
        ({"beta_anneal": 0.5}, "training.beta_anneal: 0.5; infogan has no β"),
        ({"batch_size": 1}, "training.batch_size: 1; infogan normalises over the batch"),
    ],
)
def test_a_training_that_it_does_not_have_is_refused(store: ImageStore, settings: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        Bank(MODEL, TrainingConfig(**settings), store, [1])
    assert message in str(raised.value)


def test_a_bank_without_beta_takes_none(store: ImageStore) -> None:
    assert Bank(MODEL, _training(), store, [1]).betas == ()
    with pytest.raises(InputError, match="1 seeds, 1 betas"):
        Bank(MODEL, _training(), store, [1], [4.0])


@pytest.mark.slow
def test_the_bound_rises_and_the_generator_finds_the_mean_pixel(shapes_grid: ImageStore) -> None:
    """About 10,000 images at an eighth of Table 1's channels and five times its learning rates; -0.88 knows nothing."""
    steps, model = 300, ModelConfig("infogan", (64, 256, 16, 8, 32))
    bank = Bank(model, _training(learning_rate=5e-3, batch_size=32), shapes_grid, [7])
    numbers = torch.Generator().manual_seed(0)
    codes = 2 * torch.rand(1, 200, 5, generator=numbers) - 1
    wanted = shapes_grid.gather(torch.arange(shapes_grid.count)).mean().item()
    before = abs(bank.decode(codes).mean().item() - wanted)
    first = bank.train(5).further_losses
    bank.train(steps - 50)
    last = bank.train(steps).further_losses
    after = abs(bank.decode(codes).mean().item() - wanted)
    assert first["mutual information bound"][0] < 0
    assert last["mutual information bound"][0] > 0.75
    assert after < 0.3 * before
    assert all(bank.finite)
