"""Peaks of a score map: local maxima, to fractions of a pixel."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped

from ._padding import NO_PADDING
from ._programs import compiled
from ._reduce_windows import reduce_windows
from ._typing import Pair, Scalar
from ._validation import as_pair, check_arrays, check_int, check_scalar, check_shape, to_floats


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
    pixels the first in reading order is the peak. Pixels at the border can be peaks, NaN and -inf cannot.

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
      ValueError: a map that is not (H, W) or is empty, `top_k` or `min_distance` below 1.
      TypeError: a map that is not real numbers, options that are not ints.

    >>> top = peaks(jnp.array([[0.0, 3.0, 2.0, 0.0, 1.0]]), top_k=3)
    >>> top.x.round(2), top.valid
    (Array([1.25, 4.  , 0.  ], dtype=float32), Array([ True,  True, False], dtype=bool))
    """
    (score_map,) = check_arrays(scores=scores)
    check_shape("scores", score_map, "H W")
    top_k = check_int("top_k", top_k)
    threshold = check_scalar("min_score", min_score)
    distance = as_pair("min_distance", min_distance)
    return _peaks(score_map, threshold, top_k, distance, bool(subpixel))


@compiled("top_k", "distance", "subpixel")
def _peaks(score_map: Array, threshold: Array | float, top_k: int, distance: Pair, subpixel: bool) -> Peaks:
    (score_map,) = to_floats(score_map)
    (threshold,) = to_floats(threshold)
    score_map = score_map.astype(jnp.promote_types(score_map.dtype, jnp.float32))
    index, height = top_local_maxima(score_map, distance, top_k)
    valid = (height >= threshold.astype(height.dtype)) & (height > -jnp.inf)
    row, column = jnp.divmod(index, score_map.shape[1])
    y = row.astype(height.dtype)
    x = column.astype(height.dtype)
    if subpixel:
        dy, dx = subpixel_offset(score_map)
        y = y + dy.ravel()[index]
        x = x + dx.ravel()[index]
    return Peaks(
        y=jnp.where(valid, y, 0),
        x=jnp.where(valid, x, 0),
        score=jnp.where(valid, height, 0),
        valid=valid,
    )


def top_local_maxima(scores: Array, distance: Pair, count: int) -> tuple[Array, Array]:
    """Flat indices and heights of the highest local maxima of a map; height -inf after the last one."""
    columns = scores.shape[1]
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    heights = jnp.where(_is_local_maximum(scores, distance), scores, -jnp.inf)
    # Two maxima are further apart than `distance`, so a block holds at most one.
    block = distance[0] + 1, distance[1] + 1
    blocks, blocks_across = _split_into_blocks(heights, block)
    block_count = min(count, len(blocks))
    best, block_index = lax.top_k(blocks.max(axis=1), block_count)
    row_in_block, column_in_block = jnp.divmod(blocks.argmax(axis=1)[block_index], block[1])
    row = row_in_block + block_index // blocks_across * block[0]
    column = column_in_block + block_index % blocks_across * block[1]
    missing = (0, count - block_count)
    return jnp.pad(row * columns + column, missing), jnp.pad(best, missing, constant_values=-jnp.inf)


def _is_local_maximum(scores: Array, distance: Pair) -> Array:
    """Whether a pixel is the first of the largest pixels within the distance, and larger than one of them."""
    window = 2 * distance[0] + 1, 2 * distance[1] + 1
    margin = (distance[0], distance[0]), (distance[1], distance[1])
    index = jnp.arange(scores.size).reshape(scores.shape)
    padded = jnp.pad(scores, margin, constant_values=-jnp.inf), jnp.pad(index, margin)
    _, largest_index = reduce_windows(padded, window, (1, 1), NO_PADDING, 0, _first_largest)
    smallest = reduce_windows(scores, window, (1, 1), margin, jnp.inf, lambda a, b, *_: jnp.minimum(a, b))
    return (largest_index == index) & (smallest < scores)


def _first_largest(a: tuple[Array, Array], b: tuple[Array, Array], *_: int) -> tuple[Array, Array]:
    """The larger of two (score, index), the one of smaller index if the scores are equal."""
    takes_b = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] < a[1]))
    return jnp.where(takes_b, b[0], a[0]), jnp.where(takes_b, b[1], a[1])


def _split_into_blocks(scores: Array, block: Pair) -> tuple[Array, int]:
    """A map cut into blocks, padded with -inf: (blocks, pixels of a block), and the number of blocks in a row."""
    down, across = (-(-n // side) for n, side in zip(scores.shape, block, strict=True))
    missing = [(0, down * block[0] - scores.shape[0]), (0, across * block[1] - scores.shape[1])]
    padded = jnp.pad(scores, missing, constant_values=-jnp.inf)
    blocks = padded.reshape(down, block[0], across, block[1]).swapaxes(1, 2)
    return blocks.reshape(-1, block[0] * block[1]), across


def subpixel_offset(scores: Array) -> tuple[Array, Array]:
    """Offset (dy, dx) from every pixel to the maximum of a quadratic fit to its 3x3 neighborhood: two maps.

    At most half a pixel, and 0 along an axis without a maximum or at the border. The fit has a mixed derivative:
    without it a diagonal ridge would be placed a quarter of a pixel off.
    """
    height, width = scores.shape
    padded = jnp.pad(scores, 1, constant_values=-jnp.inf)

    def neighbor(i: int, j: int) -> Array:
        return padded[1 + i : 1 + i + height, 1 + j : 1 + j + width]

    mixed = (neighbor(1, 1) - neighbor(1, -1) - neighbor(-1, 1) + neighbor(-1, -1)) / 4
    is_max_y, slope_y, curvature_y = _derivatives(neighbor(-1, 0), scores, neighbor(1, 0))
    is_max_x, slope_x, curvature_x = _derivatives(neighbor(0, -1), scores, neighbor(0, 1))

    unit = jnp.maximum(-curvature_y, -curvature_x)  # so that products neither overflow nor underflow
    slope_y = slope_y / unit
    slope_x = slope_x / unit
    curvature_y = curvature_y / unit
    curvature_x = curvature_x / unit
    mixed = mixed / unit

    has_maximum = is_max_y & is_max_x & jnp.isfinite(mixed) & (curvature_y * curvature_x > mixed**2)
    mixed = jnp.where(has_maximum, mixed, 0)
    determinant = curvature_y * curvature_x - mixed**2
    dy = (mixed * slope_x - curvature_x * slope_y) / determinant
    dx = (mixed * slope_y - curvature_y * slope_x) / determinant
    return jnp.clip(dy, -0.5, 0.5), jnp.clip(dx, -0.5, 0.5)


def _derivatives(before: Array, center: Array, after: Array) -> tuple[Array, Array, Array]:
    """Whether a parabola through three pixels has a maximum; its slope and curvature, 0 and -1 if it has none."""
    curvature = before - 2 * center + after
    has_maximum = jnp.isfinite(curvature) & (curvature < 0)
    return has_maximum, jnp.where(has_maximum, (after - before) / 2, 0), jnp.where(has_maximum, curvature, -1)
