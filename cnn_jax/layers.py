"""Layers as pairs of pure functions, and networks made of them whose intermediate activations have names.

net = Chain(Conv(8, 3), Activation(jax.nn.relu), MaxPool(), Flatten(), Dense(2))
params = net.init(key, (28, 28, 1))        # {"conv1": {"kernel": ..., "bias": ...}, "dense1": {...}}
logits = net.apply(params, image)          # one image; jax.vmap gives batches
activations = net.stages(params, image)    # {"conv1": ..., "relu1": ..., "max_pool1": ..., ...}
"""

import functools
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Shaped

from . import pooling
from ._chain import Chain, Residual
from ._kernel_layers import Conv, Dense, LayerScore, Match
from ._layer import (
    Apply,
    ApplyWithIntermediates,
    Init,
    Intercept,
    Layer,
    Params,
    Shape,
    Stages,
    check_window,
    identity,
    init_without_params,
    stateless,
)
from ._typing import Padding, Pair
from ._validation import check_number

__all__ = [
    "Activation",
    "Apply",
    "ApplyWithIntermediates",
    "AvgPool",
    "Chain",
    "Conv",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Init",
    "Intercept",
    "Layer",
    "LayerScore",
    "Match",
    "MaxAbsPool",
    "MaxPool",
    "Params",
    "Residual",
    "Shape",
    "Stages",
    "identity",
]


def MaxPool(window: int | Sequence[int] = 2, stride: int | Sequence[int] = 2, *, padding: Padding = "VALID") -> Layer:
    """Max pooling layer: keeps the largest value of every window.

    Args:
      window, stride, padding: as in `max_pool`.

    Returns:
      A layer named "max_pool" without parameters.

    Raises:
      ValueError, TypeError: as `max_pool`. The options are checked when the layer is made.

    >>> MaxPool().apply({}, jnp.arange(4.0).reshape(2, 2))
    Array([[3.]], dtype=float32)
    """
    return _pool("max_pool", pooling.max_pool, window, stride, padding)


def AvgPool(window: int | Sequence[int] = 2, stride: int | Sequence[int] = 2, *, padding: Padding = "VALID") -> Layer:
    """Average pooling layer: takes the mean of every window.

    Args:
      window, stride, padding: as in `avg_pool`.

    Returns:
      A layer named "avg_pool" without parameters.

    Raises:
      ValueError, TypeError: as `avg_pool`. The options are checked when the layer is made.

    >>> AvgPool().apply({}, jnp.arange(4.0).reshape(2, 2))
    Array([[1.5]], dtype=float32)
    """
    return _pool("avg_pool", pooling.avg_pool, window, stride, padding)


def MaxAbsPool(
    window: int | Sequence[int] = 2, stride: int | Sequence[int] = 2, *, padding: Padding = "VALID"
) -> Layer:
    """Max-magnitude pooling layer: keeps the value of largest magnitude of every window, with its sign.

    Args:
      window, stride, padding: as in `max_abs_pool`.

    Returns:
      A layer named "max_abs_pool" without parameters.

    Raises:
      ValueError, TypeError: as `max_abs_pool`. The options are checked when the layer is made.

    >>> MaxAbsPool().apply({}, jnp.array([[1.0, -3.0], [2.0, 0.0]]))
    Array([[-3.]], dtype=float32)
    """
    return _pool("max_abs_pool", pooling.max_abs_pool, window, stride, padding)


def GlobalAvgPool() -> Layer:
    """Global average pooling layer: takes the mean of each channel, so that an image becomes a vector.

    Returns:
      A layer named "global_avg_pool" without parameters.

    Source: Lin, Chen and Yan, "Network In Network" (2013), https://arxiv.org/abs/1312.4400

    >>> GlobalAvgPool().apply({}, jnp.arange(4.0).reshape(2, 2, 1))
    Array([1.5], dtype=float32)
    """
    return stateless("global_avg_pool", pooling.global_avg_pool)


def Flatten() -> Layer:
    """Flattening layer: all numbers of the input as one vector, in row-major order.

    Returns:
      A layer named "flatten" without parameters.

    >>> Flatten().apply({}, jnp.arange(4.0).reshape(2, 2, 1))
    Array([0., 1., 2., 3.], dtype=float32)
    """
    return stateless("flatten", jnp.ravel)


def Activation(fn: Callable[[Array], Array]) -> Layer:
    """Activation layer: a function of an array, usually elementwise, such as `jax.nn.relu`.

    Args:
      fn: any function of one array.

    Returns:
      A layer without parameters, named after the function: "relu".

    Raises:
      TypeError: `fn` is not callable.

    >>> Activation(jax.nn.relu).apply({}, jnp.array([-1.0, 2.0]))
    Array([0., 2.], dtype=float32)
    """
    if not callable(fn):
        raise TypeError(f"fn: expected a function of an array, got {fn!r}")
    return stateless(getattr(fn, "__name__", "activation"), lambda image: fn(jnp.asarray(image)))


def Dropout(rate: float) -> Layer:
    """Dropout layer: in training sets each number to 0 with probability `rate` and divides the others by 1 - rate.

    Args:
      rate: at least 0 and less than 1.

    Returns:
      A layer named "dropout". With `train=True` its `apply` needs a key; otherwise it returns its input.

    Raises:
      ValueError: a rate out of range; from `apply`, training without a key.
      TypeError: a rate that is not a number.

    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting" (2014),
    https://jmlr.org/papers/v15/srivastava14a.html

    >>> Dropout(0.5).apply({}, jnp.ones(4), train=True, key=jax.random.key(0))
    Array([0., 0., 2., 2.], dtype=float32)
    """
    rate = check_number("rate", rate, "a number of at least 0 and less than 1", lambda rate: 0 <= rate < 1)

    def apply(
        params: Params, image: Shaped[ArrayLike, "*shape"], *, train: bool = False, key: Array | None = None
    ) -> Shaped[Array, "*shape"]:
        image = jnp.asarray(image)
        if not train:
            return image
        if key is None:
            raise ValueError("key: Dropout needs one when train=True, got None")
        is_kept = jax.random.bernoulli(key, 1 - rate, image.shape)
        return jnp.where(is_kept, image / (1 - rate), 0)

    return Layer(init_without_params, apply, "dropout")


@runtime_checkable
class _Pool(Protocol):
    def __call__(
        self, image: Shaped[ArrayLike, "H W *C"], *, window: Pair, stride: Pair, padding: Padding
    ) -> Array: ...


def _pool(name: str, pool: _Pool, window: int | Sequence[int], stride: int | Sequence[int], padding: Padding) -> Layer:
    window, stride = check_window("window", window, stride, padding)
    return stateless(name, functools.partial(pool, window=window, stride=stride, padding=padding))
