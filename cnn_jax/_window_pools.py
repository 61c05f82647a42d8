"""Maxima and sums of windows, as primitives: CPUs and GPUs reduce slices, TPUs use `lax.reduce_window`.

For a v5e, the gradient of a network with two convolutions and pools, compiled by slices and by `lax.reduce_window`, has
(millions of cycles, MB moved, as XLA estimates them):

                        slices         reduce_window
    max, 2x2            2.4    801     1.1    956
    max, 3x3, stride 2  4.1   2640     1.1    956
    sum, 2x2            1.7    629     0.9    469
    sum, 3x3, stride 2  2.3   1839     0.8    441

A conditional of platforms would not do: its gradient keeps what each platform needs, and JAX compiles it anew at every
call that is not compiled as a whole. A primitive keeps the image alone. Its gradient reduces the image again; within
one program XLA merges that with the forward pass.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Bool, Shaped

from ._geometry import Spacing, correlation_extents
from ._mesh_axes import check_summed, vary_like
from ._reduce_windows import add, reduce_windows
from ._typing import AnyArray, Pads, Pair, Placeholder, Shape
from ._xla import index_computed_once

# Pixels of the largest window that is reduced as a tile. Larger ones take fewer operations by halves.
MAX_TILE_PIXELS = 16


class Pool(NamedTuple):
    """What is computed of every window. It is hashable, a parameter of the primitives."""

    operation: Literal["max", "sum"]
    window: Pair
    stride: Pair
    pads: Pads
    """Pixels around the image, which do not count; a window never holds them alone."""


def pool_windows(image: Shaped[Array, "H W *C"], pool: Pool) -> Shaped[Array, "H2 W2 *C"]:
    """The maximum or the sum of every window.

    Of equal values the first, in reading order, takes the whole gradient.
    """
    return pool_p.bind(image, pool=pool, shared=())


# `shared` has an entry for each axis of `jax.vmap`, the outermost first: whether all share one image. Tangents and
# cotangents have all axes, in front.


def _reduce_slices(pool: Pool, image: Array) -> Array:
    """The pool of one image, as CPUs and GPUs compute it."""
    is_tiled = pool.window == pool.stride and pool.window[0] * pool.window[1] <= MAX_TILE_PIXELS
    if pool.operation == "sum":
        if is_tiled:
            return _tiled_sum(_whole_tiles(image, pool, 0), pool.window)
        return reduce_windows(image, pool.window, pool.stride, pool.pads, 0, add)
    if is_tiled:
        return _tiled_max(_whole_tiles(image, pool, -jnp.inf), pool.window)
    return reduce_windows(image, pool.window, pool.stride, pool.pads, -jnp.inf, _first_max)


def _reduce_window(pool: Pool, image: Array) -> Array:
    """The pool of one image, as TPUs compute it."""
    init, operation = (0.0, lax.add) if pool.operation == "sum" else (-jnp.inf, lax.max)
    channel_axes = image.ndim - 2
    return lax.reduce_window(
        image,
        init,
        operation,
        (*pool.window, *[1] * channel_axes),
        (*pool.stride, *[1] * channel_axes),
        (*pool.pads, *[(0, 0)] * channel_axes),
    )


Reduce = Callable[[Pool, Array], Array]


def _value(reduce: Reduce, image: Array, *, pool: Pool, shared: tuple[bool, ...]) -> Array:
    return _over_axes(functools.partial(reduce, pool), shared)(image)


def _tangent(reduce: Reduce, image: Array, tangent: Array, *, pool: Pool, shared: tuple[bool, ...]) -> Array:
    def one(image: Array, tangent: Array) -> Array:
        return jax.jvp(functools.partial(reduce, pool), (image,), (tangent,))[1]

    return _over_axes(one, shared)(image, tangent)


def _cotangent(reduce: Reduce, image: Array, ct: Array, *, pool: Pool, shared: tuple[bool, ...]) -> Array:
    def one(image: Array, ct: Array) -> Array:
        return jax.vjp(functools.partial(reduce, pool), image)[1](ct)[0]

    return _over_axes(one, shared)(image, ct)


def _over_axes(function: Callable[..., Array], shared: tuple[bool, ...]) -> Callable[..., Array]:
    """A function of an image, or of an image and another array, under `jax.vmap`."""
    for is_shared in reversed(shared):
        function = _over_axis(function, is_shared)
    return function


def _over_axis(function: Callable[..., Array], is_shared: bool) -> Callable[..., Array]:
    def run(image: Array, *others: Array) -> Array:
        return jax.vmap(function, (None if is_shared else 0, *[0] * len(others)))(image, *others)

    return run


def _pooled_shape(pool: Pool, shape: Shape) -> Shape:
    spacing = Spacing(stride=pool.stride, padding=pool.pads, dilation=(1, 1), lhs_dilation=(1, 1))
    return *correlation_extents(shape[:2], pool.window, **spacing).output_size, *shape[2:]


def _value_type(image: ShapedArray, *, pool: Pool, shared: tuple[bool, ...]) -> ShapedArray:
    return _tangent_type(image, image, pool=pool, shared=shared)


def _tangent_type(image: ShapedArray, tangent: ShapedArray, *, pool: Pool, shared: tuple[bool, ...]) -> ShapedArray:
    check_summed(image=image, tangent=tangent)
    axes = len(shared)
    shape = *tangent.shape[:axes], *_pooled_shape(pool, tangent.shape[axes:])
    return tangent.update(shape=shape, weak_type=False)


def _cotangent_type(image: ShapedArray, ct: ShapedArray, *, pool: Pool, shared: tuple[bool, ...]) -> ShapedArray:
    check_summed(image=image, ct=ct)
    shape = *ct.shape[: len(shared)], *image.shape[len(shared) - sum(shared) :]
    return ct.update(shape=shape, weak_type=False)


def _batch(
    primitive: Primitive, args: Sequence[AnyArray], axes: Sequence[int | None], *, pool: Pool, shared: tuple[bool, ...]
) -> tuple[Array, int]:
    """`jax.vmap` puts its axis in front. An image may be without it, tangents and cotangents may not."""
    size = next(arg.shape[axis] for arg, axis in zip(args, axes, strict=True) if axis is not None)
    is_shared = axes[0] is None
    operands = [
        jnp.broadcast_to(arg, (size, *arg.shape)) if axis is None else jnp.moveaxis(arg, axis, 0)
        for arg, axis in zip(args[is_shared:], axes[is_shared:], strict=True)
    ]
    return primitive.bind(*args[:is_shared], *operands, pool=pool, shared=(is_shared, *shared)), 0


def _make_primitive(
    name: str,
    compute: Callable[..., Array],
    result_type: Callable[..., ShapedArray],
    reduce_on: Mapping[str | None, Reduce],
) -> Primitive:
    """A primitive that computes by the function of `reduce_on` for the platform, or that for None."""
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=("pool", "shared")))
    primitive.def_abstract_eval(result_type)
    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive)
    for platform, reduce in reduce_on.items():
        lowering = mlir.lower_fun(functools.partial(compute, reduce), multiple_results=False)
        mlir.register_lowering(primitive, lowering, platform)
    return primitive


ON_ANY: Mapping[str | None, Reduce] = {None: _reduce_slices}
pool_p = _make_primitive("pool", _value, _value_type, {**ON_ANY, "tpu": _reduce_window})
# JAX's tangent of `lax.reduce_window` takes any one of equal values; that of slices takes the first.
pool_tangent_p = _make_primitive("pool_tangent", _tangent, _tangent_type, ON_ANY)
pool_cotangent_p = _make_primitive("pool_cotangent", _cotangent, _cotangent_type, {**ON_ANY, "tpu": _reduce_window})


def _apply_tangent(tangent: AnyArray, image: AnyArray, *_: AnyArray, **params: Any) -> Array:
    return pool_tangent_p.bind(vary_like(image, tangent), vary_like(tangent, image), **params)


def _apply_cotangent(ct: AnyArray, image: AnyArray, *_: AnyArray, **params: Any) -> Array:
    return pool_cotangent_p.bind(vary_like(image, ct), vary_like(ct, image), **params)


def _transpose_tangent(ct: AnyArray, image: AnyArray, tangent: Placeholder, **params: Any) -> tuple[None, Array]:
    return None, _apply_cotangent(ct, image, **params)


def _transpose_cotangent(tangent: AnyArray, image: AnyArray, ct: Placeholder, **params: Any) -> tuple[None, Array]:
    return None, _apply_tangent(tangent, image, **params)


# The pool is linear between ties, so that its derivatives do not depend on small changes of the image.
ad.defjvp(pool_p, _apply_tangent)
ad.defjvp(pool_tangent_p, None, _apply_tangent)
ad.defjvp(pool_cotangent_p, None, _apply_cotangent)
ad.primitive_transposes[pool_tangent_p] = _transpose_tangent
ad.primitive_transposes[pool_cotangent_p] = _transpose_cotangent


def _is_first_max(a: Array, b: Array) -> Bool[Array, "..."]:
    """Where the first of two values is their maximum: the first of equal values, NaN if it is one."""
    return lax.bitwise_or(lax.ge(a, b), lax.ne(a, a))


def _first_max(a: Array, b: Array, *_: int) -> Array:
    return lax.select(_is_first_max(a, b), a, b)


# Reshaping puts the pixels of non-overlapping windows on two axes. Values use slices instead, which XLA fuses into one
# pass. Derivatives use the axes; their transpose is one pass too: each pixel checks whether it was the maximum.


def _whole_tiles(image: Array, pool: Pool, value: float) -> Array:
    """The image padded, or cropped where pixels fill no window, so that it consists of whole windows."""
    ends = [
        (low, (low + n + high) // w * w - low - n, 0)
        for n, w, (low, high) in zip(image.shape[:2], pool.window, pool.pads, strict=True)
    ]
    if not any(map(any, ends)):
        return image
    return lax.pad(image, jnp.asarray(value, image.dtype), ends + [(0, 0, 0)] * (image.ndim - 2))


def _split(image: Array, window: Pair) -> Array:
    """(H, W, *C) as (H / h, h, W / w, w, *C)."""
    rows, columns, *channels = image.shape
    return image.reshape(rows // window[0], window[0], columns // window[1], window[1], *channels)


def _pixels_of_tiles(image: Array, window: Pair) -> list[Array]:
    """The first pixels of all windows, the second pixels, and so on, (H / h, W / w, *C) each."""
    tiles = _split(image, window)
    return [tiles[:, i, :, j] for i, j in itertools.product(*map(range, window))]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _tiled_max(image: Array, window: Pair) -> Array:
    return functools.reduce(_first_max, _pixels_of_tiles(image, window))


@_tiled_max.defjvp
def _tiled_max_jvp(window: Pair, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (image,) = primals
    (tangent,) = tangents
    first_pixels, *other_pixels = _pixels_of_tiles(image, window)
    largest = first_pixels
    squared_index = jnp.zeros(first_pixels.shape, jnp.float32)
    for i, pixels in enumerate(other_pixels, 1):
        stays = _is_first_max(largest, pixels)
        largest = jnp.where(stays, largest, pixels)
        squared_index = jnp.where(stays, squared_index, float(i * i))
    index = index_computed_once(squared_index)
    order = jnp.arange(window[0] * window[1], dtype=jnp.int8).reshape(window)
    order = order.reshape(1, window[0], 1, window[1], *[1] * (image.ndim - 2))
    change = jnp.where(index[:, None, :, None] == order, _split(tangent, window), 0).sum((1, 3))
    return _tiled_max(image, window), change


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _tiled_sum(image: Array, window: Pair) -> Array:
    return functools.reduce(add, _pixels_of_tiles(image, window))


@_tiled_sum.defjvp
def _tiled_sum_jvp(window: Pair, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _tiled_sum(*primals, window), _split(*tangents, window).sum((1, 3))
