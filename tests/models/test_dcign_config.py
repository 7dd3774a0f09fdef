"""What a configuration of DC-IGN may be. Seed: none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bvae_tune.errors import InputError
from bvae_tune.models.config import FACTOR_LATENTS, ModelConfig, beta_of, check_factors
from bvae_tune.models.networks import build_network


def test_the_latents_are_shared_out_once_with_one_left_over() -> None:
    owned = [latent for latents in FACTOR_LATENTS.values() for latent in latents]
    assert sorted(owned) == list(range(9))
    assert len(FACTOR_LATENTS["shape"]) == 5
    assert {len(latents) for factor, latents in FACTOR_LATENTS.items() if factor != "shape"} == {1}


def test_table_1_has_its_parameters() -> None:
    """Convolutions 1-96-48-48 and 3072-20; 10-3072 and convolutions 48-48-96-1; all with biases."""
    specs = build_network(ModelConfig("dcign"), 1, 64, 64).specs
    encoder = 960 + 41_520 + 20_784 + 61_460
    decoder = 33_792 + 20_784 + 41_568 + 865
    assert sum(torch.Size(spec.shape).numel() for spec in specs.values()) == encoder + decoder


def test_other_image_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="dcign takes images of 64x64 pixels, these are 32x64"):
        build_network(ModelConfig("dcign"), 1, 32, 64)


def test_factors_in_any_order_will_do() -> None:
    check_factors(ModelConfig("dcign"), tuple(reversed(FACTOR_LATENTS)), complete=True)
    check_factors(ModelConfig("conv"), (), complete=False)


def test_beta_is_1_unless_given() -> None:
    assert beta_of(ModelConfig("dcign"), 4096) == 1.0
    assert beta_of(ModelConfig("dcign", beta_norm=0.01), 4096) == pytest.approx(4.096)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_size": 9}, "model.latent_size: 9; dcign has 10 latents"),
        ({"likelihood": "gaussian"}, "model.likelihood: 'gaussian'; dcign has no such likelihood"),
        ({"widths": (8, 8)}, "dcign takes three: the channel counts of its convolutions"),
    ],
)
def test_what_it_does_not_have_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        ModelConfig("dcign", **settings)
    assert message in str(raised.value)
