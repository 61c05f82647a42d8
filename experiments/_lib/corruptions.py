"""Corruptions of images by a change of light: brightness, contrast and Gaussian noise, at several strengths."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float

Pixels = Float[Array | np.ndarray, "N H W C"]
NOISE_SEED = 2**32 - 1  # no seed of a training


class Corrupt(Protocol):
    """Changes pixels in [-1, 1] by a strength."""

    def __call__(self, pixels: Pixels, strength: float, /) -> Pixels: ...


class Corruption(NamedTuple):
    """A corruption and the strengths at which accuracy is measured."""

    apply: Corrupt
    strengths: tuple[float, ...]
    """The first strength leaves the pixels unchanged."""


def brighten(pixels: Pixels, offset: float) -> Pixels:
    """Adds an offset to all pixels."""
    return pixels + offset


def scale_contrast(pixels: Pixels, factor: float) -> Pixels:
    """Multiplies all pixels by a factor."""
    return pixels * factor


def add_noise(pixels: Pixels, deviation: float) -> Pixels:
    """Adds Gaussian noise of a standard deviation, the same noise in every call."""
    return pixels + deviation * jax.random.normal(jax.random.key(NOISE_SEED), pixels.shape)


CORRUPTIONS: Mapping[str, Corruption] = {
    "brightness": Corruption(brighten, (0.0, 0.25, 0.5, 1.0)),
    "contrast": Corruption(scale_contrast, (1.0, 0.5, 0.25, 0.1)),
    "noise": Corruption(add_noise, (0.0, 0.25, 0.5, 1.0)),
}
