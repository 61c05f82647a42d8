"""Layers: options and pure functions, and networks made of them whose intermediate activations have names.

net = Chain(Conv(8, 3), Activation(jax.nn.relu), MaxPool(), Flatten(), Dense(2))
params = net.init(key, (28, 28, 1))        # {"conv1": {"kernel": ..., "bias": ...}, "dense1": {...}}
logits = net.apply(params, image)          # one image; jax.vmap gives batches
activations = net.stages(params, image)    # {"conv1": ..., "relu1": ..., "max_pool1": ..., ...}
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY
from typing import ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Shaped

from . import pooling
from ._chain import Chain, Concatenate, Residual
from ._conv_variants import ConvTranspose, DepthwiseConv, SeparableConv
from ._kernel_layers import Conv, Dense, LayerScore, Match
from ._layer import Layer
from ._layer_functions import Apply, ApplyWithIntermediates, Init, Intercept, Stages, identity
from ._layer_options import check_window
from ._params import Params
from ._typing import Padding, Shape
from ._upsampling import UPSAMPLING
from ._validation import as_pair, check_choice, check_image, check_number, to_floats

__all__ = [
    "Activation",
    "Apply",
    "ApplyWithIntermediates",
    "AvgPool",
    "Chain",
    "Concatenate",
    "Conv",
    "ConvTranspose",
    "Dense",
    "DepthwiseConv",
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
    "SeparableConv",
    "Shape",
    "Stages",
    "Upsample",
    "identity",
]


@runtime_checkable
class _PoolFunction(Protocol):
    def __call__(
        self,
        image: Shaped[ArrayLike, "H W *C"],
        *,
        window: int | Sequence[int],
        stride: int | Sequence[int],
        padding: Padding,
    ) -> Array: ...


class _Pool(Layer):
    """A function of every window."""

    pool: ClassVar[_PoolFunction]

    window: int | Sequence[int] = 2
    stride: int | Sequence[int] = 2
    _: KW_ONLY
    padding: Padding = "VALID"

    def __post_init__(self) -> None:
        window, stride, padding = check_window("window", self.window, self.stride, self.padding)
        self._set(window=window, stride=stride, padding=padding)

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "H W *C"], *, train: bool = False, key: Array | None = None
    ) -> Array:
        return self.pool(image, window=self.window, stride=self.stride, padding=self.padding)


class MaxPool(_Pool):
    """Max pooling layer, named "max_pool": keeps the largest value of every window.

    Args:
      window, stride, padding: as in `max_pool`.

    Raises:
      ValueError, TypeError: as `max_pool`. The options are checked when the layer is made.

    >>> MaxPool().apply({}, jnp.arange(4.0).reshape(2, 2))
    Array([[3.]], dtype=float32)
    """

    name = "max_pool"
    pool = staticmethod(pooling.max_pool)


class AvgPool(_Pool):
    """Average pooling layer, named "avg_pool": takes the mean of every window.

    Args:
      window, stride, padding: as in `avg_pool`.

    Raises:
      ValueError, TypeError: as `avg_pool`. The options are checked when the layer is made.

    >>> AvgPool().apply({}, jnp.arange(4.0).reshape(2, 2))
    Array([[1.5]], dtype=float32)
    """

    name = "avg_pool"
    pool = staticmethod(pooling.avg_pool)


class MaxAbsPool(_Pool):
    """Max-magnitude pooling layer, named "max_abs_pool": keeps the value of largest magnitude of every window, with its
    sign.

    Args:
      window, stride, padding: as in `max_abs_pool`.

    Raises:
      ValueError, TypeError: as `max_abs_pool`. The options are checked when the layer is made.

    >>> MaxAbsPool().apply({}, jnp.array([[1.0, -3.0], [2.0, 0.0]]))
    Array([[-3.]], dtype=float32)
    """

    name = "max_abs_pool"
    pool = staticmethod(pooling.max_abs_pool)


class GlobalAvgPool(Layer):
    """Global average pooling layer, named "global_avg_pool": takes the mean of each channel, so that an image becomes a
    vector.

    Source: Lin, Chen and Yan, "Network In Network" (2013), https://arxiv.org/abs/1312.4400

    >>> GlobalAvgPool().apply({}, jnp.arange(4.0).reshape(2, 2, 1))
    Array([1.5], dtype=float32)
    """

    name = "global_avg_pool"

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "H W C"], *, train: bool = False, key: Array | None = None
    ) -> Array:
        return pooling.global_avg_pool(image)


class Upsample(Layer):
    """Upsampling layer, named "upsample": makes an image larger by a whole factor.

    Args:
      scale: how many rows and columns each pixel becomes, an int or (rows, columns).
      method: "nearest" repeats pixels; "bilinear" interpolates between the centers of pixels, as image libraries do.

    Raises:
      ValueError: a scale below 1, an unknown method; from `apply`, an image of the wrong rank.
      TypeError: a scale that is not an int.

    >>> Upsample().apply({}, jnp.array([[1.0, 2.0]]))
    Array([[1., 1., 2., 2.],
           [1., 1., 2., 2.]], dtype=float32)
    >>> Upsample(2, "bilinear").apply({}, jnp.array([[0.0, 4.0]]))
    Array([[0., 1., 3., 4.],
           [0., 1., 3., 4.]], dtype=float32)
    """

    scale: int | Sequence[int] = 2
    method: str = "nearest"
    name = "upsample"

    def __post_init__(self) -> None:
        self._set(scale=as_pair("scale", self.scale), method=check_choice("method", self.method, UPSAMPLING))

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "H W *C"], *, train: bool = False, key: Array | None = None
    ) -> Array:
        (pixels,) = to_floats(check_image(image))
        return UPSAMPLING[self.method](pixels, as_pair("scale", self.scale))


class Flatten(Layer):
    """Flattening layer, named "flatten": all numbers of the input as one vector, in row-major order.

    >>> Flatten().apply({}, jnp.arange(4.0).reshape(2, 2, 1))
    Array([0., 1., 2., 3.], dtype=float32)
    """

    name = "flatten"

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "*shape"], *, train: bool = False, key: Array | None = None
    ) -> Array:
        return jnp.ravel(image)


class Activation(Layer):
    """Activation layer: a function of an array, usually elementwise, such as `jax.nn.relu`.

    The layer is named after the function: "relu".

    Args:
      fn: any function of one array.

    Raises:
      TypeError: `fn` is not callable.

    >>> Activation(jax.nn.relu).apply({}, jnp.array([-1.0, 2.0]))
    Array([0., 2.], dtype=float32)
    """

    fn: Callable[[Array], Array]

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"fn: expected a function of an array, got {self.fn!r}")
        self._set(name=getattr(self.fn, "__name__", "activation"))

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "*shape"], *, train: bool = False, key: Array | None = None
    ) -> Array:
        return self.fn(jnp.asarray(image))


class Dropout(Layer):
    """Dropout layer, named "dropout": in training sets each number to 0 with probability `rate` and divides the others
    by 1 - rate.

    With `train=True` its `apply` needs a key; otherwise it returns its input.

    Args:
      rate: at least 0 and less than 1.

    Raises:
      ValueError: a rate out of range; from `apply`, training without a key.
      TypeError: a rate that is not a number.

    Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting" (2014),
    https://jmlr.org/papers/v15/srivastava14a.html

    >>> Dropout(0.5).apply({}, jnp.ones(4), train=True, key=jax.random.key(0))
    Array([0., 0., 2., 2.], dtype=float32)
    """

    rate: float
    name = "dropout"

    def __post_init__(self) -> None:
        rate = check_number("rate", self.rate, "a number of at least 0 and less than 1", lambda rate: 0 <= rate < 1)
        self._set(rate=rate)

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "*shape"], *, train: bool = False, key: Array | None = None
    ) -> Shaped[Array, "*shape"]:
        image = jnp.asarray(image)
        if not train:
            return image
        if key is None:
            raise ValueError("key: Dropout needs one when train=True, got None")
        is_kept = jax.random.bernoulli(key, 1 - self.rate, image.shape)
        return jnp.where(is_kept, image / (1 - self.rate), 0)
