"""Scores of the visible part of patches, against formulas in float64 with a mask of every patch."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax._visible_scores import visible_score
from tests.helpers import oracles
from tests.helpers.oracles import NAMES, noise
from tests.helpers.score_programs import all_scores

SIZE = (14, 15)
WINDOW = (5, 4)


@cache
def visible_scores():
    """A function of image, valid pixels, feature and mask that gives every visible score by name."""

    def scores(image, valid, feature, mask):
        return {name: visible_score(image, valid, feature, mask, getattr(cnn, name)) for name in NAMES}

    return jax.jit(scores)


def random_mask(kind, *shape):
    if kind == "none":
        return None
    weights = np.abs(noise(2, *shape)) * (noise(3, *shape) > -1)
    return weights if kind == "weights" else weights > 0


def bordered(image, margin=3):
    """An image with a border and a hole that do not count, and hold anything."""
    widths = [(margin, margin)] * 2 + [(0, 0)] * (image.ndim - 2)
    valid = np.pad(np.ones(image.shape[:2], bool), margin)
    valid[8:10, 7:12] = False
    padded = np.pad(image, widths)
    return np.where(valid.reshape(*valid.shape, *[1] * (image.ndim - 2)), padded, np.nan), valid


def reference(name, image, valid, feature, mask):
    """The score and the visible fraction, patch by patch."""
    image, feature = (np.asarray(array, np.float64).reshape(*array.shape[:2], -1) for array in (image, feature))
    weights = np.ones(feature.shape) if mask is None else np.asarray(mask, np.float64).reshape(feature.shape)
    patches = oracles.patches(np.where(valid[..., None], image, 0), feature.shape[:2])
    visible = oracles.patches(valid[..., None], feature.shape[:2])
    scores = np.zeros(patches.shape[:2])
    fractions = np.zeros(patches.shape[:2])
    for position in np.ndindex(scores.shape):
        visible_weights = weights * visible[position]
        fractions[position] = (visible_weights**2).sum() / (weights**2).sum()
        score, _ = oracles.scores(name, patches[position], feature, mask=visible_weights)
        is_difference = name == "squared_difference" and fractions[position] > 0
        scores[position] = score[0, 0] / fractions[position] if is_difference else score[0, 0]
    return scores, fractions


@pytest.mark.parametrize(
    ("mask", "channels"),
    [
        ("none", ()),
        ("weights", (3,)),
        pytest.param("bools", (3,), marks=pytest.mark.slow),
        pytest.param("weights", (), marks=pytest.mark.slow),
        pytest.param("none", (3,), marks=pytest.mark.slow),
    ],
)
def test_visible_scores_equal_the_reference(mask, channels):
    tint = np.array([0, 1, 5] if channels else 2, np.float32)
    image, valid = bordered(noise(0, *SIZE, *channels) + tint)
    feature = noise(1, *WINDOW, *channels)
    weights = random_mask(mask, *feature.shape)
    for name, (score, visible, _) in visible_scores()(image, valid, feature, weights).items():
        want, fractions = reference(name, image, valid, feature, weights)
        np.testing.assert_allclose(visible, fractions, rtol=0, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(score, want, rtol=5e-5, atol=5e-5, err_msg=name)


@pytest.mark.parametrize("masked", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_visible_scores_of_whole_patches_are_the_ordinary_scores(masked):
    image, feature = noise(0, 20, 21), noise(1, *WINDOW)
    mask = random_mask("weights", *WINDOW) if masked else None
    ordinary = all_scores()(image, feature, mask)
    for name, (score, visible, _) in visible_scores()(image, np.ones(image.shape, bool), feature, mask).items():
        np.testing.assert_array_equal(visible, 1)
        np.testing.assert_allclose(score, ordinary[name], rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("name", ["zncc", "squared_difference", pytest.param("cosine", marks=pytest.mark.slow)])
def test_a_cut_feature_scores_as_a_whole_one(name):
    feature = noise(1, 24, 22, 3)  # large enough for Fourier transforms
    image, valid = bordered(noise(0, 60, 70, 3) / 10, margin=12)
    image[5:29, 40:62] = feature + np.array([5, 0, -5], np.float32)
    image[~valid] = np.nan
    shown = image - np.array([5, 0, -5], np.float32) * (name != "zncc")
    score, visible, _ = jax.jit(partial(visible_score, score=getattr(cnn, name)))(shown, valid, feature, None)
    assert visible[5, 40] == pytest.approx(17 / 24, abs=1e-6)
    perfect = 0 if name == "squared_difference" else 1
    assert score[5, 40] == pytest.approx(perfect, abs=1e-4 if perfect else 1e-2)


@pytest.mark.usefixtures("optimized")
def test_visible_parts_without_contrast_score_exactly_zero():
    """Of the image: a flat corner. Of the feature: a flat margin, the only part of it that is visible at the border."""
    feature = np.full((40, 36), 0.3, np.float32)
    feature[10:30, 10:26] = noise(1, 20, 16)
    image, valid = bordered(noise(0, 50, 60), margin=38)
    image[38:50, 38:60] = 0.7
    mask = np.abs(noise(2, 40, 36)) + np.float32(0.1)
    score, visible, _ = jax.jit(partial(visible_score, score=cnn.zncc))(image, valid, feature, mask)
    rows, columns = np.indices(score.shape)
    # The image's first 12 rows and 22 columns are flat; so are the feature's last and first 10 rows and columns.
    sees_flat_corner = (rows + 40 <= 50) & (columns + 36 <= 60)
    sees_margin = (rows + 30 <= 38) | (columns + 26 <= 38) | (rows + 10 >= 88) | (columns + 10 >= 98)
    assert (np.asarray(visible)[sees_flat_corner & (rows > 1) & (columns > 3)] > 0).all()
    np.testing.assert_array_equal(np.asarray(score)[sees_flat_corner | sees_margin], 0)
    assert np.abs(score).max() <= 1
    assert np.all(np.asarray(score)[40:48, 40:58] != 0)


@pytest.mark.parametrize(
    "names", [("zncc", "squared_difference"), pytest.param(NAMES, marks=pytest.mark.slow)], ids=["quick", "all"]
)
def test_nothing_visible_scores_zero_with_finite_gradients(names):
    valid = np.zeros(SIZE, bool)
    valid[:3, :2] = True
    image, feature = noise(0, *SIZE), noise(1, *WINDOW)

    @jax.jit
    def totals_and_gradients(image, feature):
        def totals(image, feature):
            outputs = [visible_score(image, jnp.asarray(valid), feature, None, getattr(cnn, name)) for name in names]
            return jnp.stack([out.score.sum() for out in outputs]), outputs

        return jax.jacrev(totals, (0, 1), has_aux=True)(image, feature)

    gradients, outputs = totals_and_gradients(image, feature)
    for score, visible, _ in outputs:
        np.testing.assert_array_equal(score[3:, 2:], 0)
        np.testing.assert_array_equal(visible[3:, 2:], 0)
    for gradient in gradients:
        assert np.isfinite(gradient).all()


def test_a_bank_of_features_shares_one_dense_correlation_of_the_image():
    features = noise(1, 4, 24, 22)
    image, valid = bordered(noise(0, 60, 70), margin=12)
    score_of = partial(visible_score, score=cnn.zncc)

    def bank(features):
        return jax.vmap(lambda feature: score_of(jnp.asarray(image), jnp.asarray(valid), feature, None).score)(features)

    together = jax.jit(bank)(features)
    np.testing.assert_allclose(together[:1], jax.jit(bank)(features[:1]), rtol=0, atol=2e-5)
    assert all(oracles.convolutions(bank, features))


def test_16_bit_scores_are_computed_in_float32():
    image, valid = bordered(noise(0, *SIZE))
    image, feature = image.astype(jnp.bfloat16), noise(1, *WINDOW).astype(jnp.bfloat16)
    in_float32 = visible_scores()(image.astype(np.float32), valid, feature.astype(np.float32), None)
    for name, (score, visible, _) in visible_scores()(image, valid, feature, None).items():
        assert score.dtype == visible.dtype == jnp.bfloat16
        np.testing.assert_array_equal(score, in_float32[name].score.astype(jnp.bfloat16), err_msg=name)
