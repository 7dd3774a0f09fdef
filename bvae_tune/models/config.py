"""What a network is: architecture, sizes, likelihood and β. Without torch, so that a search space is checked fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bvae_tune.errors import InputError

TABLE_1_WIDTHS = {
    "fc": (1200, 1200),
    "conv": (32, 32, 64, 64, 256),
    "dcign": (96, 48, 48),
    "infogan": (256, 256, 128, 64, 128),
}
# Of the architectures with a fixed number of layers.
_WIDTHS_WANTED = {
    "conv": ("five", "four channel counts and the width of its fully connected layer"),
    "dcign": ("three", "the channel counts of its convolutions"),
    "infogan": (
        "five",
        "two fully connected layers and the channel counts of two deconvolutions of its generator, and the fully "
        "connected layer of its recognition network",
    ),
}
# Fig. 6C: "clamping a single latent each for scale, positions, orientation and 5 for shape".
FACTOR_LATENTS = {"scale": (0,), "position_x": (1,), "position_y": (2,), "rotation": (3,), "shape": (4, 5, 6, 7, 8)}
# Table 1. The tenth latent of DC-IGN belongs to no factor; InfoGAN's are five of noise and five codes.
FIXED_LATENT_SIZE = {"dcign": 10, "infogan": 10}
# Of a layer or a code: far above any that trains, and below what only a slip of the pen asks for.
MOST_UNITS = 1_000_000


@dataclass(frozen=True)
class ModelConfig:
    """A model of Table 1: a β-VAE, or one that the paper compares it with.

    Attributes:
        architecture: "fc" (ReLU encoder, tanh decoder) or "conv" (four 4x4 convolutions of stride 2; 64x64 images), the
            β-VAEs; "dcign", the semi-supervised DC-IGN (64x64 images that are the complete grid of its five factors);
            "infogan" (64x64 images), which has neither likelihood nor β.
        widths: None for Table 1. "fc": the encoder's hidden widths, from the input; the decoder reverses them and
            repeats the first once more (1200, 1200 -> 1200, 1200, 1200). "conv": four channel counts and the width of
            the fully connected layer. "dcign": three channel counts. "infogan": the generator's two fully connected
            layers, of which the second has a multiple of 64, and its two deconvolutions, and the recognition's layer.
        likelihood: of a pixel: "bernoulli", or "gaussian" with standard deviation `sigma` (β-VAEs only).
        latent_size: M, the number of latents; 10 for "dcign" and "infogan", of which five are its codes.
        beta: weight of the KL term (Eq. 4); or
        beta_norm: beta * M / N (Sec. A.5), N the number of input values. At most one is given; training a β-VAE needs
            one, and β is 1 for a "dcign" without.

    Raises:
        InputError: a value outside its range or not one that the architecture has, or both betas.
    """

    architecture: Literal["fc", "conv", "dcign", "infogan"] = "fc"
    widths: tuple[int, ...] | None = None
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    sigma: float = 1.0
    latent_size: int = 10
    beta: float | None = None
    beta_norm: float | None = None

    def __post_init__(self) -> None:
        if self.architecture not in TABLE_1_WIDTHS:
            raise InputError(f"model.architecture: {self.architecture!r} is not one of {', '.join(TABLE_1_WIDTHS)}")
        if self.likelihood not in ("bernoulli", "gaussian"):
            raise InputError(f"model.likelihood: {self.likelihood!r} is not one of bernoulli, gaussian")
        if self.widths is not None and (not self.widths or min(self.widths) < 1 or max(self.widths) > MOST_UNITS):
            raise InputError(f"model.widths: {list(self.widths)} must be one or more numbers from 1 to {MOST_UNITS:,}")
        if self.architecture in _WIDTHS_WANTED and len(self.layer_widths) != len(TABLE_1_WIDTHS[self.architecture]):
            number, meaning = _WIDTHS_WANTED[self.architecture]
            raise InputError(
                f"model.widths, model.architecture: {list(self.layer_widths)} has {len(self.layer_widths)} widths; "
                f"{self.architecture} takes {number}: {meaning}"
            )
        if self.architecture == "infogan" and self.layer_widths[1] % 64:
            raise InputError(
                f"model.widths: {list(self.layer_widths)}: the second must be a multiple of 64, "
                "since infogan reads that layer as maps of 8x8"
            )
        if not 1 <= self.latent_size <= MOST_UNITS:
            raise InputError(f"model.latent_size: {self.latent_size} must be a whole number from 1 to {MOST_UNITS:,}")
        size = FIXED_LATENT_SIZE.get(self.architecture, self.latent_size)
        if self.latent_size != size:
            raise InputError(f"model.latent_size: {self.latent_size}; {self.architecture} has {size} latents (Table 1)")
        if self.architecture in FIXED_LATENT_SIZE and self.likelihood != "bernoulli":
            raise InputError(f"model.likelihood: {self.likelihood!r}; {self.architecture} has no such likelihood")
        if not 0 < self.sigma < math.inf:
            raise InputError(f"model.sigma: {self.sigma} must be greater than 0, and finite")
        if self.beta is not None and self.beta_norm is not None:
            raise InputError(
                "model.beta, model.beta_norm: beta and beta_norm are both given; give one (beta_norm = beta * M / N)"
            )
        for name, value in (("beta", self.beta), ("beta_norm", self.beta_norm)):
            if value is not None and not self.has_beta:
                raise InputError(f"model.{name}: {value}; {self.architecture} has no KL term to weigh: take it out")
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"model.{name}: {value} must be a number of at least 0")

    @property
    def layer_widths(self) -> tuple[int, ...]:
        """The widths in use: `widths`, or Table 1's."""
        return self.widths if self.widths is not None else TABLE_1_WIDTHS[self.architecture]

    @property
    def network(self) -> str:
        """Architecture and widths in words: "fc 1200-1200"."""
        return f"{self.architecture} {'-'.join(map(str, self.layer_widths))}"

    @property
    def has_beta(self) -> bool:
        """Whether its loss has a KL term for β to weigh: InfoGAN's has none."""
        return self.architecture != "infogan"

    @property
    def default_beta(self) -> float | None:
        """β where none is given: 1 for DC-IGN, a plain variational autoencoder; a β-VAE has none."""
        return 1.0 if self.architecture == "dcign" else None

    @property
    def traversal_limit(self) -> float:
        """How far a latent is traversed to either side: three standard deviations, or the range of InfoGAN's codes."""
        return 1.0 if self.architecture == "infogan" else 3.0


def beta_of(model: ModelConfig, dimensions: int) -> float:
    """The β of Eq. 4 for images of `dimensions` values (N = C*H*W).

    Raises:
        InputError: neither beta nor beta_norm is given, and the architecture has no default.
    """
    if model.beta is not None:
        return model.beta
    if model.beta_norm is not None:
        return model.beta_norm * dimensions / model.latent_size
    if model.default_beta is not None:
        return model.default_beta
    raise InputError("model.beta: give beta or beta_norm")


def beta_norm_of(model: ModelConfig, dimensions: int) -> float:
    """β_norm = β M / N (Sec. A.5) for images of `dimensions` values; raises as `beta_of`."""
    return beta_of(model, dimensions) * model.latent_size / dimensions


def check_image_size(model: ModelConfig, height: int, width: int) -> None:
    """Raises InputError where the architecture cannot take images of this size: fc takes any, the others 64x64."""
    if model.architecture != "fc" and (height, width) != (64, 64):
        raise InputError(
            f"model.architecture: {model.architecture} takes images of 64x64 pixels, these are {height}x{width}; "
            "resize them or use fc, which takes any size"
        )


def check_factors(model: ModelConfig, names: Sequence[str], complete: bool) -> None:
    """Refuse images whose factors the architecture cannot learn from.

    DC-IGN is shown mini-batches in which one factor alone varies, so it needs an image of every combination.

    Args:
        model: only "dcign" asks for factors.
        names: of the images' known factors, in any order.
        complete: whether the images are the complete grid of these factors.

    Raises:
        InputError: the images are not the complete grid of the five factors; says what they are.
    """
    if model.architecture != "dcign" or (complete and set(names) == set(FACTOR_LATENTS)):
        return
    known = ", ".join(names)
    grid = "the complete grid" if complete else "not every combination, in order,"
    found = f"{grid} of {known}" if known else "no known factor"
    raise InputError(
        "model.architecture: dcign needs an image of every combination of the factors "
        f"{', '.join(FACTOR_LATENTS)}; these images show {found}"
    )
