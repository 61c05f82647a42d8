"""The part of an image in which `find` searches."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int, Shaped

from ._search_inputs import as_array
from ._typing import Pair
from ._validation import check_int, has_values

EXPECTED_REGION = "(top, left, height, width) in whole pixels, or an array of bools of the image's size"


class Region(NamedTuple):
    """The part of an image that is searched, and where the middle pixels of matches may lie in it: arrays and None."""

    origin: Int[np.ndarray | Array, "2"]
    """The row and column of the part's first pixel; negative before the image."""
    start: Int[np.ndarray | Array, "2"]
    """The first row and column of a middle pixel, counted in the part."""
    stop: Int[np.ndarray | Array, "2"]
    """The row and column after the last one."""
    mask: Bool[np.ndarray | Array, "H W"] | None
    """Middle pixels, in the image."""


class Rectangle(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int


def check_region(region: object, image_size: Pair) -> Rectangle | Bool[np.ndarray | Array, "H W"] | None:
    """The region of `find`: a rectangle inside of the image, or a mask of its size.

    Raises:
      ValueError: a region that is empty, or does not lie inside the image.
      TypeError: neither ints nor an array of bools.
    """
    if region is None:
        return None
    if isinstance(region, np.ndarray | jax.Array):
        return _check_mask(as_array("region", region), image_size)
    if not isinstance(region, Sequence) or isinstance(region, str | bytes):
        raise TypeError(f"region: expected {EXPECTED_REGION}, got {region!r}")
    if len(region) != 4:
        raise ValueError(f"region: expected {EXPECTED_REGION}, got {region!r}")
    top, left = (check_int("region", value, minimum=0) for value in region[:2])
    height, width = (check_int("region", value) for value in region[2:])
    if top + height > image_size[0] or left + width > image_size[1]:
        raise ValueError(f"region: expected a part of the image of shape {image_size}, got {tuple(region)}")
    return Rectangle(top, left, height, width)


def _check_mask(mask: np.ndarray | Array, image_size: Pair) -> np.ndarray | Array:
    if mask.dtype != jnp.bool_:
        raise TypeError(f"region: expected {EXPECTED_REGION}, got an array of {mask.dtype}; compare it, as in mask > 0")
    if mask.shape != image_size:
        raise ValueError(f"region: expected a mask of the image's shape {image_size}, got {mask.shape}")
    if has_values(mask) and not np.asarray(mask).any():
        raise ValueError("region: expected a mask that is true somewhere, got one that is false everywhere")
    return mask


def is_reachable(
    region: Rectangle | Bool[np.ndarray | Array, "H W"],
    image_size: Pair,
    boxes: Int[np.ndarray, "N 2"],
    tolerance: int = 0,
) -> bool:
    """Whether the middle pixel of a box inside of the image can lie in a region; True for masks of unknown values.

    Args:
      region: as `check_region` returns it.
      image_size: rows and columns.
      boxes: rows and columns of boxes.
      tolerance: pixels by which a box may reach over the border of the image.
    """
    boxes = _without_larger(boxes)
    first = np.maximum((boxes - 1) // 2 - tolerance, 0)
    stop = np.minimum(np.array(image_size) - boxes // 2 + tolerance, image_size)
    if isinstance(region, Rectangle):
        corner = np.array(region[:2])
        first = np.maximum(first, corner)
        stop = np.minimum(stop, corner + region[2:])
        return bool((first < stop).all(axis=1).any())
    if not has_values(region):
        return True
    mask = np.asarray(region)
    return any(
        mask[top:bottom, left:right].any()
        for (top, left), (bottom, right) in zip(first, stop, strict=True)
        if top < bottom and left < right
    )


def _without_larger(boxes: Int[np.ndarray, "N 2"]) -> Int[np.ndarray, "M 2"]:
    """Boxes without those that are as high and as wide as another one, or more. Smaller boxes reach more pixels."""
    ordered = boxes[np.lexsort((boxes[:, 1], boxes[:, 0]))]
    narrowest = np.minimum.accumulate(ordered[:, 1])
    is_narrower = np.ones(len(boxes), bool)
    is_narrower[1:] = narrowest[1:] < narrowest[:-1]
    return ordered[is_narrower]


def searched_part(
    region: Rectangle | Bool[np.ndarray | Array, "H W"] | None, image_size: Pair, largest_box: Pair, margin: Pair
) -> tuple[Region, Pair]:
    """The part of an image to search, and its size, if boxes may reach over its border by a margin.

    The part for a rectangle holds all boxes around its pixels, and those pixels' neighbors.
    """
    first = -np.array(margin)
    last = np.array(image_size) + margin
    corner = first
    end = last
    if isinstance(region, Rectangle):
        box = np.array(largest_box)
        corner = np.array(region[:2])
        end = corner + region[2:]
        first = np.maximum(first, corner - (box - 1) // 2 - 1)
        last = np.minimum(last, end + box // 2 + 1)
    rows, columns = (last - first).tolist()
    mask = None if isinstance(region, Rectangle) else region
    return Region(first, corner - first, end - first, mask), (rows, columns)


def cut_out(pixels: Shaped[Array, "H W *C"], part: Region, size: Pair, margin: Pair) -> Shaped[Array, "h w *C"]:
    """The part of an array of the image's size; 0 in the margin."""
    outer = [(0, 0)] * (pixels.ndim - 2)
    padded = jnp.pad(pixels, [*((side, side) for side in margin), *outer])
    rows, columns = part.origin + jnp.array(margin)
    starts = [rows, columns, *[jnp.zeros_like(rows)] * len(outer)]
    return lax.dynamic_slice(padded, starts, (*size, *pixels.shape[2:]))


def allowed_pixels(part: Region, size: Pair, margin: Pair) -> Bool[Array, "h w"]:
    """Which pixels of the part may be middle pixels of matches."""
    if part.mask is not None:
        return cut_out(jnp.asarray(part.mask), part, size, margin)
    rows, columns = (
        (jnp.arange(n) >= start) & (jnp.arange(n) < stop)
        for n, start, stop in zip(size, part.start, part.stop, strict=True)
    )
    return rows[:, None] & columns[None, :]
