"""Pooling: one number for every window, so that exact position stops mattering and later work shrinks.

All functions take one image, (H, W) or (H, W, C), and pool each channel by itself. Padded cells never count.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Num

from ._dtypes import accumulation_dtype
from ._padding import explicit_padding
from ._reduce_windows import reduce_windows
from ._typing import Padding, Pads, Pair
from ._validation import as_floats, as_pair, check_shape

# The largest window that is not folded by halves when windows do not overlap.
FEW_PIXELS = 16


def max_pool(
    image: Num[Array, "H W *C"],
    *,
    window: int | Sequence[int] = 2,
    stride: int | Sequence[int] = 2,
    padding: Padding = "VALID",
) -> Float[Array, "H2 W2 *C"]:
    """Keeps the largest value of every window.

        out[y, x] = max over i < h, j < w of image[stride y + i, stride x + j]

    Args:
      image: (H, W) or (H, W, C). Integers and bools become float32.
      window: rows and columns of the window, an int or (h, w).
      stride: steps between windows, an int or (rows, columns).
      padding: "VALID" drops a last partial window, "CEIL" keeps it (the article's way: 7x7 becomes 4x4), "SAME" centres
        ceil(size / stride) windows on the image, and ((top, bottom), (left, right)) gives the border itself.

    Returns:
      The pooled image. A NaN spoils only the windows that hold it. Among equal values the first in reading order
      gets the whole gradient.

    Raises:
      ValueError: a wrong rank, an empty image, a window larger than the padded image, a border as wide as the window
        (some window would hold no pixel), an unknown padding.
      TypeError: an image that is not real numbers, options that are not ints.

    Source: Rohrer, "How Convolutional Neural Networks Work" (2016).

    >>> max_pool(jnp.arange(9).reshape(3, 3), padding="CEIL")
    Array([[4., 5.],
           [7., 8.]], dtype=float32)
    """
    image, window, stride, border = _arguments(image, window, stride, padding)
    if _tiles(window, stride):
        return _tiled_max(_to_tiles(image, window, border, -jnp.inf), window)
    return reduce_windows(image, window, stride, border, -jnp.inf, _first_largest)


def min_pool(
    image: Num[Array, "H W *C"],
    *,
    window: int | Sequence[int] = 2,
    stride: int | Sequence[int] = 2,
    padding: Padding = "VALID",
) -> Float[Array, "H2 W2 *C"]:
    """Keeps the smallest value of every window: `-max_pool(-image)`, with the arguments and errors of `max_pool`.

    >>> min_pool(jnp.arange(9).reshape(3, 3), padding="CEIL")
    Array([[0., 2.],
           [6., 8.]], dtype=float32)
    """
    (image,) = as_floats(image=image)
    return -max_pool(-image, window=window, stride=stride, padding=padding)


def max_abs_pool(
    image: Num[Array, "H W *C"],
    *,
    window: int | Sequence[int] = 2,
    stride: int | Sequence[int] = 2,
    padding: Padding = "VALID",
) -> Float[Array, "H2 W2 *C"]:
    """Keeps the value of largest magnitude of every window, with its sign: strong mismatches count like strong matches.

    Arguments and errors are those of `max_pool`. Of a value and its negative, equally large, the positive one stays.

    Source: Rohrer, sharpened cosine similarity, whose layers are pooled this way.

    >>> max_abs_pool(jnp.array([[1.0, -3.0], [2.0, 0.0]]))
    Array([[-3.]], dtype=float32)
    """
    high = max_pool(image, window=window, stride=stride, padding=padding)
    low = min_pool(image, window=window, stride=stride, padding=padding)
    return jnp.where(high < -low, low, high)


def avg_pool(
    image: Num[Array, "H W *C"],
    *,
    window: int | Sequence[int] = 2,
    stride: int | Sequence[int] = 2,
    padding: Padding = "VALID",
) -> Float[Array, "H2 W2 *C"]:
    """Takes the mean of every window, over the pixels that are there: padded cells are not in the count.

    Arguments and errors are those of `max_pool`. float16 and bfloat16 add up in float32.

    >>> avg_pool(jnp.arange(9).reshape(3, 3), padding="CEIL")
    Array([[2. , 3.5],
           [6.5, 8. ]], dtype=float32)
    """
    image, window, stride, border = _arguments(image, window, stride, padding)
    wide = image.astype(accumulation_dtype(image.dtype))
    if _tiles(window, stride):
        total = _tiled_sum(_to_tiles(wide, window, border, 0), window)
    else:
        total = reduce_windows(wide, window, stride, border, 0, _sum)
    count = reduce_windows(jnp.ones_like(wide), window, stride, border, 0, _sum)
    return (total / count).astype(image.dtype)


def global_avg_pool(image: Num[Array, "H W *C"]) -> Float[Array, "*C"]:
    """Takes the mean over all pixels, one number a channel: a vector of C, or a scalar for an image of (H, W).

    Raises a ValueError for a wrong rank or an empty image. float16 and bfloat16 add up in float32.

    >>> global_avg_pool(jnp.arange(8).reshape(2, 2, 2))
    Array([3., 4.], dtype=float32)
    """
    (image,) = as_floats(image=image)
    check_shape("image", image, "H W", "H W C")
    return jnp.mean(image, axis=(0, 1))


def _arguments(
    image: Array, window: int | Sequence[int], stride: int | Sequence[int], padding: Padding
) -> tuple[Array, Pair, Pair, Pads]:
    (image,) = as_floats(image=image)
    check_shape("image", image, "H W", "H W C")
    sizes, steps = as_pair("window", window), as_pair("stride", stride)
    border = explicit_padding(padding, image.shape[:2], sizes, steps, names=("image", "window"))
    if any(max(pad) >= size for pad, size in zip(border, sizes, strict=True)) and not isinstance(padding, str):
        raise ValueError(
            f"padding: expected less than the window {sizes}, so that every window holds a pixel, got {border}"
        )
    return image, sizes, steps, border


def _sum(a: Array, b: Array, *_: int) -> Array:
    return a + b


def _stays(a: Array, b: Array) -> Array:
    """Where the first of two values is what remains of them: the larger, the first of equal ones, NaN if either is."""
    return (a >= b) | jnp.isnan(a)


def _first_largest(a: Array, b: Array, *_: int) -> Array:
    return jnp.where(_stays(a, b), a, b)


# Windows that lie side by side are an axis of a reshaped image. Values come from slices, which XLA joins in one pass,
# and derivatives from that axis, whose transpose is one pass too: every pixel looks up what became of its window.


def _tiles(window: Pair, stride: Pair) -> bool:
    return window == stride and window[0] * window[1] <= FEW_PIXELS


def _to_tiles(image: Array, window: Pair, border: Pads, empty: float) -> Array:
    """Pads an image, or cuts off what fills no window, so that it is made of whole windows."""
    ends = [
        (low, (low + n + high) // w * w - low - n, 0)
        for n, w, (low, high) in zip(image.shape[:2], window, border, strict=True)
    ]
    return lax.pad(image, jnp.asarray(empty, image.dtype), ends + [(0, 0, 0)] * (image.ndim - 2))


def _split(image: Array, window: Pair) -> Array:
    """(H, W, *C) as (H / h, h, W / w, w, *C)."""
    rows, columns, *channels = image.shape
    return image.reshape(rows // window[0], window[0], columns // window[1], window[1], *channels)


def _places(image: Array, window: Pair) -> list[Array]:
    """The first pixels of all windows, the second ones, and so on."""
    tiles = _split(image, window)
    return [tiles[:, i, :, j] for i, j in itertools.product(*map(range, window))]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _tiled_max(image: Array, window: Pair) -> Array:
    return functools.reduce(_first_largest, _places(image, window))


@_tiled_max.defjvp
def _tiled_max_jvp(window: Pair, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (image,), (tangent,) = primals, tangents
    first, *others = _places(image, window)
    largest, place = first, jnp.zeros(first.shape, jnp.float32)
    for i, other in enumerate(others, 1):
        stays = _stays(largest, other)
        largest, place = jnp.where(stays, largest, other), jnp.where(stays, place, float(i * i))
    # A root is too costly in XLA's eyes to be taken again for every pixel, so that all this is done once a window.
    place = jnp.round(jnp.sqrt(place)).astype(jnp.int8)
    order = jnp.arange(window[0] * window[1], dtype=jnp.int8).reshape(window)
    order = order.reshape(1, window[0], 1, window[1], *[1] * (image.ndim - 2))
    change = jnp.where(place[:, None, :, None] == order, _split(tangent, window), 0).sum((1, 3))
    # Always true, but XLA does not see it, or it would let a convolution before the way back write every number of its
    # result once for each pixel.
    return _tiled_max(image, window), jnp.where(place < order.size, change, 0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _tiled_sum(image: Array, window: Pair) -> Array:
    return functools.reduce(_sum, _places(image, window))


@_tiled_sum.defjvp
def _tiled_sum_jvp(window: Pair, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return _tiled_sum(*primals, window), _split(*tangents, window).sum((1, 3))
