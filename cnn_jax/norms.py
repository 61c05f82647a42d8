"""Layers that normalise: over the batch, within an image, or among neighbouring channels. All compute in float32."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ._dtypes import accumulation_dtype
from ._validation import as_floats, as_shape, check_int, check_number, check_shape
from .layers import Intercept, Layer, Params, Shape, Stages, identity

Path = tuple[str, ...]
BATCH = "batch"  # the name of the axis over which statistics are taken


def BatchNorm(*, use_scale: bool = True, use_bias: bool = True, epsilon: float = 1e-5) -> Layer:
    """Normalises every channel by its mean and variance: of the batch in training, of the population afterwards.

        out = (image - mean) / sqrt(variance + epsilon) * scale + bias

    In training, images must be mapped over by `jax.vmap(..., axis_name="batch")`, as `fit` does; a sharded batch needs
    no more. Nothing is kept of those statistics: when training is over, `calibrate` computes the population's, which
    start as 0 and 1, are parameters too and get no gradient; weight decay moves them, to no effect. The variance is the
    biased one, of all pixels.

    Its stages "mean" and "variance" are those of the batch in training, and of the image by itself otherwise.

    Raises a ValueError when it is trained without such an axis.

    Source: Ioffe and Szegedy, "Batch Normalization" (2015).

    >>> net = BatchNorm()
    >>> params = net.init(jax.random.key(0), (1, 1, 1))
    >>> images = jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    >>> jax.vmap(lambda image: net.apply(params, image, train=True), axis_name="batch")(images).ravel().round(3)
    Array([-1.,  1.], dtype=float32)
    """
    epsilon = _epsilon(epsilon)

    def setup(key: Array, shape: Shape) -> Params:
        channels = _channels(shape)
        statistics = {"mean": jnp.zeros(channels, jnp.float32), "variance": jnp.ones(channels, jnp.float32)}
        return _scale_and_bias(channels, use_scale, use_bias) | statistics

    def apply_with_intermediates(
        params: Params, image: Array, *, train: bool = False, key: Array | None = None, intercept: Intercept = identity
    ) -> Stages:
        image, wide = _floats(image)
        if train:
            mean = _over_batch(_mean(wide))
            centred = wide - _along(mean, wide)
            variance = _over_batch(_mean(_square(centred)))
            seen = {"mean": mean, "variance": variance}
        else:
            own = _mean(wide)
            seen = {"mean": own, "variance": _mean(_square(wide - _along(own, wide)))}
            centred, variance = wide - _along(params["mean"], wide), params["variance"]
        out = _scaled(centred * lax.rsqrt(_along(variance, wide) + epsilon), params)
        return Stages(**seen, normalized=intercept("normalized", out.astype(image.dtype)))

    def apply(params: Params, image: Array, *, train: bool = False, key: Array | None = None) -> Array:
        return apply_with_intermediates(params, image, train=train, key=key)["normalized"]

    return Layer(setup, apply, "batch_norm", apply_with_intermediates)


def calibrate(net: Layer, params: Params, images: Float[Array, "N H W C"], *, batch_size: int = 500) -> Params:
    """Puts the population's statistics into every BatchNorm of a network: its inputs' over all the images, (N, H, W, C)
    or grey (N, H, W), which must be as the network sees them: scaled, if `augment` scales them for `fit`.

    They are computed from the first to the last, each with those before it in place, so that they are exactly what the
    trained network sees, whatever the batches were: as many passes over the images as there are. Without any BatchNorm
    the parameters come back as they were.

    Not for use under `jax.jit`. Raises a ValueError for images of a wrong rank or none, a batch_size below 1, and a
    BatchNorm within a layer that shows no stages, so that nobody knows what comes to it.

    >>> net = BatchNorm()
    >>> params = net.init(jax.random.key(0), (1, 1, 1))
    >>> params = calibrate(net, params, jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1))
    >>> params["mean"], params["variance"]
    (Array([2.], dtype=float32), Array([1.], dtype=float32))
    """
    own: Any = images if isinstance(images, jax.Array) else np.asarray(images)  # which stay where they are
    check_shape("images", own, "N H W", "N H W C")
    own = own if own.ndim == 4 else own[..., None]
    paths, batch_size = _batch_norms(net, params, own[0]), check_int("batch_size", batch_size)

    @jax.jit
    def moments(params: Params, images: Array) -> dict[Path, tuple[Array, ...]]:
        """The mean and the variance of every image."""
        stages = jax.vmap(net.stages, (None, 0))(params, images)
        return {path: tuple(stages["/".join((*path, name))] for name in ("mean", "variance")) for path in paths}

    for path in paths:
        parts = [moments(params, own[i : i + batch_size])[path] for i in range(0, len(own), batch_size)]
        means, variances = (np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True))
        params = _with(params, path, mean=means.mean(0), variance=variances.mean(0) + means.var(0))
    return params


def GroupNorm(groups: int, *, use_scale: bool = True, use_bias: bool = True, epsilon: float = 1e-5) -> Layer:
    """Normalises every image by itself, each of so many groups of channels over all of its pixels.

    Raises a ValueError when the channels cannot be divided into so many groups. One group is all.

    Source: Wu and He, "Group Normalization" (2018).

    >>> net = GroupNorm(1, use_scale=False, use_bias=False)
    >>> net.apply(net.init(jax.random.key(0), (1, 2, 1)), jnp.array([[[1.0], [3.0]]])).ravel().round(3)
    Array([-1.,  1.], dtype=float32)
    """
    groups, epsilon = check_int("groups", groups), _epsilon(epsilon)

    def setup(key: Array, shape: Shape) -> Params:
        channels = _channels(shape)
        if channels % groups:
            raise ValueError(f"groups: expected a divisor of the {channels} channels, got {groups}")
        return _scale_and_bias(channels, use_scale, use_bias)

    def apply(params: Params, image: Array, **_: Any) -> Array:
        image, wide = _floats(image)
        grouped = wide.reshape(*image.shape[:-1], groups, -1)
        axes = (*range(image.ndim - 1), image.ndim)
        return _scaled(_standardized(grouped, axes, epsilon).reshape(image.shape), params).astype(image.dtype)

    return Layer(setup, apply, "group_norm")


def LayerNorm(*, use_scale: bool = True, use_bias: bool = True, epsilon: float = 1e-5) -> Layer:
    """Normalises every pixel, or a vector, over its channels.

    Source: Ba, Kiros and Hinton, "Layer Normalization" (2016).

    >>> net = LayerNorm(use_scale=False, use_bias=False)
    >>> net.apply(net.init(jax.random.key(0), (2,)), jnp.array([1.0, 3.0])).round(3)
    Array([-1.,  1.], dtype=float32)
    """
    epsilon = _epsilon(epsilon)

    def setup(key: Array, shape: Shape) -> Params:
        return _scale_and_bias(_channels(shape), use_scale, use_bias)

    def apply(params: Params, image: Array, **_: Any) -> Array:
        image, wide = _floats(image)
        return _scaled(_standardized(wide, (-1,), epsilon), params).astype(image.dtype)

    return Layer(setup, apply, "layer_norm")


def LocalResponseNorm(size: int = 5, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Layer:
    """Divides every number by a power of the mean square around it, over `size` neighbouring channels.

        out[c] = image[c] / (k + alpha / size * Σ image[c']²)^beta,  c - size // 2 <= c' <= c + (size - 1) // 2

    Channels that are not there count as 0, as in PyTorch.

    Source: Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012),
    whose alpha is not divided by the size.

    >>> LocalResponseNorm(1, alpha=1.0, beta=0.5).apply({}, jnp.array([[[0.0, 1.0]]])).round(3)
    Array([[[0.   , 0.707]]], dtype=float32)
    """
    size = check_int("size", size)

    def apply(params: Params, image: Array, **_: Any) -> Array:
        image, wide = _floats(image)
        window = (1,) * (image.ndim - 1) + (size,)
        border = [(0, 0)] * (image.ndim - 1) + [(size // 2, (size - 1) // 2)]
        squares = lax.reduce_window(_square(wide), 0.0, lax.add, window, (1,) * image.ndim, border)
        return (wide / (k + alpha / size * squares) ** beta).astype(image.dtype)

    return Layer(lambda key, shape: {}, apply, "local_response_norm")


def _floats(image: Array) -> tuple[Array, Array]:
    """An image of floats, and the same in the dtype to add up in."""
    (image,) = as_floats(image=image)
    return image, image.astype(accumulation_dtype(image.dtype))


def _mean(image: Array) -> Array:
    """Of every channel."""
    return jnp.mean(image, tuple(range(image.ndim - 1)))


def _square(x: Array) -> Array:
    return x * x


def _over_batch(value: Array) -> Array:
    try:
        return lax.pmean(value, BATCH)
    except NameError as error:
        raise ValueError(
            f"BatchNorm: in training it needs images mapped over by jax.vmap(..., axis_name={BATCH!r})"
        ) from error


def _epsilon(epsilon: float) -> float:
    return check_number("epsilon", epsilon, "a finite number of at least 0", lambda epsilon: epsilon >= 0)


def _channels(shape: Shape) -> int:
    shape = as_shape(shape)
    if not shape:
        raise ValueError(f"shape: expected that of an image or a vector, got {shape}")
    return shape[-1]


def _scale_and_bias(channels: int, use_scale: bool, use_bias: bool) -> Params:
    params = {"scale": jnp.ones(channels, jnp.float32)} if use_scale else {}
    return params | ({"bias": jnp.zeros(channels, jnp.float32)} if use_bias else {})


def _standardized(image: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """Less its mean and over its standard deviation."""
    centred = image - jnp.mean(image, axes, keepdims=True)
    return centred * lax.rsqrt(jnp.mean(_square(centred), axes, keepdims=True) + epsilon)


def _scaled(image: Array, params: Params) -> Array:
    image = image * _along(params["scale"], image) if "scale" in params else image
    return image + _along(params["bias"], image) if "bias" in params else image


def _along(values: Array, image: Array) -> Array:
    """Values of the last axis in an image's rank and dtype."""
    if values.shape[-1] != image.shape[-1]:
        raise ValueError(f"image: expected the {values.shape[-1]} channels of the parameters, got {image.shape[-1]}")
    return values.astype(image.dtype).reshape((1,) * (image.ndim - values.ndim) + values.shape)


def _batch_norms(net: Layer, params: Params, image: Array) -> list[Path]:
    """Where the parameters of every BatchNorm are, in the order in which the image comes to them."""
    stages = [name.split("/") for name in jax.eval_shape(net.stages, params, image)]
    named = [tuple(path[:-1]) for path in stages if path[-1] == "mean"]
    held = list(_statistics(params))
    for path in held:
        if path not in named:
            place = "params" + "".join(f"[{name!r}]" for name in path)
            raise ValueError(
                f"net: expected stages of the BatchNorm at {place}, got none; its layer needs `apply_with_intermediates`"
            )
    return [path for path in named if path in held]


def _statistics(params: Params, path: Path = ()) -> Iterator[Path]:
    """Where a mean and a variance are side by side."""
    if {"mean", "variance"} <= params.keys():
        yield path
    for name, part in params.items():
        if isinstance(part, dict):
            yield from _statistics(part, (*path, name))


def _with(params: Params, path: Path, **values: np.ndarray) -> Params:
    if path:
        return params | {path[0]: _with(params[path[0]], path[1:], **values)}
    return params | {name: jnp.asarray(value, params[name].dtype) for name, value in values.items()}
