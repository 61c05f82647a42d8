"""Image pyramids: an image at ever lower resolution.

Pixel i of a level that is k times smaller is at pixel k i of the image, along both axes.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from ._dtypes import accumulation_dtype

# Top levels that would be less than this factor smaller than the level below are left out.
MIN_TOP_RATIO = 1.1


class PyramidPlan(NamedTuple):
    """The levels of a pyramid. It is hashable, an argument of a compiled program."""

    halvings: int
    """Levels of which each is half as large as the one before."""
    top_ratio: float
    """How many times smaller than the last of them the top level is; 1 if the last of them is the top level."""

    @property
    def factors(self) -> tuple[float, ...]:
        """How many times smaller than the image each level is, the image itself first."""
        halves = tuple(2.0**i for i in range(self.halvings + 1))
        return halves if self.top_ratio == 1 else (*halves, halves[-1] * self.top_ratio)


def plan_pyramid(side: int, top_side: int) -> PyramidPlan:
    """Levels on which a side, in pixels, shrinks to `top_side` pixels on the last level."""
    halvings = max(0, (side // top_side).bit_length() - 1)
    ratio = side / 2**halvings / top_side
    return PyramidPlan(halvings, ratio if ratio >= MIN_TOP_RATIO else 1.0)


def image_pyramid(image: Shaped[Array, "H W C"], plan: PyramidPlan) -> list[Shaped[Array, "h w C"]]:
    """All levels of an image; the first one is the image itself."""
    levels = [image]
    for _ in range(plan.halvings):
        levels.append(halve(levels[-1]))
    if plan.top_ratio != 1:
        levels.append(shrink(levels[-1], plan.top_ratio))
    return levels


def masked_pyramid(
    image: Float[Array, "H W C"], weights: Float[Array, "H W C"], plan: PyramidPlan, min_weight: float
) -> tuple[list[Float[Array, "h w C"]], list[Float[Array, "h w C"]]]:
    """All levels of an image whose pixels have weights, and those of the weights.

    A pixel of a level is the mean of the pixels below it, weighted by the filter and the weights. It gets the weight 0
    if its weight is less than `min_weight` times the largest one.
    """
    sums = image_pyramid(jnp.where(weights != 0, image * weights, 0), plan)
    totals = image_pyramid(weights, plan)
    levels = [image]
    level_weights = [weights]
    for pixels, total in zip(sums[1:], totals[1:], strict=True):
        levels.append(jnp.where(total > 0, pixels / jnp.where(total > 0, total, 1), 0))
        level_weights.append(jnp.where(total >= min_weight * weights.max(), total, 0))
    return levels, level_weights


def halve(image: Shaped[Array, "H W C"]) -> Float[Array, "h w C"]:
    """Every second row and column of an image, after a binomial filter of 5 x 5 pixels, reflected at the border.

    Source: Burt and Adelson, "The Laplacian Pyramid as a Compact Image Code" (1983),
    https://doi.org/10.1109/TCOM.1983.1095851; OpenCV's pyrDown.
    """
    return _halve_axis(_halve_axis(image, 0), 1)


def _halve_axis(image: Array, axis: int) -> Array:
    """Even and odd pixels are slices of a reshaped array: faster than slices with steps, above all of bytes."""
    count = (image.shape[axis] + 1) // 2
    margin = [(0, 0)] * image.ndim
    margin[axis] = (2, 3)
    # A reflection needs 4 pixels; smaller images repeat their border.
    padded = jnp.pad(image, margin, mode="reflect" if image.shape[axis] > 3 else "edge")
    pairs = lax.slice_in_dim(padded, 0, 2 * count + 4, axis=axis)
    pairs = pairs.reshape(*image.shape[:axis], count + 2, 2, *image.shape[axis + 1 :])
    even, odd = (lax.index_in_dim(pairs, i, axis + 1, keepdims=False).astype(_float_dtype(image)) for i in (0, 1))

    def at(pixels: Array, start: int) -> Array:
        return lax.slice_in_dim(pixels, start, start + count, axis=axis)

    return (at(even, 0) + at(even, 2) + 6 * at(even, 1) + 4 * (at(odd, 0) + at(odd, 1))) / 16


def _float_dtype(image: Array) -> jnp.dtype:
    return accumulation_dtype(image.dtype if jnp.issubdtype(image.dtype, jnp.floating) else jnp.float32)


def shrink(image: Shaped[Array, "H W C"], ratio: float) -> Float[Array, "h w C"]:
    """An image that is smaller by any ratio from 1 on, interpolated linearly with smoothing."""
    image = image.astype(_float_dtype(image))
    for axis in (0, 1):
        weights = jnp.asarray(_shrinking_weights(image.shape[axis], ratio), image.dtype)
        image = jnp.moveaxis(jnp.tensordot(weights, image, (1, axis), precision="highest"), 0, axis)
    return image


def _shrinking_weights(count: int, ratio: float) -> np.ndarray:
    """Weights (n, count) of linear interpolation, widened by the ratio."""
    centers = ratio * np.arange(int((count - 1) / ratio) + 1)
    distance = np.abs(centers[:, None] - np.arange(count)) / ratio
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(axis=1, keepdims=True)
