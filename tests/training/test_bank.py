from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from bvae_tune.data.image_store import ImageStore
from bvae_tune.errors import InputError, RunError
from bvae_tune.models.config import ModelConfig
from bvae_tune.models.networks import load_model
from bvae_tune.training.bank import Bank, TrainingConfig
from bvae_tune.training.batches import Batch
from bvae_tune.training.checkpoint import from_bytes, to_bytes
from bvae_tune.training.vae import BetaVAE, StepLosses

SEEDS, BETAS = [3, 7, 5], [1.0, 4.0, 16.0]
NETWORKS = [("fc", (24, 20)), ("conv", (4, 5, 6, 10, 16))]


def _model(architecture: str, widths: tuple[int, ...], likelihood: str = "bernoulli", **settings: Any) -> ModelConfig:
    return ModelConfig(architecture, widths, likelihood, latent_size=4, beta=4.0, **settings)  # type: ignore[arg-type]


def _training(optimizer: str = "adam", **settings: Any) -> TrainingConfig:
    defaults: dict[str, Any] = {
        "learning_rate": 1e-3, "schedule": "cosine", "warmup": 0.05, "batch_size": 8, "steps": 60, "report_every": 20,
    }  # fmt: skip
    return TrainingConfig(optimizer, **(defaults | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("together", [1, 2])  # in turns, and two at once with one left over
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
@pytest.mark.parametrize(("architecture", "widths"), NETWORKS)
def test_a_replica_in_a_bank_is_the_same_seed_alone(
    store: ImageStore, architecture: str, widths: tuple[int, ...], optimizer: str, likelihood: str, together: int
) -> None:
    model, training = _model(architecture, widths, likelihood), _training(optimizer)
    bank = Bank(model, training, store, SEEDS, BETAS, together=together)
    alone = [Bank(model, training, store, [seed], [beta]) for seed, beta in zip(SEEDS, BETAS, strict=True)]

    # From zero, after one step Adam's first moment is a tenth of the gradient, and Adagrad's sum is its square.
    slot = {"adam": "optimizer/mean/", "adagrad": "optimizer/sum/"}[optimizer]
    for each in (bank, *alone):
        state = each.state()
        each.load({name: torch.zeros_like(state[name]) if name.startswith(slot) else state[name] for name in state})
    bank.train(1)
    together_state = bank.state()
    for replica, single in enumerate(alone):
        single.train(1)
        for name, values in single.state().items():
            if name.startswith(slot):
                scale = values.abs().max()
                assert scale > 0
                torch.testing.assert_close(
                    together_state[name][replica] / scale, values[0] / scale, rtol=1e-3, atol=1e-5
                )

    bank.train(20)
    for replica, single in enumerate(alone):
        single.train(20)
        for name, values in single.weights().items():
            torch.testing.assert_close(bank.weights()[name][replica], values[0], rtol=1e-4, atol=2e-5)
            if together == 1:
                assert torch.equal(bank.weights()[name][replica], values[0])


@pytest.mark.parametrize(("together", "turns"), [(1, [(3,), (7,), (5,)]), (2, [(3, 7), (5,)]), (8, [(3, 7, 5)])])
def test_a_turn_is_all_steps_up_to_the_report(store: ImageStore, together: int, turns: list[tuple[int, ...]]) -> None:
    bank = Bank(_model("fc", (24, 20)), _training(), store, SEEDS, together=together)
    bank.train(2)
    plan, asked = bank._batches, []

    class Noted:
        def batch(self, step: int, seeds: Sequence[int]) -> Batch:
            asked.append((tuple(seeds), step))
            return plan.batch(step, seeds)

    bank._batches = Noted()
    bank.train(5)
    assert asked == [(seeds, step) for seeds in turns for step in (2, 3, 4)]


@pytest.mark.parametrize(
    ("room", "turns"),  # replicas for which there is memory at each step
    [
        ([3, 3, 3, 1, 1, 1, 0], 1),  # 3, which from step 3 on take turns, as the other 2 do
        ([5, 5, 3, 3, 3, 3, 0], 3),  # 3 and 2, from step 2 on
    ],
)
def test_where_memory_runs_out_the_bank_goes_on_from_that_step(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch, room: list[int], turns: int
) -> None:
    model, training, seeds = _model("fc", (24, 20)), _training(), [3, 7, 5, 2, 9]
    alone, bank = Bank(model, training, store, seeds), Bank(model, training, store, seeds, together=5)
    expected, enough = alone.train(6), BetaVAE.step

    def step(learner: BetaVAE, batch: Batch, at: int) -> StepLosses:
        if len(batch.indices) > room[at]:
            raise torch.OutOfMemoryError
        return enough(learner, batch, at)

    monkeypatch.setattr(BetaVAE, "step", step)
    report = bank.train(6)
    assert report.loss == pytest.approx(expected.loss, rel=1e-5)
    assert report.kl == pytest.approx(expected.kl, rel=1e-3)
    assert report.notice == f"out of memory with 5 replicas of the bank at once: trained in turns of {turns}"
    for name, values in alone.weights().items():
        torch.testing.assert_close(bank.weights()[name], values, rtol=1e-4, atol=2e-5)
    with pytest.raises(RunError, match="out of memory at step 6 with one replica at a time"):
        bank.train(7)


@pytest.mark.parametrize("stop", [1, 32, 33])  # around a block of random numbers, which is 32 steps
@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
@pytest.mark.parametrize(("architecture", "widths"), NETWORKS)
def test_a_resumed_bank_is_one_never_interrupted(
    store: ImageStore, architecture: str, widths: tuple[int, ...], optimizer: str, stop: int
) -> None:
    model, training = _model(architecture, widths), _training(optimizer)
    undisturbed = Bank(model, training, store, SEEDS[:2])
    undisturbed.train(stop)
    expected = undisturbed.train(40)

    stopped = Bank(model, training, store, SEEDS[:2])
    stopped.train(stop)
    state, metadata = from_bytes(to_bytes(stopped.state(), {"result": "{}"}))
    assert metadata == {"result": "{}"}
    resumed = Bank(model, training, store, SEEDS[:2])
    resumed.load(state)
    assert resumed.step_count == stop
    report = resumed.train(40)

    assert report.loss == expected.loss
    assert report.kl_per_latent == expected.kl_per_latent
    for name, values in undisturbed.state().items():
        assert torch.equal(values, resumed.state()[name]), name


def test_each_replica_has_its_own_beta(store: ImageStore) -> None:
    model, training = _model("fc", (24, 20)), _training("adam", steps=120)
    bank = Bank(model, training, store, [2, 2], [0.0, 50.0])
    first = bank.train(1)
    assert first.kl_per_latent[0] == first.kl_per_latent[1]  # the same seed: the same batch, noise and parameters
    assert first.loss[0] == pytest.approx(first.reconstruction[0])
    assert first.loss[1] == pytest.approx(first.reconstruction[1] + 50 * first.kl[1])
    last = bank.train(120)
    assert last.kl[0] > 5 * last.kl[1]


def test_beta_norm_trains_as_the_beta_it_stands_for(store: ImageStore) -> None:
    training = _training()
    by_norm = ModelConfig("fc", (24, 20), latent_size=4, beta_norm=4.0 * 4 / 4096)
    weights = [Bank(model, training, store, [1]) for model in (_model("fc", (24, 20)), by_norm)]
    for bank in weights:
        bank.train(3)
    for name, values in weights[0].weights().items():
        assert torch.equal(values, weights[1].weights()[name])


def test_beta_annealed_from_zero_ignores_the_kl_at_first(store: ImageStore) -> None:
    models = [_model("fc", (24, 20)), _model("fc", (24, 20))]
    annealed = Bank(models[0], _training(beta_anneal=1.0), store, [1], [1e4])
    without = Bank(models[1], _training(), store, [1], [0.0])
    annealed.train(1)
    without.train(1)
    for name, values in annealed.weights().items():
        assert torch.equal(values, without.weights()[name])
    annealed.train(2)
    without.train(2)
    assert not torch.equal(annealed.weights()["encoder.2.weight"], without.weights()["encoder.2.weight"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("architecture", "widths"), NETWORKS)
def test_training_lowers_the_loss(
    store: ImageStore, architecture: str, widths: tuple[int, ...], precision: str
) -> None:
    bank = Bank(
        _model(architecture, widths), _training(learning_rate=1e-2, steps=80, precision=precision), store, [1, 2]
    )
    before = bank.train(5)
    bank.train(60)
    after = bank.train(80)
    assert all(late < 0.6 * early for early, late in zip(before.loss, after.loss, strict=True))
    assert all(bank.finite)


def test_report(store: ImageStore) -> None:
    bank = Bank(_model("fc", (24, 20)), _training(), store, [1, 2])
    bank.train(10)
    report = bank.train(30)
    assert (report.step, report.images_seen, bank.step_count) == (30, 30 * 8, 30)
    assert report.images_per_second == pytest.approx(20 * 8 * 2 / report.seconds)
    assert len(report.loss) == len(report.kl) == len(report.kl_per_latent) == 2
    for replica in range(2):
        assert report.kl[replica] == pytest.approx(sum(report.kl_per_latent[replica]))
        assert report.loss[replica] == pytest.approx(report.reconstruction[replica] + 4 * report.kl[replica])
    assert report.notice is None


def test_report_means_are_over_the_calls_steps(store: ImageStore) -> None:
    together, one_by_one = (Bank(_model("fc", (24, 20)), _training(), store, [1]) for _ in range(2))
    together.train(4)
    expected = [one_by_one.train(step + 1) for step in range(7)][4:]
    report = together.train(7)
    assert report.reconstruction[0] == pytest.approx(sum(part.reconstruction[0] for part in expected) / 3)


def test_untrained_bank_reports_and_encodes(store: ImageStore) -> None:
    bank = Bank(_model("conv", (4, 5, 6, 10, 16)), _training(steps=0), store, [1, 2])
    before = bank.weights()
    report = bank.train(0)
    assert (report.step, report.images_seen, report.images_per_second) == (0, 0, 0.0)
    assert report.reconstruction[0] == pytest.approx(4096 * 0.693, rel=0.1)  # every pixel a coin toss
    assert all(bank.finite)
    for name, values in bank.weights().items():
        assert torch.equal(values, before[name])
    images = store.gather(torch.arange(10))[None]
    codes = bank.encode(images)
    assert codes.mean.shape == (2, 10, 4)
    assert bank.decode(codes.mean).shape == (2, 10, 4096)


def test_saved_weights_encode_like_the_bank(store: ImageStore) -> None:
    model = _model("conv", (4, 5, 6, 10, 16))
    bank = Bank(model, _training(), store, [1, 2])
    bank.train(5)
    images = store.gather(torch.arange(10))[None]
    loaded = load_model(bank.weights(), model, 1, 64, 64)
    assert torch.equal(loaded.encode(images).mean, bank.encode(images).mean)


def test_a_loss_that_is_not_finite_is_reported_not_raised(store: ImageStore) -> None:
    bank = Bank(_model("fc", (24, 20)), _training("adagrad", learning_rate=1e30, warmup=0.0), store, [1])
    bank.train(1)
    report = bank.train(5)
    assert not torch.tensor(report.loss).isfinite().any()
    assert not all(bank.finite)


@pytest.mark.parametrize(
    ("name", "value", "loss_is_finite"),
    [
        ("model/encoder.0.weight", float("nan"), False),
        ("optimizer/square/encoder.0.weight", float("inf"), True),
        ("optimizer/square/encoder.0.weight", 3e38, True),
    ],
)
def test_of_a_bank_only_the_diverged_replica_is_not_finite(
    store: ImageStore, name: str, value: float, loss_is_finite: bool
) -> None:
    bank = Bank(_model("fc", (24, 20)), _training(), store, [1, 2])
    state = bank.state()
    state[name][1, 0, :2] = value
    bank.load(state)
    report = bank.train(1)
    assert bank.finite == (True, value == 3e38)  # their sum is not finite, but each of them is
    assert torch.tensor(report.loss).isfinite().all() == loss_is_finite


def test_the_first_steps_of_table_1_do_not_throw_its_network_off(store: ImageStore) -> None:
    training = TrainingConfig("adagrad", 1e-2, batch_size=64, steps=10)
    bank = Bank(ModelConfig("fc", (1200, 1200), latent_size=4), training, store, [1, 2, 3], [1.0, 25.0, 625.0])
    for step in range(1, 6):
        assert max(bank.train(step).kl) < 1000  # nats; above 1e4 where the sums of squares begin at zero
    assert all(bank.finite)


def test_what_does_not_fit_is_refused(store: ImageStore) -> None:
    model, training = _model("fc", (24, 20)), _training()
    with pytest.raises(InputError, match="2 seeds, 1 betas"):
        Bank(model, training, store, [1, 2], [4.0])
    with pytest.raises(InputError, match="0 seeds"):
        Bank(model, training, store, [])
    with pytest.raises(InputError, match=r"model\.beta"):
        Bank(ModelConfig("fc", (24, 20)), training, store, [1])
    bank = Bank(model, training, store, [1])
    with pytest.raises(InputError, match="replicas"):
        bank.load(Bank(model, training, store, [1, 2]).state())
    with pytest.raises(InputError, match="optimiser"):
        bank.load(Bank(model, _training("adagrad"), store, [1]).state())
    with pytest.raises(InputError, match=r"encoder\.0\.weight"):
        bank.load(Bank(_model("fc", (25, 20)), training, store, [1]).state())


def test_bfloat16_where_the_processor_is_slow_at_it_is_told(store: ImageStore) -> None:
    flags = set(Path("/proc/cpuinfo").read_text().split())
    bank = Bank(_model("fc", (24, 20)), _training(precision="bfloat16"), store, [1])
    told = bank.train(1).notice
    assert (told is None) == bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    assert told is None or "training.precision float32 is several times faster" in told
