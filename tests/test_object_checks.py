"""Random keys and functions as arguments: wrong ones are named, wherever they are taken."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

import cnn_jax
from cnn_jax import augment, explain
from cnn_jax._object_checks import check_key
from cnn_jax.data import xo


@pytest.mark.parametrize("key", [jax.random.key(0), jax.random.PRNGKey(0), np.array([0, 0], np.uint32)])
def test_keys_of_both_kinds_are_accepted(key):
    check_key(key)
    jax.jit(check_key)(key)


IMAGE = np.zeros((4, 4, 1), np.float32)
EXAMPLE = (IMAGE, np.array([1.0, 0.0]))
NET = cnn_jax.Chain(cnn_jax.Flatten(), cnn_jax.Dense(2))
PARAMS = NET.init(jax.random.key(0), IMAGE.shape)
FUNCTIONS_OF_A_KEY: dict[str, Callable[[Any], object]] = {
    "init": lambda key: NET.init(key, IMAGE.shape),
    "create": lambda key: cnn_jax.TrainState.create(PARAMS, optax.sgd(0.1), key),
    "smooth_grad": lambda key: explain.smooth_grad(key, NET, PARAMS, IMAGE),
    "draw": xo.draw,
    "flip": lambda key: augment.flip(key, IMAGE),
    "alternating_flip": lambda key: augment.alternating_flip(key, IMAGE, epoch=0),
    "crop": lambda key: augment.crop(key, IMAGE, border=1),
    "shift": lambda key: augment.shift(key, IMAGE),
    "affine": lambda key: augment.affine(key, IMAGE),
    "elastic": lambda key: augment.elastic(key, IMAGE, grid=2),
    "cutout": lambda key: augment.cutout(key, IMAGE, size=1),
    "mixup": lambda key: augment.mixup(key, EXAMPLE, EXAMPLE),
    "cutmix": lambda key: augment.cutmix(key, EXAMPLE, EXAMPLE),
}


@pytest.mark.parametrize("function", FUNCTIONS_OF_A_KEY.values(), ids=FUNCTIONS_OF_A_KEY)
@pytest.mark.parametrize(
    ("key", "got"),
    [(0, "0"), (None, "None"), (np.zeros((2, 2), np.uint32), "keys of shape"), (np.zeros(2), "an array of float64")],
)
def test_every_function_that_draws_names_a_wrong_key(function, key, got):
    with pytest.raises(TypeError, match=rf"key: expected a random key, such as jax.random.key\(0\), got {got}"):
        function(key)
