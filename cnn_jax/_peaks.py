"""Peaks of a score map: local maxima, to fractions of a pixel."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped

from ._dtypes import accumulation_dtype
from ._padding import NO_PADDING
from ._programs import compiled
from ._reduce_windows import reduce_windows
from ._typing import Pair, Scalar
from ._validation import as_pair, check_arrays, check_int, check_shape, check_threshold, to_floats


class Peaks(NamedTuple):
    """Peaks of a map, the highest first: row, column, height, and which of them are peaks at all."""

    y: Float[Array, " k"]
    x: Float[Array, " k"]
    score: Float[Array, " k"]
    valid: Bool[Array, " k"]


def peaks(
    scores: Shaped[ArrayLike, "H W"],
    *,
    top_k: int = 10,
    min_score: Scalar = -math.inf,
    min_distance: int | Sequence[int] = 1,
    subpixel: bool = True,
) -> Peaks:
    """Highest local maxima of a score map, the highest first.

    A peak is the largest pixel within `min_distance` rows and columns, and larger than at least one of them. Of equal
    pixels the first in reading order is the peak. Pixels at the border can be peaks, NaN and -inf cannot. A constant
    map has no peak. The only pixel of a 1x1 map, the score of a template as large as its image, is a peak.

    Args:
      scores: the map, (H, W).
      top_k: the number of peaks to return. Where there are fewer, the others are not `valid`, and 0.
      min_score: the lowest score of a peak.
      min_distance: in pixels, an int or (rows, columns).
      subpixel: whether to move each peak, by at most half a pixel along each axis, to the maximum of a quadratic fit to
        its 3x3 neighborhood. The score stays that of the pixel.

    Returns:
      `Peaks`, arrays of length `top_k`.

    Raises:
      ValueError: a map that is not (H, W) or is empty, `top_k` or `min_distance` below 1, a `min_score` of NaN.
      TypeError: a map that is not real numbers, options that are not ints.

    >>> top = peaks(jnp.array([[0.0, 3.0, 2.0, 0.0, 1.0]]), top_k=3)
    >>> top.x.round(2), top.valid
    (Array([1.25, 4.  , 0.  ], dtype=float32), Array([ True,  True, False], dtype=bool))
    """
    (score_map,) = check_arrays(scores=scores)
    check_shape("scores", score_map, "H W")
    top_k = check_int("top_k", top_k)
    threshold = check_threshold("min_score", min_score)
    distance = as_pair("min_distance", min_distance)
    return _peaks(score_map, threshold, top_k, distance, bool(subpixel))


@compiled("top_k", "distance", "subpixel")
def _peaks(score_map: Array, threshold: Array | float, top_k: int, distance: Pair, subpixel: bool) -> Peaks:
    (score_map,) = to_floats(score_map)
    (threshold,) = to_floats(threshold)
    score_map = score_map.astype(accumulation_dtype(score_map.dtype))
    index, height = top_local_maxima(score_map, distance, top_k)
    valid = (height >= threshold.astype(height.dtype)) & (height > -jnp.inf)
    row, column = jnp.divmod(index, score_map.shape[1])
    y = row.astype(height.dtype)
    x = column.astype(height.dtype)
    if subpixel:
        dy, dx = subpixel_offset(neighborhoods(score_map, (row, column)))
        y = y + dy
        x = x + dx
    return Peaks(
        y=jnp.where(valid, y, 0),
        x=jnp.where(valid, x, 0),
        score=jnp.where(valid, height, 0),
        valid=valid,
    )


def top_local_maxima(scores: Array, distance: Pair, count: int, is_allowed: Array | bool = True) -> tuple[Array, Array]:
    """Flat indices and heights of the highest local maxima of a map; height -inf after the last one.

    Local maxima are the peaks of `peaks`. Pixels of NaN count as -inf. Where pixels are not allowed they are no maxima,
    but neighbors still.
    """
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    heights = jnp.where(is_local_maximum(scores, distance) & is_allowed, scores, -jnp.inf)
    # Two maxima are further apart than `distance`, so a block holds at most one.
    return top_block_maxima(heights, (distance[0] + 1, distance[1] + 1), count)


def is_local_maximum(scores: Array, distance: Pair) -> Array:
    """Whether a pixel is the first of the largest pixels within the distance, and larger than one of them.

    Pixels before it in reading order must be smaller, pixels after it not larger. So no index is compared, and only the
    first pixel of the map, which has none before it, needs a test that it is larger than one.
    """
    if scores.size == 1:
        return jnp.isfinite(scores)
    rows, columns = distance
    height, width = scores.shape
    padded = jnp.pad(scores, [(rows, rows), (columns, columns)], constant_values=-jnp.inf)
    of_rows = _window_maxima(padded, (1, 2 * columns + 1))
    beside = padded[rows : rows + height]
    before = jnp.maximum(
        _window_maxima(of_rows[: height + rows - 1], (rows, 1)),
        _window_maxima(beside[:, : width + columns - 1], (1, columns)),
    )
    after = jnp.maximum(
        _window_maxima(of_rows[rows + 1 :], (rows, 1)),
        _window_maxima(beside[:, columns + 1 :], (1, columns)),
    )
    is_first = (jnp.arange(height) == 0)[:, None] & (jnp.arange(width) == 0)[None, :]
    is_larger = ~is_first | (scores > scores[: rows + 1, : columns + 1].min())
    return (scores > before) & (scores >= after) & is_larger


def _window_maxima(scores: Array, window: Pair, stride: Pair = (1, 1)) -> Array:
    return reduce_windows(scores, window, stride, NO_PADDING, -jnp.inf, lambda a, b, *_: jnp.maximum(a, b))


def top_block_maxima(heights: Array, block: Pair, count: int) -> tuple[Array, Array]:
    """Flat indices and values of the largest pixels of a map, at most one of a block; -inf after the last one."""
    down, across = (-(-n // side) for n, side in zip(heights.shape, block, strict=True))
    missing = [(0, down * block[0] - heights.shape[0]), (0, across * block[1] - heights.shape[1])]
    padded = jnp.pad(heights, missing, constant_values=-jnp.inf)
    block_maxima = _window_maxima(padded, block, block)
    block_count = min(count, down * across)
    best, block_index = lax.top_k(block_maxima.ravel(), block_count)
    top = block_index // across * block[0]
    left = block_index % across * block[1]
    pixels = padded[
        top[:, None, None] + jnp.arange(block[0], dtype=top.dtype)[None, :, None],
        left[:, None, None] + jnp.arange(block[1], dtype=left.dtype)[None, None, :],
    ]
    in_block = lax.argmax(pixels.reshape(block_count, -1), 1, jnp.int32)
    row_in_block, column_in_block = jnp.divmod(in_block, block[1])
    index = (top + row_in_block) * heights.shape[1] + left + column_in_block
    unused = (0, count - block_count)
    return jnp.pad(index, unused), jnp.pad(best, unused, constant_values=-jnp.inf)


def neighborhoods(maps: Array, index: Sequence[Array]) -> Array:
    """The 3x3 neighborhoods (3, 3, N) of N pixels of maps (..., H, W), -inf outside of a map.

    `index` holds N positions along each axis.
    """
    *outer, row, column = index
    steps = jnp.arange(-1, 2, dtype=row.dtype)
    rows = row[None, None] + steps[:, None, None]
    columns = column[None, None] + steps[None, :, None]
    pixels = maps[*(axis[None, None] for axis in outer), rows, columns]
    is_inside = (rows >= 0) & (rows < maps.shape[-2]) & (columns >= 0) & (columns < maps.shape[-1])
    return jnp.where(is_inside, pixels, -jnp.inf)


def subpixel_offset(neighborhood: Array) -> tuple[Array, Array]:
    """Offset (dy, dx) from pixels to the maximum of a quadratic fit to their 3x3 neighborhoods (3, 3, ...).

    At most half a pixel, and 0 along an axis without a maximum or at the border. The fit has a mixed derivative:
    without it a diagonal ridge would be placed a quarter of a pixel off.
    """
    is_finite = jnp.isfinite(neighborhood)
    values = jnp.where(is_finite, neighborhood, 0)  # so that no difference is NaN
    mixed = (values[2, 2] - values[2, 0] - values[0, 2] + values[0, 0]) / 4
    is_max_y, slope_y, curvature_y = _derivatives(values[:, 1], is_finite[:, 1].all(axis=0))
    is_max_x, slope_x, curvature_x = _derivatives(values[1], is_finite[1].all(axis=0))

    unit = jnp.maximum(-curvature_y, -curvature_x)  # so that products neither overflow nor underflow
    slope_y = slope_y / unit
    slope_x = slope_x / unit
    curvature_y = curvature_y / unit
    curvature_x = curvature_x / unit
    mixed = mixed / unit

    is_usable = is_finite[::2, ::2].all(axis=(0, 1)) & jnp.isfinite(mixed)
    has_maximum = is_max_y & is_max_x & is_usable & (curvature_y * curvature_x > mixed**2)
    mixed = jnp.where(has_maximum, mixed, 0)
    determinant = curvature_y * curvature_x - mixed**2
    dy = (mixed * slope_x - curvature_x * slope_y) / determinant
    dx = (mixed * slope_y - curvature_y * slope_x) / determinant
    return jnp.clip(dy, -0.5, 0.5), jnp.clip(dx, -0.5, 0.5)


def _derivatives(pixels: Array, is_finite: Array) -> tuple[Array, Array, Array]:
    """Whether a parabola through three pixels has a maximum; its slope and curvature, 0 and -1 if it has none."""
    before, center, after = pixels
    curvature = before - 2 * center + after
    has_maximum = is_finite & jnp.isfinite(curvature) & (curvature < 0)
    return has_maximum, jnp.where(has_maximum, (after - before) / 2, 0), jnp.where(has_maximum, curvature, -1)
