"""Inspection of a network on a letter: probabilities, votes, intermediate activations, and the pixels that count."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

import cnn_jax
from cnn_jax import explain

from . import tta
from .xo_compare import TTA_VIEWS

WINDOW = 5  # rows and columns of the square that is covered
STRIDE = 2  # pixels from one covered square to the next


class Inspection(NamedTuple):
    """The outputs of a network and its explanation for a letter."""

    probabilities: Float[Array | np.ndarray, " K"]
    """Probabilities of the classes, with test-time augmentation."""
    votes: Float[Array | np.ndarray, " K"]
    """The logits of the letter as drawn, without test-time augmentation."""
    stages: Mapping[str, Shaped[Array | np.ndarray, "..."]]
    """The intermediate activations of the letter as drawn."""
    vote_falls: Float[Array | np.ndarray, "_ _"]
    """For every second pixel, how far the predicted class's vote falls when the square around it is covered."""


class Inspect(Protocol):
    """Computes an `Inspection` of a letter in [-1, 1]."""

    def __call__(self, letter: Float[np.ndarray, "H W"], /) -> Inspection: ...


def make_inspect(net: cnn_jax.Layer, params: Any) -> Inspect:
    """The function that inspects letters by one compiled program; its results are NumPy arrays."""

    @jax.jit
    def inspect(params: Any, letter: jax.Array) -> Inspection:
        image = letter[..., None]
        log_probs = tta.tta_log_probs(net, params, image[None], TTA_VIEWS)[0]
        predicted = jnp.argmax(log_probs)
        falls = explain.occlusion(net, params, image, label=predicted, window=WINDOW, stride=STRIDE)
        return Inspection(
            probabilities=jax.nn.softmax(log_probs),
            votes=net.apply(params, image),
            stages=explain.stages(net, params, image),
            vote_falls=falls,
        )

    return lambda letter: jax.device_get(inspect(params, letter))
