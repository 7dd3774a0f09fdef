"""What a network is: architecture, sizes, likelihood and β. Without torch, so that a search space is checked fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bvae_tune.errors import InputError

TABLE_1_WIDTHS = {"fc": (1200, 1200), "conv": (32, 32, 64, 64, 256)}


@dataclass(frozen=True)
class ModelConfig:
    """A β-VAE of Table 1.

    Attributes:
        architecture: "fc" (ReLU encoder, tanh decoder) or "conv" (four 4x4 convolutions of stride 2; 64x64 images).
        widths: None for Table 1. "fc": the encoder's hidden widths, from the input; the decoder reverses them and
            repeats the first once more (1200, 1200 -> 1200, 1200, 1200). "conv": four channel counts and the width of
            the fully connected layer.
        likelihood: of a pixel: "bernoulli", or "gaussian" with standard deviation `sigma`.
        latent_size: M, the number of latents.
        beta: weight of the KL term (Eq. 4); or
        beta_norm: beta * M / N (Sec. A.5), N the number of input values. At most one is given; training needs one.

    Raises:
        InputError: a value outside its range, or both betas.
    """

    architecture: Literal["fc", "conv"] = "fc"
    widths: tuple[int, ...] | None = None
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    sigma: float = 1.0
    latent_size: int = 10
    beta: float | None = None
    beta_norm: float | None = None

    def __post_init__(self) -> None:
        if self.architecture not in TABLE_1_WIDTHS:
            raise InputError(f"model.architecture: {self.architecture!r} is not one of fc, conv")
        if self.likelihood not in ("bernoulli", "gaussian"):
            raise InputError(f"model.likelihood: {self.likelihood!r} is not one of bernoulli, gaussian")
        if self.widths is not None and (not self.widths or min(self.widths) < 1):
            raise InputError(f"model.widths: {list(self.widths)} must be one or more positive whole numbers")
        if self.architecture == "conv" and self.widths is not None and len(self.widths) != 5:
            raise InputError(
                f"model.widths: {list(self.widths)} has {len(self.widths)} entries; conv takes five: "
                "four channel counts and the width of its fully connected layer"
            )
        if self.latent_size < 1:
            raise InputError(f"model.latent_size: {self.latent_size} must be at least 1")
        if not self.sigma > 0:
            raise InputError(f"model.sigma: {self.sigma} must be greater than 0")
        if self.beta is not None and self.beta_norm is not None:
            raise InputError("model.beta and model.beta_norm are both given: give one (beta_norm = beta * M / N)")
        for name, value in (("beta", self.beta), ("beta_norm", self.beta_norm)):
            if value is not None and not 0 <= value < float("inf"):
                raise InputError(f"model.{name}: {value} must be a number of at least 0")

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """The widths in use: `widths`, or Table 1's."""
        return self.widths if self.widths is not None else TABLE_1_WIDTHS[self.architecture]


def beta_of(model: ModelConfig, dimensions: int) -> float:
    """The β of Eq. 4 for images of `dimensions` values (N = C*H*W).

    Raises:
        InputError: neither beta nor beta_norm is given.
    """
    if model.beta is not None:
        return model.beta
    if model.beta_norm is not None:
        return model.beta_norm * dimensions / model.latent_size
    raise InputError("model.beta: give beta or beta_norm")


def beta_norm_of(model: ModelConfig, dimensions: int) -> float:
    """β_norm = β M / N (Sec. A.5) for images of `dimensions` values; raises as `beta_of`."""
    return beta_of(model, dimensions) * model.latent_size / dimensions


def check_image_size(model: ModelConfig, height: int, width: int) -> None:
    """Raises InputError where the architecture cannot take images of this size: conv takes 64x64, fc any."""
    if model.architecture == "conv" and (height, width) != (64, 64):
        raise InputError(
            f"model.architecture: conv takes images of 64x64 pixels, these are {height}x{width}; "
            "resize them or use fc, which takes any size"
        )
