"""What a configuration of InfoGAN may be. Seed: none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bvae_tune.errors import InputError
from bvae_tune.models.config import ModelConfig
from bvae_tune.models.infogan import GenerativeNetwork, is_statistic


def test_table_1_has_its_parameters() -> None:
    """Every normalised layer has a weight, a scale and a shift; the others a weight and a bias."""
    network = GenerativeNetwork(ModelConfig("infogan").layer_widths, 1)
    kernel = 4 * 4
    generator = (10 + 2) * 256 + (256 + 2) * 256 + (4 * kernel + 2) * 128 + (128 * kernel + 2) * 64 + 64 * kernel + 1
    discriminator = (kernel + 1) * 64 + (64 * kernel + 2) * 128 + (128 * kernel + 2) * 4 + (256 + 2) * 256 + 257
    recognition = (256 + 2) * 128 + (128 + 1) * 5 + 5
    counted = [
        sum(torch.Size(spec.shape).numel() for name, spec in specs.items() if not is_statistic(name))
        for specs in (network.generator_specs, network.inference_specs)
    ]
    assert counted == [generator, discriminator + recognition]


def test_all_layers_are_normalised_but_the_outer_ones() -> None:
    specs = GenerativeNetwork(ModelConfig("infogan").layer_widths, 1).specs
    plain = {name.removesuffix(".bias") for name in specs if name.endswith(".bias")}
    assert plain == {"generator.4", "discriminator.0", "discriminator.4", "recognition.1"}
    assert sum(name.endswith(".running_mean") for name in specs) == 4 + 3 + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_size": 5}, "model.latent_size: 5; infogan has 10 latents"),
        ({"likelihood": "gaussian"}, "model.likelihood: 'gaussian'; infogan has no such likelihood"),
        ({"beta": 1.0}, "model.beta: 1.0; infogan has no KL term"),
        ({"beta_norm": 0.1}, "model.beta_norm: 0.1; infogan has no KL term"),
        ({"widths": (256, 256, 128, 64)}, "infogan takes five"),
        ({"widths": (256, 200, 128, 64, 128)}, "the second must be a multiple of 64"),
    ],
)
def test_what_it_does_not_have_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        ModelConfig("infogan", **settings)
    assert message in str(raised.value)
