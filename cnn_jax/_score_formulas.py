"""The formulas of the scores, on checked inputs.

p is a patch, f the feature and m the mask, 1 everywhere without one; sums run over the pixels of the patch, of all
channels. Means are those of each channel.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from ._patch_statistics import (
    center_feature,
    channel_dots,
    is_all_zero_patch,
    patch_dots,
    patch_energy,
    patch_moments,
    robust_location_and_scale,
    safe_cosine,
    scale_to_unit_magnitude,
    standardize_image,
    times_squared_mask,
    total_squared_weight,
)
from ._programs import compiled
from ._score_inputs import ScoreInputs, ScoreOptions, prepare_score_inputs
from ._validation import to_floats
from ._xla import not_negative


class ScoreMap(NamedTuple):
    """A score of every patch, and where it is defined: two maps (H', W')."""

    score: Array
    defined: Array


class CosineMap(NamedTuple):
    """The cosine of every patch, and the norms that it divides by, 0 where it is not defined."""

    score: Array
    defined: Array
    patch_norm: Array
    feature_norm: Array


def match(inputs: ScoreInputs) -> ScoreMap:
    """Mean product: Σ m² p f / Σ m²."""
    image, feature, mask, options = inputs.image, inputs.feature, inputs.mask, inputs.options
    if mask is None:
        score = patch_dots(image, feature, options, divisor=feature.size)
        return ScoreMap(score, jnp.broadcast_to(True, score.shape))
    weight = total_squared_weight(feature, mask)
    defined = weight > 0
    dot = patch_dots(image, times_squared_mask(feature, mask), options)
    score = jnp.where(defined, dot / jnp.where(defined, weight, 1).astype(dot.dtype), 0)
    return ScoreMap(score, jnp.broadcast_to(defined, score.shape))


def cosine(inputs: ScoreInputs) -> CosineMap:
    """Cosine of the angle between patch and feature: Σ m² p f / sqrt(Σ m² p² Σ m² f²)."""
    mask, options = inputs.mask, inputs.options
    location, scale = robust_location_and_scale(inputs.image, centered=False)
    image = standardize_image(inputs.image, location, scale)
    feature, magnitude = scale_to_unit_magnitude(inputs.feature, mask)
    dot = patch_dots(image, times_squared_mask(feature, mask), options)
    is_zero = is_all_zero_patch(image, mask, options)
    energy = jnp.where(is_zero, 0, patch_energy(image, mask, inputs.window, options))
    feature_energy = times_squared_mask(feature**2, mask).sum()
    score, defined = safe_cosine(dot, energy, feature_energy)
    patch_norm = _sqrt_where(defined, energy) * scale
    feature_norm = _sqrt_where(defined, feature_energy) * magnitude
    return CosineMap(score, defined, patch_norm, feature_norm)


def _sqrt_where(defined: Array, energy: Array) -> Array:
    """sqrt(energy) where defined, 0 with a gradient of 0 elsewhere."""
    return jnp.where(defined, jnp.sqrt(jnp.where(defined, energy, 1)), 0)


def zncc(inputs: ScoreInputs) -> ScoreMap:
    """Zero-mean normalized cross-correlation: the cosine of patch and feature, each minus its channels' means."""
    mask, options = inputs.mask, inputs.options
    location, scale = robust_location_and_scale(inputs.image, centered=True)
    image = standardize_image(inputs.image, location, scale)
    feature, _ = scale_to_unit_magnitude(center_feature(inputs.feature, mask), mask)
    kernel = times_squared_mask(feature, mask)
    feature_energy = times_squared_mask(feature**2, mask).sum()
    dot = patch_dots(image, kernel, options)
    energy = patch_moments(image, inputs.window, options.stride).squared_deviations.sum(axis=0)
    if mask is not None:
        means, energy = _masked_means_and_energy(image, mask, energy == 0, inputs)
        dot = dot - (means * _channel_sums(kernel)).sum(axis=0)
    return ScoreMap(*safe_cosine(dot, energy, feature_energy))


def _masked_means_and_energy(
    image: Array, mask: Array, is_constant_patch: Array, inputs: ScoreInputs
) -> tuple[Array, Array]:
    """p̄ = Σ m p / Σ m, (C, H', W'), and Σ m² (p - p̄)², (H', W'), 0 for patches that are constant up to rounding."""
    options = inputs.options
    weights = _channel_sums(mask)
    mask_dots = channel_dots(image, [mask] if inputs.is_binary_mask else [mask, mask**2], options)
    means = mask_dots[:, 0] / jnp.where(weights > 0, weights, 1)
    energy = patch_energy(image, mask, inputs.window, options)
    energies_of_means = 2 * means * mask_dots[:, -1] - means**2 * _channel_sums(mask**2)
    centered_energy = energy - energies_of_means.sum(axis=0)
    # A patch that is constant without the mask is so under it too; that test is free of rounding errors.
    is_constant = is_constant_patch | (centered_energy <= 8 * jnp.finfo(energy.dtype).eps * energy)
    return means, jnp.where(is_constant, 0, centered_energy)


def _channel_sums(feature: Array) -> Array:
    """The sum over the pixels of each channel, to multiply maps (C, H', W') with: (C, 1, 1)."""
    return feature.sum(axis=(0, 1))[:, None, None]


def squared_difference(inputs: ScoreInputs) -> ScoreMap:
    """Sum of squared differences: Σ m² (p - f)²."""
    mask, options = inputs.mask, inputs.options
    location, _ = robust_location_and_scale(inputs.image, centered=True)
    image = inputs.image - location
    feature = inputs.feature - location
    if mask is None:
        moments = patch_moments(image, inputs.window, options.stride)
        pixels = inputs.window[0] * inputs.window[1]
        centered = center_feature(feature, mask)
        feature_means = (feature - centered)[0, 0]  # exact if the feature is of one color
        mean_term = ((moments.mean - feature_means[:, None, None]) ** 2).sum(axis=0) * pixels
        dot = patch_dots(image, centered, options)
        score = mean_term + moments.squared_deviations.sum(axis=0) + (centered**2).sum() - 2 * dot
    else:
        dot = patch_dots(image, times_squared_mask(feature, mask), options)
        energy = patch_energy(image, mask, inputs.window, options)
        score = energy + times_squared_mask(feature**2, mask).sum() - 2 * dot
    defined = total_squared_weight(feature, mask) > 0
    return ScoreMap(jnp.where(defined, not_negative(score), 0), jnp.broadcast_to(defined, score.shape))


def normalized_squared_difference(inputs: ScoreInputs) -> ScoreMap:
    """Squared difference over both norms: Σ m² (p - f)² / (‖p‖ ‖f‖)."""
    return normalize_difference(cosine(inputs))


def normalize_difference(cosine_map: CosineMap) -> ScoreMap:
    """‖p‖ / ‖f‖ + ‖f‖ / ‖p‖ - 2 cosine."""
    cosines, defined, patch_norm, feature_norm = cosine_map
    patch_norm = jnp.where(defined, patch_norm, 1)
    feature_norm = jnp.where(defined, feature_norm, 1)
    difference = not_negative(patch_norm / feature_norm + feature_norm / patch_norm - 2 * cosines)
    return ScoreMap(jnp.where(defined, difference, _nan_or_zero(cosines)), defined)


def sharpened_cosine(inputs: ScoreInputs, p: Array, q: Array) -> ScoreMap:
    """Sharpened cosine: sgn(c) |c|^p with c = Σ m² p f / ((‖p‖ + q) ‖f‖)."""
    return sharpen(cosine(inputs), p, q)


def sharpen(cosine_map: CosineMap, p: Array, q: Array) -> ScoreMap:
    """sgn(c) |c|^p with c = cosine ‖p‖ / (‖p‖ + q)."""
    cosines, defined, patch_norm, _ = cosine_map
    is_nonzero = defined & (cosines != 0)  # the power has no finite gradient at 0
    magnitude = jnp.abs(cosines) * patch_norm / jnp.where(is_nonzero, patch_norm + q, 1)
    sharpened = jnp.sign(cosines) * jnp.where(is_nonzero, magnitude, 1) ** p
    return ScoreMap(jnp.where(is_nonzero, sharpened, _nan_or_zero(cosines)), defined)


def _nan_or_zero(score: Array) -> Array:
    """NaN where the score is NaN, 0 elsewhere."""
    return jnp.where(jnp.isnan(score), score, 0)


Formula = Callable[..., ScoreMap | CosineMap]


@compiled("formula", "options")
def compute_score(
    formula: Formula, options: ScoreOptions, image: Array, feature: Array, mask: Array | None, *learned: Array | float
) -> Array:
    """The map of a score, from checked arguments; `learned` are those of `sharpened_cosine`."""
    inputs = prepare_score_inputs(options, image, feature, mask)
    numbers = [to_floats(number)[0].astype(inputs.image.dtype) for number in learned]
    return formula(inputs, *numbers).score.astype(inputs.out_dtype)


@compiled("formula", "options")
def find_defined(formula: Formula, options: ScoreOptions, image: Array, feature: Array, mask: Array | None) -> Array:
    """Where the score of a formula is defined, from checked arguments."""
    score_map = formula(prepare_score_inputs(options, image, feature, mask))
    return score_map.defined & jnp.isfinite(score_map.score)
