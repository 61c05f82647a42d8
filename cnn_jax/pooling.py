"""Pooling: reduces resolution and sensitivity to position by one number per window.

All functions take one image, (H, W) or (H, W, C), and pool each channel separately. Padded pixels never count.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped

from ._dtypes import accumulation_dtype
from ._padding import explicit_padding
from ._programs import compiled
from ._reduce_windows import add, reduce_windows
from ._typing import AnyArray, Padding, Pads, Pair
from ._validation import as_pair, check_image, to_floats
from ._window_pools import Windows, max_windows, sum_windows

__all__ = ["avg_pool", "global_avg_pool", "max_abs_pool", "max_pool", "min_pool"]


def max_pool(
    image: Shaped[ArrayLike, "H W *C"],
    *,
    window: int | Sequence[int] = 2,
    stride: int | Sequence[int] = 2,
    padding: Padding = "VALID",
) -> Float[Array, "H2 W2 *C"]:
    """Max pooling: the largest value of every window.

        out[y, x] = max over i < h, j < w of image[stride y + i, stride x + j]

    Args:
      image: (H, W) or (H, W, C). Integers and bools become float32.
      window: rows and columns of the window, an int or (h, w).
      stride: steps between windows, an int or (rows, columns).
      padding: "VALID" drops the last partial window. "CEIL" keeps it, as the article does (7x7 becomes 4x4). "SAME"
        centers ceil(size / stride) windows on the image. ((top, bottom), (left, right)) gives the padding itself.

    Returns:
      The pooled image, in the image's floating dtype.

    Raises:
      ValueError: the image has the wrong rank or is empty; the window is larger than the padded image; explicit padding
        is as wide as the window, so that a window could hold no pixel; the padding is unknown.
      TypeError: the image does not hold real numbers, or an option is not an int.

    Notes:
      A NaN affects only the windows that contain it. The first of equal values, in reading order, takes the whole
      gradient.

    Source: Rohrer, "How Convolutional Neural Networks Work" (2016),
    https://brohrer.github.io/how_convolutional_neural_networks_work.html.

    >>> max_pool(jnp.arange(9).reshape(3, 3), padding="CEIL")
    Array([[4., 5.],
           [7., 8.]], dtype=float32)
    """
    return _max_pool(*_check_arguments(image, window, stride, padding))


def min_pool(
    image: Shaped[ArrayLike, "H W *C"],
    *,
    window: int | Sequence[int] = 2,
    stride: int | Sequence[int] = 2,
    padding: Padding = "VALID",
) -> Float[Array, "H2 W2 *C"]:
    """Min pooling: the smallest value of every window, `-max_pool(-image)`.

    Arguments and errors are those of `max_pool`.

    >>> min_pool(jnp.arange(9).reshape(3, 3), padding="CEIL")
    Array([[0., 2.],
           [6., 8.]], dtype=float32)
    """
    return _min_pool(*_check_arguments(image, window, stride, padding))


def max_abs_pool(
    image: Shaped[ArrayLike, "H W *C"],
    *,
    window: int | Sequence[int] = 2,
    stride: int | Sequence[int] = 2,
    padding: Padding = "VALID",
) -> Float[Array, "H2 W2 *C"]:
    """Max-abs pooling: the value of largest magnitude of every window, with its sign.

    Strong mismatches count as much as strong matches. Of x and -x in one window, the positive one is kept. Arguments
    and errors are those of `max_pool`.

    Source: Rohrer, "Sharpened Cosine Similarity", https://github.com/brohrer/sharpened-cosine-similarity.

    >>> max_abs_pool(jnp.array([[1.0, -3.0], [2.0, 0.0]]))
    Array([[-3.]], dtype=float32)
    """
    return _max_abs_pool(*_check_arguments(image, window, stride, padding))


def avg_pool(
    image: Shaped[ArrayLike, "H W *C"],
    *,
    window: int | Sequence[int] = 2,
    stride: int | Sequence[int] = 2,
    padding: Padding = "VALID",
) -> Float[Array, "H2 W2 *C"]:
    """Average pooling: the mean of every window over its pixels inside the image.

    Arguments and errors are those of `max_pool`. float16 and bfloat16 are summed in float32.

    >>> avg_pool(jnp.arange(9).reshape(3, 3), padding="CEIL")
    Array([[2. , 3.5],
           [6.5, 8. ]], dtype=float32)
    """
    return _avg_pool(*_check_arguments(image, window, stride, padding))


def global_avg_pool(image: Shaped[ArrayLike, "H W *C"]) -> Float[Array, "*C"]:
    """Global average pooling: the mean over all pixels, for each channel.

    Args:
      image: (H, W) or (H, W, C). Integers and bools become float32.

    Returns:
      A vector of C numbers, or a scalar for an image (H, W). float16 and bfloat16 are summed in float32.

    Raises:
      ValueError: the image has the wrong rank or is empty.
      TypeError: the image does not hold real numbers.

    Source: Lin, Chen and Yan, "Network In Network" (2013), https://arxiv.org/abs/1312.4400.

    >>> global_avg_pool(jnp.arange(8).reshape(2, 2, 2))
    Array([3., 4.], dtype=float32)
    """
    image = check_image(image)
    return _global_avg_pool(image)


def _check_arguments(
    image: Shaped[ArrayLike, "..."], window: int | Sequence[int], stride: int | Sequence[int], padding: Padding
) -> tuple[AnyArray, Pair, Pair, Pads]:
    """The image, the window's size, the strides and the pads."""
    image = check_image(image)
    window_size = as_pair("window", window)
    strides = as_pair("stride", stride)
    pads = explicit_padding(padding, image.shape[:2], window_size, strides, names=("image", "window"))
    if not isinstance(padding, str) and any(max(pad) >= size for pad, size in zip(pads, window_size, strict=True)):
        raise ValueError(
            f"padding: expected less than the window {window_size}, so that every window holds a pixel, got {pads}"
        )
    return image, window_size, strides, pads


@compiled("window", "stride", "pads")
def _max_pool(image: Array, window: Pair, stride: Pair, pads: Pads) -> Array:
    (image,) = to_floats(image)
    return max_windows(image, Windows(window, stride, pads))


@compiled("window", "stride", "pads")
def _min_pool(image: Array, window: Pair, stride: Pair, pads: Pads) -> Array:
    (image,) = to_floats(image)
    return -max_windows(-image, Windows(window, stride, pads))


@compiled("window", "stride", "pads")
def _max_abs_pool(image: Array, window: Pair, stride: Pair, pads: Pads) -> Array:
    (image,) = to_floats(image)
    windows = Windows(window, stride, pads)
    largest = max_windows(image, windows)
    smallest = -max_windows(-image, windows)
    return jnp.where(largest < -smallest, smallest, largest)


@compiled("window", "stride", "pads")
def _avg_pool(image: Array, window: Pair, stride: Pair, pads: Pads) -> Array:
    (image,) = to_floats(image)
    terms = image.astype(accumulation_dtype(image.dtype))
    total = sum_windows(terms, Windows(window, stride, pads))
    count = reduce_windows(jnp.ones_like(terms), window, stride, pads, 0, add)
    return (total / count).astype(image.dtype)


@compiled()
def _global_avg_pool(image: Array) -> Array:
    (image,) = to_floats(image)
    return jnp.mean(image, axis=(0, 1))
