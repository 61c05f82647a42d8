"""Geometry of turned rectangles: their corners, and the area of their intersections."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._typing import AnyArray

# Rounding of a turned corner, in units of the last place of the rectangles' size.
CORNER_ULPS = 8
# Rounding of an angle, in units of the last place.
ANGLE_ULPS = 4
# Vertical and horizontal signs of the corners: top left, top right, bottom right, bottom left.
CORNER_SIGNS = ((-1, -1), (-1, 1), (1, 1), (1, -1))


class Rectangles(NamedTuple):
    """Turned rectangles in an image: centers and sides in pixels, and the angle's cosine and sine."""

    y: Float[Array, "..."]
    x: Float[Array, "..."]
    height: Float[Array, "..."]
    width: Float[Array, "..."]
    cos: Float[Array, "..."]
    sin: Float[Array, "..."]


def make_rectangles(y: AnyArray, x: AnyArray, height: AnyArray, width: AnyArray, angle: AnyArray) -> Rectangles:
    """Rectangles of these angles: radians, counterclockwise as seen. A rectangle of angle 0 is upright."""
    y, x, height, width, angle = map(jnp.asarray, (y, x, height, width, angle))
    return Rectangles(y, x, height, width, *cos_and_sin(angle))


def cos_and_sin(angle: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Cosine and sine, exact at multiples of 90 degrees.

    `angle` is rounded, so that its cosine at 90 degrees is not 0 but about the rounding error.
    """
    rounding = ANGLE_ULPS * jnp.finfo(angle.dtype).eps * jnp.maximum(1, jnp.abs(angle))
    cos = jnp.cos(angle)
    sin = jnp.sin(angle)
    return jnp.where(jnp.abs(cos) <= rounding, 0, cos), jnp.where(jnp.abs(sin) <= rounding, 0, sin)


def corner_offsets(height: Array, width: Array, cos: Array, sin: Array) -> list[tuple[Array, Array]]:
    """Rows and columns from a rectangle's center to its four corners.

    The order is top left, top right, bottom right, bottom left of the rectangle before it is turned.
    """
    offsets = []
    for vertical, horizontal in CORNER_SIGNS:
        down = vertical * height / 2
        right = horizontal * width / 2
        offsets.append((cos * down - sin * right, sin * down + cos * right))
    return offsets


def intersection_area(one: Rectangles, others: Rectangles) -> Float[Array, " n"]:
    """Area of the intersection of one rectangle (scalars) with each of n others.

    The frame of the one rectangle is used: its center is the origin, its sides are parallel to the axes. The area of an
    intersection is the integral over the columns of the one rectangle:

        area = sum over edges of the other: integral of clip(y(x), -height / 2, height / 2) dx

    The edges of the other run clockwise, so that its upper edges count negative and its lower ones positive.

    Returns:
      Areas in square pixels. Rectangles that touch have 0.

    Notes:
      Whole and half pixels give exact areas at multiples of 90 degrees. At other angles an area may be smaller by 8
      units in the last place of the product of the diagonals: so that rounding does not let rectangles overlap that
      touch. The coordinates' magnitude adds no error.
    """
    down = others.y - one.y
    right = others.x - one.x
    y = one.cos * down + one.sin * right
    x = one.cos * right - one.sin * down
    cos = others.cos * one.cos + others.sin * one.sin
    sin = others.sin * one.cos - others.cos * one.sin
    corners = [(y + dy, x + dx) for dy, dx in corner_offsets(others.height, others.width, cos, sin)]
    area = jnp.zeros_like(y)
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        area -= _integral_of_clipped_edge(start, end, one.height / 2, one.width / 2)
    turns = jnp.abs(one.cos * one.sin) + jnp.abs(others.cos * others.sin)  # 0 for two upright rectangles
    diagonals = jnp.hypot(one.height, one.width) * jnp.hypot(others.height, others.width)
    rounding = CORNER_ULPS * jnp.finfo(area.dtype).eps * turns * diagonals
    smaller = jnp.minimum(one.height * one.width, others.height * others.width)
    return jnp.clip(area - rounding, 0, smaller)


def _integral_of_clipped_edge(
    start: tuple[Array, Array], end: tuple[Array, Array], half_height: Array, half_width: Array
) -> Array:
    """Integral of clip(y(x), -half_height, half_height) dx along the part of an edge within half_width of the origin.

    Edges are (y, x). An integral from right to left is the negative of that from left to right.
    """
    y_start, x_start = start
    y_end, x_end = end
    dy = y_end - y_start
    dx = x_end - x_start
    # An edge along an axis has no slope in one of the two ways, and none is needed.
    slope = jnp.where(dx == 0, 0, dy / jnp.where(dx == 0, 1, dx))
    inverse_slope = jnp.where(dy == 0, 0, dx / jnp.where(dy == 0, 1, dy))

    x_first = jnp.clip(x_start, -half_width, half_width)
    x_last = jnp.clip(x_end, -half_width, half_width)
    y_first = jnp.clip(y_start + (x_first - x_start) * slope, -half_height, half_height)
    y_last = jnp.clip(y_start + (x_last - x_start) * slope, -half_height, half_height)

    # Between the columns at which the edge enters and leaves the rows of the rectangle, y(x) is not clipped.
    left = jnp.minimum(x_first, x_last)
    right = jnp.maximum(x_first, x_last)
    x_enter = jnp.clip(x_start + (y_first - y_start) * inverse_slope, left, right)
    x_leave = jnp.clip(x_start + (y_last - y_start) * inverse_slope, left, right)
    before = y_first * (x_enter - x_first)
    between = (y_first + y_last) / 2 * (x_leave - x_enter)
    after = y_last * (x_last - x_leave)
    return before + between + after
