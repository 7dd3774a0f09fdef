from __future__ import annotations

from typing import Any

import pytest

from bvae_tune.errors import InputError
from bvae_tune.models.config import ModelConfig, beta_norm_of, beta_of


def test_beta_norm_is_beta_times_latents_over_pixels() -> None:
    assert beta_norm_of(ModelConfig(beta=4, latent_size=10), 4096) == pytest.approx(4 * 10 / 4096)
    assert beta_of(ModelConfig(beta_norm=0.001, latent_size=32), 12288) == pytest.approx(0.001 * 12288 / 32)
    assert beta_of(ModelConfig(beta=0.0), 4096) == 0.0


def test_neither_beta_is_an_error_where_one_is_needed() -> None:
    with pytest.raises(InputError, match=r"model\.beta"):
        beta_of(ModelConfig(), 4096)


def test_widths_default_to_table_1() -> None:
    assert ModelConfig("fc").layer_widths == (1200, 1200)
    assert ModelConfig("conv").layer_widths == (32, 32, 64, 64, 256)
    assert ModelConfig("fc", (3, 4, 5)).layer_widths == (3, 4, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "mlp"}, "model.architecture: 'mlp' is not one of fc, conv"),
        ({"likelihood": "poisson"}, "model.likelihood: 'poisson' is not one of bernoulli, gaussian"),
        ({"beta": 1.0, "beta_norm": 0.1}, "model.beta, model.beta_norm: beta and beta_norm are both given"),
        ({"beta": -1.0}, "model.beta: -1.0"),
        ({"beta": float("nan")}, "model.beta: nan"),
        ({"latent_size": 0}, "model.latent_size: 0"),
        ({"sigma": 0.0}, "model.sigma: 0.0"),
        ({"widths": ()}, "model.widths"),
        ({"widths": (10, 0)}, "model.widths"),
        ({"architecture": "conv", "widths": (8, 8, 16, 16)}, "conv takes five"),
    ],
)
def test_settings_out_of_range_name_the_key(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        ModelConfig(**settings)
