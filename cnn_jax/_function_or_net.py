"""Checks and parameter shapes for `cost` and `receptive_field`, which take a function or a `Layer`."""

from collections.abc import Callable, Sequence

import jax

from ._errors import describe
from .layers import Layer, Params


def check_function(function_or_net: object) -> Callable[..., object]:
    """Returns the function; raises a TypeError for a value that cannot be called."""
    if not callable(function_or_net):
        raise TypeError(f"function_or_net: expected a function or a Layer, got {describe(function_or_net)}")
    return function_or_net


def parameter_shapes(net: Layer, shape: Sequence[int]) -> Params:
    """Shapes and dtypes of a network's parameters for images of this shape, without computing them."""
    return jax.eval_shape(lambda: net.init(jax.random.key(0), tuple(shape)))
