"""Layers with learned kernels: convolution, matching and fully connected layers."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Shaped

from . import matching
from ._algorithms import GROUPED_METHODS, check_method
from ._dtypes import accumulation_dtype
from ._layer import Layer
from ._layer_options import check_window
from ._object_checks import check_callable
from ._params import Params
from ._typing import Padding, Pair, Shape
from ._validation import as_floats, as_pair, check_bool, check_int, check_number
from ._xla import spread_bias
from .convolution import conv

MIN_KERNEL_VARIANCE = 1e-12  # keeps the standardization of constant kernels finite
_he_normal = jax.nn.initializers.he_normal()


def he_normal(
    key: Array,
    shape: Sequence[int],
    dtype: DTypeLike | None = jnp.float32,
    out_sharding: jax.NamedSharding | jax.P | None = None,
) -> Array:
    """He normal initializer: that of JAX as a function of a module, which can be pickled."""
    return _he_normal(key, shape, dtype, out_sharding)


@runtime_checkable
class LayerScore(Protocol):
    """A score that `Match` can compute; learned options are passed by name."""

    def __call__(self, image: Array, feature: Array, /, *, stride: Pair, padding: Padding) -> Array: ...


class Conv(Layer):
    """Convolution layer, named "conv": `conv` with learned kernels, plus a bias per feature.

    Its parameters are "kernel" and "bias".

    Args:
      features: number of kernels, the channels of the output.
      kernel_size: rows and columns of the kernels, an int or (h, w).
      stride, padding, dilation, groups, method: as in `conv`. Each kernel has C // groups channels.
      use_bias: adds a learned bias, initially 0, to each feature map.
      standardize: standardizes each kernel over its h w (C // groups) weights, to mean 0 and variance 1, before use
        (weight standardization); a normalization layer should follow.
      kernel_init: initializer of the kernels (h, w, C // groups, features).

    Raises:
      ValueError: an int below 1, an unknown padding or method, groups that do not divide features and channels,
        `standardize` with kernels of one weight; from `init`, a shape that is not (H, W, C).
      TypeError: an option of another kind, such as a number of kernels that is not an int.

    Source: He et al., "Delving Deep into Rectifiers" (2015), https://arxiv.org/abs/1502.01852, for the initial kernels.
    Qiao et al., "Weight Standardization" (2019), https://arxiv.org/abs/1903.10520

    >>> net = Conv(4, 5, stride=2)
    >>> net
    Conv(4, kernel_size=5, stride=2)
    >>> jax.tree.map(jnp.shape, net.init(jax.random.key(0), (8, 8, 1)))
    {'bias': (4,), 'kernel': (5, 5, 1, 4)}
    """

    features: int
    kernel_size: int | Sequence[int] = 3
    _: KW_ONLY
    stride: int | Sequence[int] = 1
    padding: Padding = "VALID"
    dilation: int | Sequence[int] = 1
    groups: int = 1
    use_bias: bool = True
    standardize: bool = False
    kernel_init: Initializer = he_normal
    method: str = "auto"
    name = "conv"

    def __post_init__(self) -> None:
        features = check_int("features", self.features)
        groups = check_int("groups", self.groups)
        dilation = as_pair("dilation", self.dilation)
        kernel_size, stride, padding = check_window("kernel_size", self.kernel_size, self.stride, self.padding)
        check_kernel_options(self.kernel_init, self.use_bias)
        check_method(self.method)
        check_bool("standardize", self.standardize)
        if groups > 1 and self.method not in GROUPED_METHODS:
            raise ValueError(f"groups: expected 1 with method={self.method!r}, got {groups}")
        if features % groups:
            raise ValueError(f"groups: expected a divisor of the {features} features, got {groups}")
        self._set(features=features, kernel_size=kernel_size, stride=stride, padding=padding)
        self._set(dilation=dilation, groups=groups)

    def _init(self, key: Array, shape: Shape) -> Params:
        channels = check_image_shape("Conv", shape)[2]
        kernel_size = as_pair("kernel_size", self.kernel_size)
        if channels % self.groups:
            raise ValueError(f"groups: expected a divisor of the {channels} channels, got {self.groups}")
        if self.standardize and math.prod(kernel_size) * channels == self.groups:
            raise ValueError("standardize: expected at least two weights per kernel, got one")
        kernel = self.kernel_init(key, (*kernel_size, channels // self.groups, self.features), jnp.float32)
        return {"kernel": kernel} | init_bias(self.features, self.use_bias)

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "H W C"], *, train: bool = False, key: Array | None = None
    ) -> Float[Array, "H2 W2 K"]:
        kernel = _standardize(params["kernel"]) if self.standardize else params["kernel"]
        out = conv(
            image,
            kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            method=self.method,
        )
        return out + spread_bias(params["bias"], out.shape) if self.use_bias else out


class Match(Layer):
    """Matching layer, named "match": a score of the image with each of several learned features.

    Its parameters are "features" and, for each learned option, "log_" and its name.

    With `match`, outputs are in [-1, 1] as long as images and features are. With `cosine`, `zncc` and
    `sharpened_cosine`, outputs are always in [-1, 1].

    Args:
      features: number of features, the channels of the output.
      kernel_size: rows and columns of the features, an int or (h, w).
      score: a score of `cnn_jax.matching`, or a function with the same arguments.
      learn: maps options of the score to their positive initial values. Each is learned per feature, as its logarithm.
      stride, padding: as in `match`.
      kernel_init: initializer of the features (h, w, C, features); by default uniform in [-1, 1].

    Raises:
      ValueError: an int below 1, an unknown padding, an initial value that is not above 0; from `init`, a shape that is
        not (H, W, C).
      TypeError: an option of the wrong type.

    Source: Rohrer, "How Convolutional Neural Networks Work" (2016),
    https://brohrer.github.io/how_convolutional_neural_networks_work.html

    The sharpened cosine similarity layer:

    >>> net = Match(4, 3, score=matching.sharpened_cosine, learn={"p": 2.0, "q": 0.1})
    >>> params = net.init(jax.random.key(0), (8, 8, 1))
    >>> jax.tree.map(jnp.shape, params)
    {'features': (3, 3, 1, 4), 'log_p': (4,), 'log_q': (4,)}
    >>> jax.eval_shape(net.apply, params, jnp.ones((8, 8, 1))).shape
    (6, 6, 4)
    """

    features: int
    kernel_size: int | Sequence[int] = 3
    _: KW_ONLY
    score: LayerScore = matching.match
    learn: Mapping[str, float] | None = None
    stride: int | Sequence[int] = 1
    padding: Padding = "VALID"
    kernel_init: Initializer | None = None
    name = "match"

    def __post_init__(self) -> None:
        features = check_int("features", self.features)
        kernel_size, stride, padding = check_window("kernel_size", self.kernel_size, self.stride, self.padding)
        if not callable(self.score):
            raise TypeError(f"score: expected a function such as cnn_jax.match, got {self.score!r}")
        learn = None if self.learn is None else _check_learn(self.learn)
        self._set(features=features, kernel_size=kernel_size, stride=stride, padding=padding, learn=learn)

    def _init(self, key: Array, shape: Shape) -> Params:
        kernel_size = as_pair("kernel_size", self.kernel_size)
        bank_shape = (*kernel_size, check_image_shape("Match", shape)[2], self.features)
        if self.kernel_init is None:
            bank = jax.random.uniform(key, bank_shape, jnp.float32, -1, 1)
        else:
            bank = self.kernel_init(key, bank_shape, jnp.float32)
        logs = {
            f"log_{name}": jnp.full(self.features, math.log(value), jnp.float32)
            for name, value in (self.learn or {}).items()
        }
        return {"features": bank} | logs

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "H W C"], *, train: bool = False, key: Array | None = None
    ) -> Float[Array, "H2 W2 K"]:
        def score_map(feature: Array, learned: dict[str, Array]) -> Array:
            score = functools.partial(self.score, **learned)
            stride = as_pair("stride", self.stride)
            return score(jnp.asarray(image), feature, stride=stride, padding=self.padding)

        learned = {name: jnp.exp(params[f"log_{name}"]) for name in self.learn or {}}
        return jax.vmap(score_map, in_axes=(-1, 0), out_axes=-1)(params["features"], learned)


class Dense(Layer):
    """Fully connected layer, named "dense": each output is a weighted sum of all inputs, plus a bias.

        out[k] = sum over i of vector[i] kernel[i, k] + bias[k]

    Its input is a vector. Its parameters are "kernel" and "bias".

    Args:
      features: number of outputs.
      use_bias: adds a learned bias, initially 0, to each output.
      kernel_init: initializer of the kernel (inputs, features).

    Raises:
      ValueError: `features` below 1; from `init` and `apply`, an input that is not a vector or of another length.
      TypeError: `features` that is not an int.

    >>> net = Dense(2)
    >>> net.apply(net.init(jax.random.key(0), (5,)), jnp.zeros(5))
    Array([0., 0.], dtype=float32)
    """

    features: int
    _: KW_ONLY
    use_bias: bool = True
    kernel_init: Initializer = he_normal
    name = "dense"

    def __post_init__(self) -> None:
        check_kernel_options(self.kernel_init, self.use_bias)
        self._set(features=check_int("features", self.features))

    def _init(self, key: Array, shape: Shape) -> Params:
        if len(shape) != 1:
            raise ValueError(f"Dense: expected a vector, got shape {shape}; put Flatten or GlobalAvgPool before it")
        kernel = self.kernel_init(key, (*shape, self.features), jnp.float32)
        return {"kernel": kernel} | init_bias(self.features, self.use_bias)

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, " inputs"], *, train: bool = False, key: Array | None = None
    ) -> Float[Array, " K"]:
        vector, kernel = as_floats(vector=image, kernel=params["kernel"])
        if vector.shape != kernel.shape[:1]:
            raise ValueError(f"vector: expected shape {kernel.shape[:1]}, got {vector.shape}")
        out = jnp.dot(vector, kernel)  # 16-bit products are added in float32 and rounded once
        return out + params["bias"] if self.use_bias else out


def check_kernel_options(kernel_init: object, use_bias: object) -> None:
    """Raises a TypeError for options of kernels and biases that are of another kind."""
    check_callable("kernel_init", kernel_init, "initializer(key, shape, dtype)")
    check_bool("use_bias", use_bias)


def check_image_shape(layer: str, shape: Shape) -> Shape:
    if len(shape) != 3 or math.prod(shape) == 0:
        raise ValueError(f"{layer}: expected an image shape (H, W, C), got {shape}")
    return shape


def _check_learn(learn: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(learn, Mapping):
        raise TypeError(f"learn: expected a dict of names and positive numbers, got {learn!r}")
    return {
        name: check_number(f"learn[{name!r}]", value, "a finite number above 0", lambda value: value > 0)
        for name, value in learn.items()
    }


def init_bias(features: int, use_bias: bool) -> Params:
    return {"bias": jnp.zeros(features, jnp.float32)} if use_bias else {}


def _standardize(kernel: Shaped[ArrayLike, "h w C K"]) -> Float[Array, "h w C K"]:
    """Each kernel minus its mean, divided by its standard deviation."""
    kernel = jnp.asarray(kernel)
    weights = kernel.astype(accumulation_dtype(kernel.dtype))
    centered = weights - jnp.mean(weights, (0, 1, 2), keepdims=True)
    variance = jnp.mean(centered * centered, (0, 1, 2), keepdims=True)
    return (centered * lax.rsqrt(variance + MIN_KERNEL_VARIANCE)).astype(kernel.dtype)
