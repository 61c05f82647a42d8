"""Images and templates of a search of ranges, on all levels of a pyramid."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._pyramid import image_pyramid, masked_pyramid
from ._range_plan import RangePlan

# A pixel of a level counts if at least this fraction of the pixels below it does.
MIN_COVERAGE = 0.5
# Pixels at the border of a template, on levels below full resolution, that the filter mixes with what is around it.
BORDER_PIXELS = 1
# The smallest fraction of a template's pixels that are compared without its border.
MIN_INNER_FRACTION = 1 / 4


def without_unit(pixels: Array) -> Array:
    """Floats times a power of two that brings the largest magnitude to 0.5 to 1, so that squares stay in range."""
    if not jnp.issubdtype(pixels.dtype, jnp.floating):
        return pixels
    largest = jnp.where(jnp.isfinite(pixels), jnp.abs(pixels), 0).max()
    _, exponent = jnp.frexp(lax.stop_gradient(largest).astype(jnp.float32))
    return pixels * jnp.ldexp(jnp.float32(1), -exponent).astype(pixels.dtype)


def fill_gaps(image: Array) -> Array:
    """The image with the mean of its finite pixels in place of the others, so that these do not spread."""
    if not jnp.issubdtype(image.dtype, jnp.floating):
        return image
    is_finite = jnp.isfinite(image)
    count = jnp.maximum(is_finite.sum(dtype=jnp.float32), 1)
    mean = jnp.where(is_finite, image, 0).sum(dtype=jnp.float32) / count
    return jnp.where(is_finite, image, mean.astype(image.dtype))


def template_pyramid(template: Array, mask: Array | None, plan: RangePlan) -> tuple[list[Array], list[Array]]:
    """The template at the base scale, and the weights of its pixels, on all levels."""
    if mask is None:
        templates = image_pyramid(_to_base_scale(template, plan), plan.pyramid)
        return templates, _inner_weights([jnp.ones_like(level) for level in templates])
    mask = mask.astype(template.dtype)
    coverage = _to_base_scale((mask != 0).astype(template.dtype), plan)
    pixels = _to_base_scale(jnp.where(mask != 0, template, 0), plan)
    pixels = pixels / jnp.where(coverage > 0, coverage, 1)
    weights = jnp.where(coverage >= MIN_COVERAGE, _to_base_scale(mask, plan), 0)
    levels, level_weights = masked_pyramid(pixels, weights, plan.pyramid, MIN_COVERAGE)
    return levels, _inner_weights(level_weights)


def _inner_weights(levels: Sequence[Array]) -> list[Array]:
    """Weights on all levels, 0 for border pixels of all but the first."""
    return [levels[0], *map(_without_border, levels[1:])]


def _without_border(weights: Array) -> Array:
    """Weights, but 0 for border pixels. Where too few pixels would be left, all of them count."""
    margin = (BORDER_PIXELS, BORDER_PIXELS)
    counts = jnp.pad((weights != 0).astype(weights.dtype), [margin, margin, (0, 0)])
    side = 2 * BORDER_PIXELS + 1
    is_inner = lax.reduce_window(counts, jnp.inf, lax.min, (side, side, 1), (1, 1, 1), "VALID") > 0
    has_enough = is_inner.mean() >= MIN_INNER_FRACTION * (weights != 0).mean()
    return jnp.where(is_inner | ~has_enough, weights, 0)


def _to_base_scale(template: Array, plan: RangePlan) -> Array:
    """The template scaled about its center, smoothed before it shrinks."""
    if plan.base_scale == 1:
        return template
    shift = [(new - plan.base_scale * old) / 2 for new, old in zip(plan.size, template.shape[:2], strict=True)]
    scale = jnp.full(2, plan.base_scale, jnp.float32)
    shape = (*plan.size, template.shape[2])
    return jax.image.scale_and_translate(template, shape, (0, 1), scale, jnp.array(shift), "linear", antialias=True)
