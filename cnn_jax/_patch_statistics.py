"""Statistics of every patch of an image, on plain arrays.

An image is (H, W, C). A feature, a mask or a kernel is (h, w, C). A map has one number per patch, (H', W'). A mask
holds weights m; the mask None is 1 everywhere. No argument is checked here: `_score_inputs` has done that.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._correlate import correlate_image
from ._padding import NO_PADDING
from ._reduce_windows import add, reduce_windows
from ._typing import Pair
from ._xla import no_fusion, not_negative, reduce_by_rows, with_normal_reciprocal

Out = TypeVar("Out")

# Clipping limit of standardized pixels, in units of the image's scale: sums of their squares do not overflow.
CLIP_LIMIT = 2.0**50
# Largest number of rows, and of columns, of the sample that an image's location and scale are estimated from.
MAX_SAMPLES_PER_AXIS = 64


class CorrelateOptions(NamedTuple):
    """How to correlate an image with a kernel."""

    stride: Pair
    method: str
    precision: lax.PrecisionLike


class Moments(NamedTuple):
    """Mean and sum of squared deviations from it."""

    mean: Array
    squared_deviations: Array


# Sums over patches.


def patch_dots(image: Array, kernel: Array, options: CorrelateOptions, *, divisor: int = 1) -> Array:
    """Dot product of every patch with a kernel, divided by a divisor: a map."""
    out = correlate_image(
        image,
        kernel[..., None],
        stride=options.stride,
        padding=NO_PADDING,
        divisor=divisor,
        method=options.method,
        precision=options.precision,
    )
    return out[..., 0]


def channel_dots(image: Array, kernels: Sequence[Array], options: CorrelateOptions) -> Array:
    """Dot products of every patch with some kernels, channel by channel: maps (C, K, H', W')."""

    def dots_of_channel(channel: Array, *kernels: Array) -> Array:
        bank = jnp.stack(kernels)[..., None]
        return jax.vmap(lambda kernel: patch_dots(channel[..., None], kernel, options))(bank)

    return map_channels(dots_of_channel, image, *kernels)


def patch_sums(pixels: Array, window: Pair, stride: Pair) -> Array:
    """Sum over every patch of an array (H, W): a map."""
    return reduce_windows(pixels, window, stride, NO_PADDING, 0, add)


def patch_energy(image: Array, mask: Array | None, window: Pair, options: CorrelateOptions) -> Array:
    """Energy of every patch: Σ m² p², a map."""
    squares = image**2
    if mask is None:
        return patch_sums(squares.sum(axis=-1), window, options.stride)
    return not_negative(patch_dots(squares, mask**2, options))


def patch_moments(image: Array, window: Pair, stride: Pair) -> Moments:
    """Moments of every channel of every patch, without a mask: two arrays (C, H', W')."""

    def channel_moments(channel: Array) -> Moments:
        pixels = Moments(channel, jnp.zeros_like(channel))
        return reduce_windows(pixels, window, stride, NO_PADDING, 0, merge_moments)

    return map_channels(channel_moments, image)


def map_channels(function: Callable[..., Out], *arrays: Array) -> Out:
    """`function(channel, ...)` of every channel of some arrays (H, W, C), stacked along a new first axis."""
    channels = tuple(jnp.moveaxis(array, -1, 0) for array in arrays)
    if len(channels[0]) == 1:
        return jax.tree.map(lambda out: out[None], function(*(array[0] for array in channels)))
    # A scan: its time to compile does not grow with the channels, and a correlation chooses its method for all images.
    return lax.map(lambda channel: function(*channel), channels)


def merge_moments(a: Moments, b: Moments, count_a: int, count_b: int) -> Moments:
    """Moments of two sets of pixels together; exact if both means are equal.

    Source: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979),
    http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf
    """
    step = b.mean - a.mean
    count = count_a + count_b
    mean = a.mean + step * (count_b / count)
    between = step**2 * (count_a * count_b / count)
    return Moments(mean, a.squared_deviations + b.squared_deviations + between)


def is_all_zero_patch(image: Array, mask: Array | None, options: CorrelateOptions) -> Array | bool:
    """Map of the patches that are all zero under the mask, where Fourier transforms would leave rounding noise.

    Without a mask it is False: then no energy comes from a Fourier transform.
    """
    if mask is None:
        return False
    nonzero_image = (image != 0).astype(image.dtype)
    nonzero_mask = (mask != 0).astype(image.dtype)
    return patch_dots(nonzero_image, nonzero_mask, options) < 0.5


def safe_cosine(dot: Array, patch_energy: Array, feature_energy: Array) -> tuple[Array, Array]:
    """The map dot / sqrt(patch_energy feature_energy) in [-1, 1], 0 where an energy is 0; and where neither is 0."""
    # Not fused, so that a bank of features does not compute it once per feature.
    patch_factor = no_fusion(_inverse_sqrt, patch_energy)
    score = jnp.clip(dot * patch_factor * _inverse_sqrt(feature_energy), -1, 1)
    return score, (patch_energy > 0) & (feature_energy > 0)


def _inverse_sqrt(energy: Array) -> Array:
    """1 / sqrt(energy), 0 where the energy is 0, NaN where it is NaN."""
    is_positive = energy > 0
    inverse = 1 / jnp.sqrt(jnp.where(is_positive, energy, 1))  # the gradient of lax.rsqrt would overflow earlier
    return jnp.where(is_positive, inverse, jnp.where(jnp.isnan(energy), jnp.nan, 0).astype(inverse.dtype))


# Features under a mask.


def times_squared_mask(feature: Array, mask: Array | None) -> Array:
    """m² f, exactly 0 where m is 0 even if f is NaN there."""
    return feature if mask is None else jnp.where(mask != 0, mask**2 * feature, 0)


def total_squared_weight(feature: Array, mask: Array | None) -> Array:
    """Σ m², which is the number of the feature's pixels without a mask."""
    return jnp.asarray(feature.size if mask is None else (mask**2).sum())


def center_feature(feature: Array, mask: Array | None) -> Array:
    """The feature minus the mean Σ m f / Σ m of each channel; exactly 0 where a channel is constant under the mask."""
    weights = jnp.ones_like(feature) if mask is None else mask
    is_counted = weights != 0
    largest = lax.stop_gradient(_over_pixels(jnp.max, jnp.where(is_counted, feature, -jnp.inf)))
    # Subtracting the largest pixel first makes a constant channel exactly 0.
    feature = jnp.where(is_counted, feature - jnp.where(jnp.isneginf(largest), 0, largest), 0)
    total_weight = _over_pixels(jnp.sum, jnp.where(is_counted, weights, 0))
    for _ in range(2):  # the second pass removes the rounding error of the first
        mean = _over_pixels(jnp.sum, weights * feature) / jnp.where(total_weight != 0, total_weight, 1)
        feature = jnp.where(is_counted, feature - mean, 0)
    return feature


def _over_pixels(reduce: Callable[..., Array], feature: Array) -> Array:
    """A reduction over the pixels of each channel, (1, 1, C)."""
    return reduce(feature, axis=(0, 1), keepdims=True)


def scale_to_unit_magnitude(feature: Array, mask: Array | None) -> tuple[Array, Array]:
    """The feature divided by its largest magnitude under the mask, and that divisor.

    The divisor is 1 for a feature of zeros, and has a normal reciprocal: pixels of the largest features become up to 4.
    """
    is_counted = True if mask is None else mask != 0
    magnitude = lax.stop_gradient(jnp.where(is_counted, jnp.abs(feature), 0).max())
    magnitude = jnp.where(magnitude > 0, with_normal_reciprocal(magnitude), 1)
    return feature / magnitude, magnitude


# Location and scale of a whole image. Scores do not depend on them: they only keep the sums small.


def robust_location_and_scale(image: Array, *, centered: bool) -> tuple[Array, Array]:
    """The typical brightness of each channel, (1, 1, C), or 0 unless centered, and the typical deviation from it.

    Both are medians over rows of means within rows, so that single pixels hardly change them. Pixels that are not
    finite are left out. No gradient passes.
    """
    image = lax.stop_gradient(image)
    row_step = -(-image.shape[0] // MAX_SAMPLES_PER_AXIS)
    column_step = -(-image.shape[1] // MAX_SAMPLES_PER_AXIS)
    sample = image[::row_step, ::column_step]
    is_finite = jnp.isfinite(sample)
    if centered:
        location = jax.vmap(_median_of_row_means, -1)(sample, is_finite)[None, None]
    else:
        location = jnp.zeros((1, 1, image.shape[2]), image.dtype)
    rows = len(sample), -1
    deviation = _median_of_row_means(jnp.abs(sample - location).reshape(rows), is_finite.reshape(rows))
    largest = _largest_deviation(image, location)
    scale_if_mostly_flat = jnp.where(largest > 0, largest, 1)
    # At least the largest deviation over the clipping limit: bright objects in a mostly dark image are not clipped.
    scale = jnp.where(deviation > 0, jnp.maximum(deviation, largest / CLIP_LIMIT), scale_if_mostly_flat)
    return location, with_normal_reciprocal(scale)


def _median_of_row_means(rows: Array, is_finite: Array) -> Array:
    """The median over rows of the mean of each row's finite numbers; 0 if it overflows or no number is finite."""
    finite_counts = is_finite.sum(axis=1).astype(rows.dtype)
    row_count = jnp.maximum((finite_counts > 0).sum(), 1)
    means = jnp.where(is_finite, rows / jnp.maximum(finite_counts, 1)[:, None], 0).sum(axis=1)
    ordered = jnp.sort(jnp.where(finite_counts > 0, means, jnp.inf))
    median = (ordered[(row_count - 1) // 2] + ordered[row_count // 2]) / 2
    return jnp.where(jnp.isfinite(median), median, 0)


def standardize_image(image: Array, location: Array, scale: Array) -> Array:
    """(image - location) / scale, clipped to ±CLIP_LIMIT; NaN where it is not finite."""

    def standardize(image: Array, location: Array, scale: Array) -> Array:
        image = (image - location) / scale
        return jnp.where(jnp.isfinite(image), jnp.clip(image, -CLIP_LIMIT, CLIP_LIMIT), jnp.nan)

    # Not fused, so that the sums over patches do not compute it again for each of their terms.
    return no_fusion(standardize, image, location, scale)


def _largest_deviation(image: Array, location: Array) -> Array:
    """The largest distance of a finite pixel from its channel's location; 0 if it overflows."""
    finite_image = jnp.where(jnp.isfinite(image), image, location)
    above = reduce_by_rows(jnp.max, finite_image, 0)[None, None] - location
    below = location - reduce_by_rows(jnp.min, finite_image, 0)[None, None]
    largest = jnp.maximum(above, below).max()
    return jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 0)
