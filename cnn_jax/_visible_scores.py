"""Scores of features that are only in part visible: cut by the border, or over pixels of the image that do not count.

p is a patch, f the feature, m the mask and v 1 where a pixel of the image counts, else 0. All sums run over the visible
pixels, as if the mask of every patch were v m. They are correlations, so that `jax.vmap` over features gives banks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from . import matching
from ._padding import NO_PADDING
from ._patch_statistics import (
    CorrelateOptions,
    center_feature,
    channel_dots,
    is_all_zero_patch,
    map_channels,
    patch_dots,
    patch_energy,
    robust_location_and_scale,
    safe_cosine,
    scale_to_unit_magnitude,
    standardize_image,
    times_squared_mask,
)
from ._reduce_windows import reduce_windows
from ._score_formulas import CosineMap, ScoreMap, normalize_difference, sharpen
from ._score_inputs import check_score_arguments, prepare_score_inputs
from ._typing import Pair, Score
from ._xla import not_negative

# Visible parts with less than this fraction of the feature's weight or energy have nothing to compare. Fourier
# transforms leave rounding errors of up to about a tenth of it.
MIN_FRACTION = 1e-5
# The defaults of `matching.sharpened_cosine`.
EXPONENT = 2.0
ADDED_NORM = 1e-3


class VisibleScore(NamedTuple):
    """A score of the visible part of every patch: two maps (H', W')."""

    score: Array
    visible: Array
    """The visible fraction of the feature's weight, Σ v m² / Σ m², from 0 to 1."""
    defined: Array
    """Where neither the visible part of the patch nor that of the feature is degenerate."""


class _Inputs(NamedTuple):
    """Checked arguments, and the visible fractions that they give."""

    image: Array
    """(H, W, C)."""
    valid: Array
    """Whether a pixel counts, (H, W, 1)."""
    feature: Array
    mask: Array
    """Weights, (h, w, C)."""
    is_binary_mask: bool
    window: Pair
    options: CorrelateOptions
    visible: Array
    """As in `VisibleScore`."""


def visible_score(
    image: Float[Array, "H W *C"],
    valid: Bool[Array, "H W"],
    feature: Float[Array, "h w *C"],
    mask: Float[Array, "h w *C"] | Bool[Array, "h w *C"] | None,
    score: Score,
) -> VisibleScore:
    """A score of the visible part of every patch, and how much of the feature is visible.

    Both the patch and the feature lose the pixels that do not count: means, norms and sums are those of the rest. So
    the score of a cut object is that of a whole one. The squared difference is divided by the visible fraction, to be
    comparable with whole matches.

    Args:
      image: an image, padded so that features may overlap its border.
      valid: which of its pixels count; others may have any value. All False in the padding.
      feature: a feature.
      mask: weights of its pixels, or None.
      score: a score of `matching`; the sharpened cosine has its default exponent and added norm.

    Returns:
      The score, in the image's dtype, and the visible fraction. Where all is visible, they are the ordinary score, up
      to rounding, and 1. The score is 0 where the visible part of the patch or of the feature is degenerate, or has
      less than 1e-5 of the feature's weight or energy.

    Raises:
      KeyError: another score.

    Notes:
      Accuracy is that of scores with a mask, which `matching` says.

    Source: Padfield, "Masked Object Registration in the Fourier Domain" (2012),
    https://doi.org/10.1109/TIP.2011.2181402, for zncc.
    """
    arguments = check_score_arguments(image, feature, mask, 1, "VALID", 0.0, "auto", "highest")
    checked = prepare_score_inputs(*arguments)
    weights = jnp.ones_like(checked.feature) if checked.mask is None else checked.mask
    inputs = _Inputs(
        image=checked.image,
        valid=valid[..., None],
        feature=checked.feature,
        mask=weights,
        is_binary_mask=checked.is_binary_mask,
        window=checked.window,
        options=checked.options,
        visible=_visible_fraction(valid[..., None], weights, checked.options),
    )
    score_map = _FORMULAS[score](inputs)
    # Not a product, as the score may be NaN in pixels that do not count.
    is_visible = inputs.visible > 0
    out = jnp.where(is_visible, score_map.score, 0)
    visible = inputs.visible.astype(checked.out_dtype)
    return VisibleScore(out.astype(checked.out_dtype), visible, score_map.defined & is_visible)


def _visible_fraction(valid: Array, mask: Array, options: CorrelateOptions) -> Array:
    """Σ v m² / Σ m²; 0 below the smallest fraction, and exactly 1 where all is visible."""
    squares = (mask**2).sum(axis=-1, keepdims=True)
    total = squares.sum()
    fraction = patch_dots(valid.astype(mask.dtype), squares, options) / jnp.where(total > 0, total, 1)
    fraction = jnp.where(fraction > MIN_FRACTION, fraction, 0)
    return jnp.where(fraction < 1 - MIN_FRACTION, fraction, jnp.where(total > 0, 1, 0).astype(fraction.dtype))


def _match(inputs: _Inputs) -> ScoreMap:
    """Mean product: Σ v m² p f / Σ v m²."""
    kernel = times_squared_mask(inputs.feature, inputs.mask)
    dot = patch_dots(_visible_pixels(inputs.image, inputs.valid), kernel, inputs.options)
    weight = (inputs.mask**2).sum() * inputs.visible
    return ScoreMap(jnp.where(weight > 0, dot / jnp.where(weight > 0, weight, 1), 0), weight > 0)


def _cosine(inputs: _Inputs) -> CosineMap:
    """Cosine of the visible parts: Σ v m² p f / sqrt(Σ v m² p² Σ v m² f²)."""
    mask, options = inputs.mask, inputs.options
    image, scale = _standardize_visible_pixels(inputs, centered=False)
    feature, magnitude = scale_to_unit_magnitude(inputs.feature, mask)
    dot = patch_dots(image, times_squared_mask(feature, mask), options)
    is_zero = is_all_zero_patch(image, mask, options)
    energy = jnp.where(is_zero, 0, patch_energy(image, mask, inputs.window, options))
    feature_energy = _visible_energy(feature, inputs)
    feature_energy = jnp.where(feature_energy > MIN_FRACTION * feature_energy.max(), feature_energy, 0)
    score, defined = safe_cosine(dot, energy, feature_energy)
    patch_norm = jnp.sqrt(jnp.where(defined, energy, 1)) * scale
    feature_norm = jnp.sqrt(jnp.where(defined, feature_energy, 1)) * magnitude
    return CosineMap(score, defined, patch_norm, feature_norm)


def _zncc(inputs: _Inputs) -> ScoreMap:
    """The cosine of the visible parts, each channel minus its mean p̄ = Σ v m p / Σ v m."""
    mask, options = inputs.mask, inputs.options
    image, _ = _standardize_visible_pixels(inputs, centered=True)
    feature, _ = scale_to_unit_magnitude(center_feature(inputs.feature, mask), mask)
    weightings = [mask] if inputs.is_binary_mask else [mask, mask**2]
    patch_sums = channel_dots(image, weightings, options)
    feature_sums = _valid_dots([weighting * feature for weighting in weightings], inputs)
    weights = _valid_dots(weightings, inputs)
    weight = jnp.where(weights[:, 0] > MIN_FRACTION * mask.max(), weights[:, 0], 1)
    patch_means = patch_sums[:, 0] / weight
    feature_means = feature_sums[:, 0] / weight

    def remove_means(products: Array, sums_a: Array, means_a: Array, sums_b: Array, means_b: Array) -> Array:
        """Σ v m² (a - ā)(b - b̄), of Σ v m² a b."""
        removed = means_a * sums_b[:, -1] + means_b * sums_a[:, -1] - means_a * means_b * weights[:, -1]
        return products - removed.sum(axis=0)

    patch = patch_sums, patch_means
    part = feature_sums, feature_means
    dot = remove_means(patch_dots(image, times_squared_mask(feature, mask), options), *patch, *part)
    energy = patch_energy(image, mask, inputs.window, options)
    centered_energy = remove_means(energy, *patch, *patch)
    is_constant = _is_flat(image, inputs) | (centered_energy <= 8 * jnp.finfo(energy.dtype).eps * energy)
    feature_energy = remove_means(_visible_energy(feature, inputs), *part, *part)
    smallest_energy = MIN_FRACTION * times_squared_mask(feature**2, mask).sum()
    feature_energy = jnp.where(feature_energy > smallest_energy, feature_energy, 0)
    return ScoreMap(*safe_cosine(dot, jnp.where(is_constant, 0, centered_energy), feature_energy))


def _squared_difference(inputs: _Inputs) -> ScoreMap:
    """Σ v m² (p - f)² over the visible fraction."""
    mask, options = inputs.mask, inputs.options
    location, _ = _location_and_scale(inputs, centered=True)
    image = _visible_pixels(inputs.image - location, inputs.valid)
    feature = inputs.feature - location
    dot = patch_dots(image, times_squared_mask(feature, mask), options)
    energy = patch_energy(image, mask, inputs.window, options)
    difference = not_negative(energy + _visible_energy(feature, inputs) - 2 * dot)
    defined = inputs.visible > 0
    return ScoreMap(jnp.where(defined, difference / jnp.where(defined, inputs.visible, 1), 0), defined)


def _normalized_squared_difference(inputs: _Inputs) -> ScoreMap:
    return normalize_difference(_cosine(inputs))


def _sharpened_cosine(inputs: _Inputs) -> ScoreMap:
    dtype = inputs.image.dtype
    return sharpen(_cosine(inputs), jnp.asarray(EXPONENT, dtype), jnp.asarray(ADDED_NORM, dtype))


_FORMULAS: Mapping[Score, Callable[[_Inputs], ScoreMap | CosineMap]] = {
    matching.match: _match,
    matching.cosine: _cosine,
    matching.zncc: _zncc,
    matching.squared_difference: _squared_difference,
    matching.normalized_squared_difference: _normalized_squared_difference,
    matching.sharpened_cosine: _sharpened_cosine,
}


# Visible pixels and their sums.


def _visible_pixels(image: Array, valid: Array) -> Array:
    """The image, 0 where a pixel does not count."""
    return jnp.where(valid, image, 0)


def _location_and_scale(inputs: _Inputs, *, centered: bool) -> tuple[Array, Array]:
    """`robust_location_and_scale` of the pixels that count."""
    return robust_location_and_scale(jnp.where(inputs.valid, inputs.image, jnp.nan), centered=centered)


def _standardize_visible_pixels(inputs: _Inputs, *, centered: bool) -> tuple[Array, Array]:
    """The standardized image, 0 where a pixel does not count, and its scale."""
    location, scale = _location_and_scale(inputs, centered=centered)
    return _visible_pixels(standardize_image(inputs.image, location, scale), inputs.valid), scale


def _valid_dots(kernels: Sequence[Array], inputs: _Inputs) -> Array:
    """Σ v k of every channel of some kernels k: maps (C, K, H', W')."""
    valid = inputs.valid.astype(inputs.image.dtype)
    bank = jnp.moveaxis(jnp.stack(kernels), -1, 0)[..., None]
    return jax.vmap(jax.vmap(lambda kernel: patch_dots(valid, kernel, inputs.options)))(bank)


def _visible_energy(feature: Array, inputs: _Inputs) -> Array:
    """Σ v m² f²."""
    squares = times_squared_mask(feature**2, inputs.mask).sum(axis=-1, keepdims=True)
    return not_negative(patch_dots(inputs.valid.astype(squares.dtype), squares, inputs.options))


def _is_flat(image: Array, inputs: _Inputs) -> Array:
    """Where the visible pixels of a patch are of one color; free of rounding errors, but blind to the mask."""

    def is_flat_channel(channel: Array, valid: Array) -> Array:
        bounds = jnp.where(valid, channel, jnp.inf), jnp.where(valid, channel, -jnp.inf)
        smallest, largest = reduce_windows(bounds, inputs.window, (1, 1), NO_PADDING, 0, _join_bounds)
        return largest <= smallest

    channels = lax.stop_gradient(image)
    return map_channels(is_flat_channel, channels, jnp.broadcast_to(inputs.valid, channels.shape)).all(axis=0)


def _join_bounds(a: tuple[Array, Array], b: tuple[Array, Array], *_: int) -> tuple[Array, Array]:
    return jnp.minimum(a[0], b[0]), jnp.maximum(a[1], b[1])
