"""Scores of aligned patches beside the scores of the same patches as whole images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax._aligned_scores import ALIGNED_SCORES
from tests.helpers.oracles import noise

PATCH = noise(0, 5, 6, 3)
FEATURE = PATCH + noise(1, 5, 6, 3)
WEIGHTS = np.random.default_rng(2).uniform(0, 1, (5, 6, 3)).astype(np.float32)
WEIGHTS[2] = 0


def as_pixels(array):
    return jnp.asarray(array).reshape(-1, array.shape[-1])


@pytest.mark.parametrize("mask", [None, WEIGHTS], ids=["all pixels", "weights"])
@pytest.mark.parametrize("score", ALIGNED_SCORES, ids=lambda score: score.__name__)
def test_an_aligned_score_is_that_of_an_image_of_the_features_size(score, mask):
    weights = np.ones_like(PATCH) if mask is None else mask
    got = jax.jit(ALIGNED_SCORES[score])(as_pixels(PATCH), as_pixels(FEATURE), as_pixels(weights))
    if score is cnn.squared_difference:
        got *= (weights**2).sum()
    want = score(PATCH, FEATURE, mask=mask)[0, 0]
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("score", [cnn.match, cnn.cosine, cnn.zncc, cnn.sharpened_cosine], ids=lambda s: s.__name__)
@pytest.mark.parametrize("flat", [0.0, 300.0])
def test_degenerate_patches_score_zero_with_finite_gradients(score, flat):
    patch = jnp.full((30, 3), flat)
    value, gradient = jax.value_and_grad(ALIGNED_SCORES[score])(patch, as_pixels(FEATURE), jnp.ones((30, 3)))
    assert jnp.isfinite(gradient).all()
    if flat == 0 or score is cnn.zncc:
        assert value == 0


def test_the_normalized_difference_of_nothing_is_not_a_match():
    nothing = jnp.zeros((30, 3))
    difference = ALIGNED_SCORES[cnn.normalized_squared_difference]
    assert difference(nothing, as_pixels(FEATURE), jnp.ones((30, 3))) == jnp.inf


def test_a_pixel_that_is_not_finite_spoils_the_score_unless_it_has_no_weight():
    patch = as_pixels(PATCH).at[3].set(jnp.nan)
    weights = jnp.ones_like(patch)
    for aligned in ALIGNED_SCORES.values():
        assert not jnp.isfinite(aligned(patch, as_pixels(FEATURE), weights))
        assert jnp.isfinite(aligned(patch, as_pixels(FEATURE), weights.at[3].set(0)))
