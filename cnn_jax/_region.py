"""The part of an image in which `find` searches."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Int, Shaped

from ._search_inputs import as_array
from ._typing import Pair
from ._validation import check_int

EXPECTED_REGION = "(top, left, height, width) in whole pixels, or an array of bools of the image's size"


class Region(NamedTuple):
    """Where the middle pixels of matches may lie, and the part of the image that is searched: arrays and None."""

    crop_start: Int[np.ndarray | Array, "2"]
    """The first row and column of the part."""
    start: Int[np.ndarray | Array, "2"]
    """The first row and column of a middle pixel, counted in the part."""
    stop: Int[np.ndarray | Array, "2"]
    """The row and column after the last one."""
    mask: Bool[np.ndarray | Array, "H W"] | None
    """Middle pixels, in the whole image."""


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
    if isinstance(mask, np.ndarray) and not isinstance(mask, Tracer) and not mask.any():
        raise ValueError("region: expected a mask that is true somewhere, got one that is false everywhere")
    return mask


def crop_size(region: Rectangle, image_size: Pair, largest_box: Pair) -> tuple[Region, Pair]:
    """The part of an image that holds all boxes around the pixels of a rectangle, and those pixels' neighbors."""
    corner = np.array(region[:2])
    side = np.array(region[2:])
    box = np.array(largest_box)
    start = np.maximum(corner - (box - 1) // 2 - 1, 0)
    stop = np.minimum(corner + side + box // 2 + 1, image_size)
    rows, columns = (stop - start).tolist()
    return Region(start, corner - start, corner - start + side, None), (rows, columns)


def crop(image: Shaped[Array, "H W *C"], region: Region, size: Pair) -> Shaped[Array, "h w *C"]:
    """The part of an image that is searched."""
    starts = [*region.crop_start, *[jnp.zeros_like(region.crop_start[0])] * (image.ndim - 2)]
    return lax.dynamic_slice(image, starts, (*size, *image.shape[2:]))


def allowed_pixels(region: Region, size: Pair) -> Bool[Array, "h w"]:
    """Which pixels of the part that is searched may be middle pixels of matches."""
    if region.mask is not None:
        return jnp.asarray(region.mask)
    rows, columns = (
        (jnp.arange(n) >= start) & (jnp.arange(n) < stop)
        for n, start, stop in zip(size, region.start, region.stop, strict=True)
    )
    return rows[:, None] & columns[None, :]
