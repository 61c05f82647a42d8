"""Checks of arguments that are no numbers: random keys, functions, and what functions return."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._errors import describe


def check_key(key: object) -> None:
    """Raises a TypeError unless `key` is one `jax.random.key`, or the raw data of one.

    >>> check_key(0)
    Traceback (most recent call last):
    TypeError: key: expected a random key, such as jax.random.key(0), got 0
    """
    expected = "key: expected a random key, such as jax.random.key(0)"
    if not isinstance(key, jax.Array | np.ndarray):
        raise TypeError(f"{expected}, got {describe(key)}")
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not is_typed and key.dtype != np.uint32:
        raise TypeError(f"{expected}, got an array of {key.dtype}")
    if key.ndim != (0 if is_typed else 1):
        raise TypeError(f"{expected}, got keys of shape {key.shape}")


def check_callable(name: str, function: object, expected: str) -> None:
    """Raises a TypeError unless an argument is a function.

    >>> check_callable("loss", "mse", "loss(logits, label)")
    Traceback (most recent call last):
    TypeError: loss: expected a function loss(logits, label), got 'mse'
    """
    if not callable(function):
        raise TypeError(f"{name}: expected a function {expected}, got {describe(function)}")


def check_pair(name: str, value: object, expected: str) -> tuple[Any, Any]:
    """The two values that a user's function returns; raises a TypeError for anything else.

    >>> check_pair("augment", None, "(images, labels)")
    Traceback (most recent call last):
    TypeError: augment: expected a function that returns (images, labels), got one that returns None
    """
    if not isinstance(value, tuple | list) or len(value) != 2:
        got = f"a {type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else describe(value)
        raise TypeError(f"{name}: expected a function that returns {expected}, got one that returns {got}")
    first, second = value
    return first, second
