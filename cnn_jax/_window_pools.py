"""Maxima and sums of windows: CPUs and GPUs reduce slices, TPUs use `lax.reduce_window`.

For a v5e, the gradient of a network with two convolutions and pools, compiled by slices and by `lax.reduce_window`, has
(millions of cycles, MB moved, as XLA estimates them):

                        slices         reduce_window
    max, 2x2            2.4    801     1.1    956
    max, 3x3, stride 2  4.1   2640     1.1    956
    sum, 2x2            1.7    629     0.9    469
    sum, 3x3, stride 2  2.3   1839     0.8    441

The maximum is a primitive, with primitives for its derivatives. The gradient of a conditional of platforms would keep
what each platform needs; that of the primitive keeps the image alone. It reduces the image again; within one program
XLA merges that with the forward pass.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Bool, Shaped

from ._geometry import Spacing, correlation_extents, has_static_sizes
from ._mesh_axes import check_summed, vary_like
from ._reduce_windows import add, reduce_windows
from ._typing import AnyArray, Pads, Pair, Placeholder, Shape
from ._xla import index_computed_once

# Pixels of the largest window that is reduced as a tile. Larger ones take fewer operations by halves.
MAX_TILE_PIXELS = 16


class Windows(NamedTuple):
    """The windows of an image. It is hashable, a parameter of the primitives."""

    size: Pair
    stride: Pair
    pads: Pads
    """Pixels around the image, which do not count; a window never holds them alone."""

    @property
    def are_tiles(self) -> bool:
        """Whether windows lie side by side and are small enough to be pooled as tiles."""
        return self.size == self.stride and self.size[0] * self.size[1] <= MAX_TILE_PIXELS


def sum_windows(image: Shaped[Array, "H W *C"], windows: Windows) -> Shaped[Array, "H2 W2 *C"]:
    """The sum of every window."""

    def by_slices(image: Array) -> Array:
        if windows.are_tiles:
            return _tiled_sum(_whole_tiles(image, windows, 0), windows.size)
        return reduce_windows(image, windows.size, windows.stride, windows.pads, 0, add)

    if not has_static_sizes(image):
        return by_slices(image)
    return lax.platform_dependent(
        image, tpu=functools.partial(_reduce_window, windows, 0.0, lax.add), default=by_slices
    )


def max_windows(image: Shaped[Array, "H W *C"], windows: Windows) -> Shaped[Array, "H2 W2 *C"]:
    """The maximum of every window. Of equal values the first, in reading order, takes the whole gradient."""
    return max_p.bind(image, windows=windows, shared=())


# `shared` has an entry for each axis of `jax.vmap`, the outermost first: whether all share one image. Tangents and
# cotangents have all axes, in front.


def _max_by_slices(windows: Windows, image: Array) -> Array:
    """The maxima of one image, as CPUs and GPUs compute them."""
    if windows.are_tiles:
        return _tiled_max(_whole_tiles(image, windows, -jnp.inf), windows.size)
    return reduce_windows(image, windows.size, windows.stride, windows.pads, -jnp.inf, _first_max)


def _max_by_window(windows: Windows, image: Array) -> Array:
    """The maxima of one image, as TPUs compute them."""
    return _reduce_window(windows, -jnp.inf, lax.max, image)


def _reduce_window(windows: Windows, init: float, operation: Callable[..., Any], image: Array) -> Array:
    ones = [1] * (image.ndim - 2)
    size, stride = (*windows.size, *ones), (*windows.stride, *ones)
    return lax.reduce_window(image, init, operation, size, stride, (*windows.pads, *[(0, 0)] * len(ones)))


Maxima = Callable[[Windows, Array], Array]


def _value(maxima: Maxima, image: Array, *, windows: Windows, shared: tuple[bool, ...]) -> Array:
    return _over_axes(functools.partial(maxima, windows), shared)(image)


def _tangent(maxima: Maxima, image: Array, tangent: Array, *, windows: Windows, shared: tuple[bool, ...]) -> Array:
    def one(image: Array, tangent: Array) -> Array:
        return jax.jvp(functools.partial(maxima, windows), (image,), (tangent,))[1]

    return _over_axes(one, shared)(image, tangent)


def _cotangent(maxima: Maxima, image: Array, ct: Array, *, windows: Windows, shared: tuple[bool, ...]) -> Array:
    def one(image: Array, ct: Array) -> Array:
        return jax.vjp(functools.partial(maxima, windows), image)[1](ct)[0]

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


def _maxima_shape(windows: Windows, shape: Shape) -> Shape:
    if not all(isinstance(size, int) for size in shape):  # symbols of jax.export, in the terms of the slices
        image = jax.ShapeDtypeStruct(shape, jnp.float32)
        return jax.eval_shape(functools.partial(_max_by_slices, windows), image).shape
    spacing = Spacing(stride=windows.stride, padding=windows.pads, dilation=(1, 1), lhs_dilation=(1, 1))
    return *correlation_extents(shape[:2], windows.size, **spacing).output_size, *shape[2:]


def _value_type(image: ShapedArray, *, windows: Windows, shared: tuple[bool, ...]) -> ShapedArray:
    return _tangent_type(image, image, windows=windows, shared=shared)


def _tangent_type(
    image: ShapedArray, tangent: ShapedArray, *, windows: Windows, shared: tuple[bool, ...]
) -> ShapedArray:
    check_summed(image=image, tangent=tangent)
    axes = len(shared)
    shape = *tangent.shape[:axes], *_maxima_shape(windows, tangent.shape[axes:])
    return tangent.update(shape=shape, weak_type=False)


def _cotangent_type(image: ShapedArray, ct: ShapedArray, *, windows: Windows, shared: tuple[bool, ...]) -> ShapedArray:
    check_summed(image=image, ct=ct)
    shape = *ct.shape[: len(shared)], *image.shape[len(shared) - sum(shared) :]
    return ct.update(shape=shape, weak_type=False)


def _batch(
    primitive: Primitive,
    args: Sequence[AnyArray],
    axes: Sequence[int | None],
    *,
    windows: Windows,
    shared: tuple[bool, ...],
) -> tuple[Array, int]:
    """`jax.vmap` puts its axis in front. An image may be without it, tangents and cotangents may not."""
    size = next(arg.shape[axis] for arg, axis in zip(args, axes, strict=True) if axis is not None)
    is_shared = axes[0] is None
    operands = [
        jnp.broadcast_to(arg, (size, *arg.shape)) if axis is None else jnp.moveaxis(arg, axis, 0)
        for arg, axis in zip(args[is_shared:], axes[is_shared:], strict=True)
    ]
    return primitive.bind(*args[:is_shared], *operands, windows=windows, shared=(is_shared, *shared)), 0


def _make_primitive(
    name: str,
    compute: Callable[..., Array],
    result_type: Callable[..., ShapedArray],
    on_tpu: Maxima,
) -> Primitive:
    """A primitive that computes by slices, and on TPUs by another function."""

    def run(*args: Array, **params: Any) -> Array:
        by_slices = functools.partial(compute, _max_by_slices, **params)
        if on_tpu is _max_by_slices or not has_static_sizes(*args):
            return by_slices(*args)
        return lax.platform_dependent(*args, tpu=functools.partial(compute, on_tpu, **params), default=by_slices)

    primitive = Primitive(name)
    primitive.def_impl(jax.jit(run, static_argnames=("windows", "shared")))
    primitive.def_abstract_eval(result_type)
    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive)
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=False))
    return primitive


max_p = _make_primitive("max_windows", _value, _value_type, _max_by_window)
# JAX's tangent of `lax.reduce_window` takes any one of equal values; that of slices takes the first.
max_tangent_p = _make_primitive("max_windows_tangent", _tangent, _tangent_type, _max_by_slices)
max_cotangent_p = _make_primitive("max_windows_cotangent", _cotangent, _cotangent_type, _max_by_window)


def _apply_tangent(tangent: AnyArray, image: AnyArray, *_: AnyArray, **params: Any) -> Array:
    return max_tangent_p.bind(vary_like(image, tangent), vary_like(tangent, image), **params)


def _apply_cotangent(ct: AnyArray, image: AnyArray, *_: AnyArray, **params: Any) -> Array:
    return max_cotangent_p.bind(vary_like(image, ct), vary_like(ct, image), **params)


def _transpose_tangent(ct: AnyArray, image: AnyArray, tangent: Placeholder, **params: Any) -> tuple[None, Array]:
    return None, _apply_cotangent(ct, image, **params)


def _transpose_cotangent(tangent: AnyArray, image: AnyArray, ct: Placeholder, **params: Any) -> tuple[None, Array]:
    return None, _apply_tangent(tangent, image, **params)


# The maximum is linear between ties, so that its derivatives do not depend on small changes of the image.
ad.defjvp(max_p, _apply_tangent)
ad.defjvp(max_tangent_p, None, _apply_tangent)
ad.defjvp(max_cotangent_p, None, _apply_cotangent)
ad.primitive_transposes[max_tangent_p] = _transpose_tangent
ad.primitive_transposes[max_cotangent_p] = _transpose_cotangent


def _is_first_max(a: Array, b: Array) -> Bool[Array, "..."]:
    """Where the first of two values is their maximum: the first of equal values, NaN if it is one."""
    return lax.bitwise_or(lax.ge(a, b), lax.ne(a, a))


def _first_max(a: Array, b: Array, *_: int) -> Array:
    return lax.select(_is_first_max(a, b), a, b)


# Reshaping puts the pixels of non-overlapping windows on two axes. Values use slices instead, which XLA fuses into one
# pass. Derivatives use the axes; their transpose is one pass too: each pixel checks whether it was the maximum.


def _whole_tiles(image: Array, windows: Windows, value: float) -> Array:
    """The image padded, or cropped where pixels fill no window, so that it consists of whole windows."""
    ends = [
        (low, (low + n + high) // w * w - low - n, 0)
        for n, w, (low, high) in zip(image.shape[:2], windows.size, windows.pads, strict=True)
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
