"""Normalization layers: over the batch, within an image, or among neighboring channels. All compute in float32.

`calibrate` sets the population statistics of BatchNorm after training.
"""

from dataclasses import KW_ONLY

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Shaped

from ._calibration import calibrate, check_calibrated, missing_statistics
from ._dtypes import accumulation_dtype
from ._layer import Layer
from ._layer_functions import Intercept, Stages, identity
from ._params import Params
from ._typing import Shape
from ._validation import as_floats, check_int, check_number

__all__ = ["BATCH_AXIS", "BatchNorm", "GroupNorm", "LayerNorm", "LocalResponseNorm", "calibrate"]

BATCH_AXIS = "batch"  # name of the vmapped axis over which BatchNorm takes statistics


class _Norm(Layer):
    """A layer with a scale and a bias per channel."""

    _: KW_ONLY
    use_scale: bool = True
    use_bias: bool = True
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        epsilon = check_number("epsilon", self.epsilon, "a finite number of at least 0", lambda epsilon: epsilon >= 0)
        self._set(epsilon=epsilon)

    def _init(self, key: Array, shape: Shape) -> Params:
        channels = _channels(shape)
        params = {}
        if self.use_scale:
            params["scale"] = jnp.ones(channels, jnp.float32)
        if self.use_bias:
            params["bias"] = jnp.zeros(channels, jnp.float32)
        return params


class BatchNorm(_Norm):
    """Batch normalization, named "batch_norm": standardizes each channel, by batch statistics in training and by
    population statistics after.

        out = (image - mean) / sqrt(variance + epsilon) * scale + bias

    In training the mean and variance are those of the batch: images must be mapped by
    `jax.vmap(..., axis_name="batch")`, as `fit` does. Sharding the batch over devices changes nothing.

    No running averages are kept, so `apply` has no state. After training, `calibrate`, which `fit` calls at its end,
    computes the population mean and variance from images with the trained parameters ("precise BN"; `update_bn` in
    PyTorch's SWA utilities). They are parameters that get no gradient in training. Weight decay changes them without
    effect: training does not use them, and `calibrate` replaces them. Until then the variance is negative, and outside
    of training `apply` refuses it, or returns NaN inside a compiled program, where values are not known. `save_params`
    and `export` refuse it too.

    Intermediate activations are "mean" and "variance" (of the batch in training, of the single image otherwise) and
    "normalized", the output. The variance is the biased one: the mean square.

    Args:
      use_scale: multiplies each channel by a learned scale, initially 1.
      use_bias: adds a learned bias, initially 0, to each channel.
      epsilon: finite number of at least 0, added to the variance.

    Raises:
      ValueError: an epsilon out of range; from `apply`, training without an axis named "batch", or statistics that
        `calibrate` has not set, outside of training.
      TypeError: an epsilon that is not a number.

    Source: Ioffe and Szegedy, "Batch Normalization" (2015), https://arxiv.org/abs/1502.03167. Wu and Johnson,
    "Rethinking 'Batch' in BatchNorm" (2021), https://arxiv.org/abs/2105.07576, for precise BN.

    >>> import jax
    >>> net = BatchNorm()
    >>> params = net.init(jax.random.key(0), (1, 1, 1))
    >>> images = jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    >>> jax.vmap(lambda image: net.apply(params, image, train=True), axis_name="batch")(images).ravel().round(3)
    Array([-1.,  1.], dtype=float32)
    """

    name = "batch_norm"
    has_intermediates = True

    def _init(self, key: Array, shape: Shape) -> Params:
        return super()._init(key, shape) | missing_statistics(_channels(shape))

    def _apply_with_intermediates(
        self,
        params: Params,
        image: Shaped[ArrayLike, "*spatial C"],
        *,
        train: bool = False,
        key: Array | None = None,
        intercept: Intercept = identity,
    ) -> Stages:
        (image,) = as_floats(image=image)
        values = _widen(image)
        mean = _channel_means(values)
        if train:
            mean = _pmean_over_batch(mean)
            centered = values - _broadcast_channels(mean, values)
            variance = _pmean_over_batch(_channel_means(_square(centered)))
            padded_variance = variance + self.epsilon
        else:
            check_calibrated(params)
            variance = _channel_means(_square(values - _broadcast_channels(mean, values)))
            centered = values - _broadcast_channels(params["mean"], values)
            padded_variance = _nan_if_missing(params["variance"], self.epsilon)
        standardized = centered * lax.rsqrt(_broadcast_channels(padded_variance, values))
        out = _scale_and_shift(standardized, params).astype(image.dtype)
        return Stages(mean=mean, variance=variance, normalized=intercept("normalized", out))


class GroupNorm(_Norm):
    """Group normalization, named "group_norm": standardizes each group of channels over all pixels of one image.

    Args:
      groups: number of groups, a divisor of the channels. With 1, all channels are normalized together.
      use_scale, use_bias, epsilon: as in `BatchNorm`.

    Raises:
      ValueError: `groups` below 1, an epsilon out of range; from `init`, groups that do not divide the channels.
      TypeError: an option of the wrong type.

    Source: Wu and He, "Group Normalization" (2018), https://arxiv.org/abs/1803.08494

    >>> import jax
    >>> net = GroupNorm(1, use_scale=False, use_bias=False)
    >>> net.apply(net.init(jax.random.key(0), (1, 2, 1)), jnp.array([[[1.0], [3.0]]])).ravel().round(3)
    Array([-1.,  1.], dtype=float32)
    """

    groups: int
    name = "group_norm"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(groups=check_int("groups", self.groups))

    def _init(self, key: Array, shape: Shape) -> Params:
        channels = _channels(shape)
        if channels % self.groups:
            raise ValueError(f"groups: expected a divisor of the {channels} channels, got {self.groups}")
        return super()._init(key, shape)

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "*spatial C"], *, train: bool = False, key: Array | None = None
    ) -> Float[Array, "*spatial C"]:
        (image,) = as_floats(image=image)
        grouped = _widen(image).reshape(*image.shape[:-1], self.groups, -1)
        pixels_and_channels_of_a_group = (*range(image.ndim - 1), image.ndim)
        standardized = _standardize(grouped, pixels_and_channels_of_a_group, self.epsilon).reshape(image.shape)
        return _scale_and_shift(standardized, params).astype(image.dtype)


class LayerNorm(_Norm):
    """Layer normalization, named "layer_norm": standardizes each pixel of an image, or a vector, over its channels.

    Args:
      use_scale, use_bias, epsilon: as in `BatchNorm`.

    Raises:
      ValueError: an epsilon out of range.
      TypeError: an epsilon that is not a number.

    Source: Ba, Kiros and Hinton, "Layer Normalization" (2016), https://arxiv.org/abs/1607.06450

    >>> import jax
    >>> net = LayerNorm(use_scale=False, use_bias=False)
    >>> net.apply(net.init(jax.random.key(0), (2,)), jnp.array([1.0, 3.0])).round(3)
    Array([-1.,  1.], dtype=float32)
    """

    name = "layer_norm"

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "*spatial C"], *, train: bool = False, key: Array | None = None
    ) -> Float[Array, "*spatial C"]:
        (image,) = as_floats(image=image)
        standardized = _standardize(_widen(image), (-1,), self.epsilon)
        return _scale_and_shift(standardized, params).astype(image.dtype)


class LocalResponseNorm(Layer):
    """Local response normalization, named "local_response_norm": divides each number by a power of the mean square over
    neighboring channels.

        out[c] = image[c] / (k + alpha / size * Σ image[c']²)^beta,  c - size // 2 <= c' <= c + (size - 1) // 2

    Args:
      size: number of channels in the sum. Channels beyond the first and the last count as 0, as in PyTorch.
      alpha, beta, k: as in the formula.

    Raises:
      ValueError: `size` below 1.
      TypeError: `size` that is not an int.

    Source: Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012),
    https://doi.org/10.1145/3065386. There alpha is not divided by the size.

    >>> LocalResponseNorm(1, alpha=1.0, beta=0.5).apply({}, jnp.array([[[0.0, 1.0]]])).round(3)
    Array([[[0.   , 0.707]]], dtype=float32)
    """

    size: int = 5
    _: KW_ONLY
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0
    name = "local_response_norm"

    def __post_init__(self) -> None:
        self._set(size=check_int("size", self.size))

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "*spatial C"], *, train: bool = False, key: Array | None = None
    ) -> Float[Array, "*spatial C"]:
        (image,) = as_floats(image=image)
        values = _widen(image)
        window = (1,) * (image.ndim - 1) + (self.size,)
        padding = [(0, 0)] * (image.ndim - 1) + [(self.size // 2, (self.size - 1) // 2)]
        square_sums = lax.reduce_window(_square(values), 0.0, lax.add, window, (1,) * image.ndim, padding)
        return (values / (self.k + self.alpha / self.size * square_sums) ** self.beta).astype(image.dtype)


def _widen(image: Array) -> Array:
    """The image in the dtype to add up in."""
    return image.astype(accumulation_dtype(image.dtype))


def _channel_means(image: Array) -> Array:
    return jnp.mean(image, tuple(range(image.ndim - 1)))


def _square(x: Array) -> Array:
    return x * x


def _pmean_over_batch(value: Array) -> Array:
    """The mean over the vmapped axis named "batch"."""
    try:
        return lax.pmean(value, BATCH_AXIS)
    except NameError as error:
        raise ValueError(
            f"BatchNorm: training needs images mapped by jax.vmap(..., axis_name={BATCH_AXIS!r}), "
            "got no axis of that name"
        ) from error


def _channels(shape: Shape) -> int:
    if not shape:
        raise ValueError(f"shape: expected that of an image or a vector, got {shape}")
    return shape[-1]


def _standardize(image: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """Subtracts the mean over the axes and divides by the standard deviation over them."""
    centered = image - jnp.mean(image, axes, keepdims=True)
    return centered * lax.rsqrt(jnp.mean(_square(centered), axes, keepdims=True) + epsilon)


def _scale_and_shift(image: Array, params: Params) -> Array:
    if "scale" in params:
        image = image * _broadcast_channels(params["scale"], image)
    if "bias" in params:
        image = image + _broadcast_channels(params["bias"], image)
    return image


def _broadcast_channels(values: Shaped[ArrayLike, "*spatial C"], image: Array) -> Array:
    """Values per channel, in the rank and the dtype of an image."""
    values = jnp.asarray(values, image.dtype)
    return values.reshape((1,) * (image.ndim - values.ndim) + values.shape)


def _nan_if_missing(variance: Shaped[ArrayLike, " C"], epsilon: float) -> Array:
    """A variance plus epsilon, whose root is NaN for statistics that `calibrate` has not set."""
    variance = jnp.asarray(variance)
    return jnp.where(variance < 0, variance, variance + epsilon)
