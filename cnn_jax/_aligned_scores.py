"""Scores of patches that are aligned with a feature: one number for a patch of the feature's pixels.

p is a patch, f the feature, m the weights of their pixels, arrays (n, C); sums run over all of them.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from . import matching
from ._typing import Score
from ._visible_scores import ADDED_NORM, EXPONENT

# Energies below the square of this number, times the sum that they come from, are rounding errors.
ROUNDING = 8 * float(jnp.finfo(jnp.float32).eps)

AlignedScore = Callable[[Array, Array, Array], Array]


def match(p: Float[Array, "n C"], f: Float[Array, "n C"], m: Float[Array, "n C"]) -> Float[Array, ""]:
    """Σ m² p f / Σ m²."""
    return _mean(p * f, m)


def cosine(p: Float[Array, "n C"], f: Float[Array, "n C"], m: Float[Array, "n C"]) -> Float[Array, ""]:
    """Σ m² p f / sqrt(Σ m² p² Σ m² f²)."""
    return _ratio(_mean(p * f, m), _mean(p * p, m), _mean(f * f, m))


def zncc(p: Float[Array, "n C"], f: Float[Array, "n C"], m: Float[Array, "n C"]) -> Float[Array, ""]:
    """The cosine of p - p̄ and f - f̄, with means Σ m p / Σ m of each channel."""
    return _ratio(*_centered_moments(p, f, m))


def _centered_moments(p: Array, f: Array, m: Array) -> tuple[Array, Array, Array]:
    weight = m.sum(axis=0, keepdims=True)
    weight = jnp.where(weight > 0, weight, 1)
    centered_p = p - jnp.where(m != 0, m * p, 0).sum(axis=0, keepdims=True) / weight
    centered_f = f - jnp.where(m != 0, m * f, 0).sum(axis=0, keepdims=True) / weight
    p_energy = _mean(centered_p**2, m)
    f_energy = _mean(centered_f**2, m)
    p_energy = jnp.where(p_energy > ROUNDING**2 * _mean(p * p, m), p_energy, 0)
    f_energy = jnp.where(f_energy > ROUNDING**2 * _mean(f * f, m), f_energy, 0)
    return _mean(centered_p * centered_f, m), p_energy, f_energy


def squared_difference(p: Float[Array, "n C"], f: Float[Array, "n C"], m: Float[Array, "n C"]) -> Float[Array, ""]:
    """Σ m² (p - f)² / Σ m². The score of `matching` is the sum instead of the mean."""
    return _mean((p - f) ** 2, m)


def normalized_squared_difference(
    p: Float[Array, "n C"], f: Float[Array, "n C"], m: Float[Array, "n C"]
) -> Float[Array, ""]:
    """Σ m² (p - f)² / sqrt(Σ m² p² Σ m² f²), infinite where it is not defined."""
    energies = _mean(p * p, m) * _mean(f * f, m)
    defined = energies > 0
    return jnp.where(defined, _mean((p - f) ** 2, m) / jnp.sqrt(jnp.where(defined, energies, 1)), jnp.inf)


def sharpened_cosine(p: Float[Array, "n C"], f: Float[Array, "n C"], m: Float[Array, "n C"]) -> Float[Array, ""]:
    """sgn(c) c² with c = Σ m² p f / ((‖p‖ + q) ‖f‖)."""
    p_norm = _sqrt(jnp.where(m != 0, m**2 * p * p, 0).sum())
    c = cosine(p, f, m) * p_norm / (p_norm + ADDED_NORM)
    return jnp.sign(c) * jnp.abs(c) ** EXPONENT


def _mean(values: Array, m: Array) -> Array:
    """Σ m² v / Σ m², where pixels without weight may hold any value."""
    weight = (m**2).sum()
    return jnp.where(m != 0, m**2 * values, 0).sum() / jnp.where(weight > 0, weight, 1)


def _ratio(dot: Array, p_energy: Array, f_energy: Array) -> Array:
    defined = (p_energy > 0) & (f_energy > 0)
    norm = _sqrt(jnp.where(defined, p_energy, 1)) * _sqrt(jnp.where(defined, f_energy, 1))
    score = jnp.clip(dot / jnp.where(defined, norm, 1), -1, 1)
    return jnp.where(defined, score, jnp.where(jnp.isnan(dot), jnp.nan, 0))


def _sqrt(value: Array) -> Array:
    return jnp.where(value > 0, jnp.sqrt(jnp.where(value > 0, value, 1)), 0)


ALIGNED_SCORES: Mapping[Score, AlignedScore] = {
    matching.match: match,
    matching.cosine: cosine,
    matching.zncc: zncc,
    matching.squared_difference: squared_difference,
    matching.normalized_squared_difference: normalized_squared_difference,
    matching.sharpened_cosine: sharpened_cosine,
}
