"""`match` against the article and its formula, and what all scores share: batches, gradients, definedness."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

import cnn_jax as cnn
from cnn_jax._algorithms import METHODS
from tests.helpers import article, oracles
from tests.helpers.oracles import NAMES, assert_same, layouts, noise, seeds, whole

# Methods whose programs are compiled in the fast tests: what "auto" takes for small features, and the least exact.
QUICK_METHODS = ("auto", "fft")
METHOD_PARAMS = [pytest.param(m, marks=() if m in QUICK_METHODS else pytest.mark.slow) for m in METHODS]


def over_features_in_images(score):
    return jax.vmap(lambda image, features: jax.vmap(lambda feature: score(image, feature))(features), (0, None))


def over_images_in_features(score):
    return jax.vmap(lambda images, feature: jax.vmap(lambda image: score(image, feature))(images), (None, 0), 1)


@pytest.mark.parametrize("method", METHOD_PARAMS)
def test_the_article(method):
    pool = jax.vmap(partial(cnn.max_pool, padding="CEIL"))

    @jax.jit
    def stages(images, features):
        maps, deformed = over_features_in_images(partial(cnn.match, method=method))(images, features)
        rectified = jax.nn.relu(maps)
        pooled = pool(rectified)
        deformed_pooled = pool(deformed)
        return maps, rectified, pooled, pool(pooled), deformed, deformed_pooled, pool(deformed_pooled)

    ninths = (
        article.MAPS,
        article.RECTIFIED,
        article.POOLED,
        article.POOLED_TWICE,
        article.DEFORMED_MAPS,
        article.DEFORMED_POOLED,
        article.DEFORMED_POOLED_TWICE,
    )
    for got, want in zip(stages(article.IMAGES, article.FEATURES), ninths, strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_the_votes_of_the_article():
    """A vote is a dot product too: the mean of the values that vote for a letter."""
    weights = np.zeros((1, 1, 12, 2), np.float32)
    for letter, voters in enumerate(article.VOTERS.values()):
        weights[..., voters, letter] = 1 / len(voters)
    got = cnn.conv(article.VOTES.astype(np.float32)[None, None], weights)
    np.testing.assert_allclose(got[0, 0], article.PRINTED_VOTES, atol=0.01)


def assert_match_equals_the_reference(image, feature, method, **layout):
    got = jax.jit(partial(cnn.match, method=method, **layout))(image, feature)
    atol = 2e-5 if method == "fft" else 0
    np.testing.assert_allclose(got, oracles.match(image, feature, **layout), rtol=1e-6, atol=atol)


@pytest.mark.parametrize("method", METHODS)
def test_match_equals_the_reference(method):
    layout = {"stride": (2, 1), "padding": "SAME"}
    assert_match_equals_the_reference(whole(0, 7, 8, 3), whole(1, 3, 2, 3), method, **layout)


@pytest.mark.slow
@given(layout=layouts(), channels=st.sampled_from([(), (1,), (3,)]), seed=seeds, method=st.sampled_from(METHODS))
def test_match_equals_the_reference_in_all_layouts(layout, channels, seed, method):
    window = layout.pop("window")
    shape = np.maximum(layout.pop("shape"), window)  # unlike a window, a feature is never larger than the image
    image, feature = whole(seed, *shape, *channels), whole(seed + 1, *window, *channels)
    assert_match_equals_the_reference(image, feature, method, **layout)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_perfect_match_is_one_and_the_negative_minus_one(channels):
    image = np.random.default_rng(0).choice([-1.0, 1.0], (8, 9, *channels))
    feature = image[2:6, 3:8]
    match = jax.jit(cnn.match)
    scores = match(image, feature)
    assert scores[2, 3] == 1
    assert match(image, -feature)[2, 3] == -1
    assert jnp.abs(scores).max() <= 1


def test_padded_pixels_match_nothing():
    scores = jax.jit(partial(cnn.match, padding=((2, 0), (0, 1))))(np.ones((3, 3)), np.ones((2, 2)))
    np.testing.assert_array_equal(scores, [[0, 0, 0], [0.5, 0.5, 0.25], [1, 1, 0.5], [1, 1, 0.5]])


@pytest.mark.parametrize("nest", [over_features_in_images, over_images_in_features])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_vmap_equals_loops_and_is_one_dense_convolution(nest, channels):
    images, features = whole(0, 3, 6, 5, *channels), whole(1, 4, 2, 3, *channels)
    looped = [[oracles.match(image, feature) for feature in features] for image in images]
    np.testing.assert_allclose(jax.jit(nest(cnn.match))(images, features), looped, rtol=1e-6)
    assert oracles.convolutions(nest(cnn.match), images, features) == [True]


def test_three_nested_vmaps_stay_one_dense_convolution():
    images, features = whole(0, 2, 3, 6, 5), whole(1, 4, 2, 3)
    nest = jax.vmap(over_features_in_images(cnn.match), (0, None))
    looped = [[[oracles.match(image, feature) for feature in features] for image in batch] for batch in images]
    np.testing.assert_allclose(jax.jit(nest)(images, features), looped, rtol=1e-6)
    assert oracles.convolutions(nest, images, features) == [True]


@pytest.mark.parametrize("method", METHOD_PARAMS)
def test_a_nan_spoils_only_the_patches_that_hold_it(method):
    image, feature = whole(0, 7, 8), whole(1, 3, 2)
    match = jax.jit(partial(cnn.match, method=method))
    clean = match(image, feature)
    for pixel in ((0, 0), (3, 4), (6, 7)):
        spoiled, marked = image.copy(), np.zeros((7, 8))
        spoiled[pixel], marked[pixel] = np.nan, 1
        holds_it = oracles.pool(marked, np.max, window=(3, 2), stride=1) == 1
        got = np.asarray(match(spoiled, feature))
        assert np.isnan(got[holds_it]).all()
        assert_same(got[~holds_it], clean[~holds_it], method)


def test_gradients_of_match_agree_with_differences():
    image, feature = noise(0, 4, 5), noise(1, 3, 2)
    with jax.enable_x64(True):
        arguments = image.astype(np.float64), feature.astype(np.float64)
        match = partial(cnn.match, padding="SAME")
        check_grads(jax.jit(match), arguments, order=2, modes=["fwd", "rev"], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32"])
def test_integers_and_bools_become_float32(dtype):
    image = (np.arange(20).reshape(4, 5) % 3).astype(dtype)
    match = jax.jit(cnn.match)
    got = match(image, image[:2, :2])
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, match(image.astype(np.float32), image[:2, :2].astype(np.float32)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", METHODS)
def test_16_bit_floats_add_up_in_float32(dtype, method):
    large = 4 / float(jnp.finfo(dtype).eps)
    numbers = np.random.default_rng(0).permutation([large] * 4 + [-large] * 4 + [1.0] * 8)
    image = jnp.asarray(numbers.reshape(4, 4), dtype)
    got = jax.jit(partial(cnn.match, method=method))(image, jnp.ones_like(image))
    assert (float(got[0, 0]), got.dtype) == (0.5, jnp.dtype(dtype))


def test_a_large_float16_feature_matches_itself():
    image = jnp.ones((256, 257), jnp.float16)
    assert cnn.match(image, image)[0, 0] == 1


def test_float64_stays_float64():
    image, feature = noise(0, 5, 6).astype(np.float64), noise(1, 3, 2).astype(np.float64)
    with jax.enable_x64(True):
        got = jax.jit(cnn.match)(image, feature)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, oracles.match(image, feature), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "zncc" else pytest.mark.slow) for name in NAMES]
)
def test_transformations_of_scores_nest(name):
    images, features = noise(0, 2, 7, 6), noise(1, 3, 3, 2)
    score = getattr(cnn, name)

    @jax.jit
    def nested(images, features):
        banks = jax.vmap(lambda feature: jax.vmap(lambda image: score(image, feature))(images))(features)
        one_at_a_time = jax.vmap(jax.grad(lambda feature: score(images[0], feature).sum()))(features)
        bank = jax.vmap(lambda feature: score(images[0], feature))
        together = jax.grad(lambda features: bank(features).sum())(features)
        return banks, one_at_a_time, together

    banks, one_at_a_time, together = nested(images, features)
    want = [[oracles.scores(name, image, feature)[0] for image in images] for feature in features]
    np.testing.assert_allclose(banks, want, rtol=0, atol=1e-5)
    np.testing.assert_allclose(one_at_a_time, together, rtol=0, atol=1e-4)


def test_the_exponent_and_the_added_norm_can_be_learned():
    image, feature = noise(0, 6, 6), noise(1, 3, 3)

    @jax.jit
    def loss(p, q):
        return cnn.sharpened_cosine(image, feature, p=p, q=q).sum()

    with jax.enable_x64(True):
        check_grads(loss, (1.7, 0.3), order=1, modes=["rev"], rtol=1e-3)


@pytest.mark.parametrize(("p", "q", "wrong"), [(np.ones(2), 1.0, "p"), (2.0, np.ones(3), "q")])
def test_exponent_and_added_norm_are_single_numbers(p, q, wrong):
    with pytest.raises(ValueError, match=f"{wrong}: expected one number"):
        cnn.sharpened_cosine(np.ones((6, 7)), np.ones((3, 3)), p=p, q=q)


def test_is_defined_takes_the_scores_of_its_module():
    with pytest.raises(ValueError, match="score: expected one of match, cosine"):
        cnn.is_defined(np.ones((6, 7)), np.ones((3, 3)), partial(cnn.match, stride=2))


def test_is_defined_takes_strides_padding_and_fills():
    image = noise(0, 6, 7)
    image[:3] = 0.25
    options = {"stride": (2, 1), "padding": "SAME", "fill": 0.25}
    defined = jax.jit(partial(cnn.is_defined, **options))(image, noise(1, 2, 2))
    np.testing.assert_array_equal(defined, oracles.scores("zncc", image, noise(1, 2, 2), **options)[1])
    assert defined.any()
    assert not defined.all()


@pytest.mark.parametrize("method", ["conv", "shift", "im2col", "fft"])
@pytest.mark.parametrize("magnitude", [9e37, 3e38])
def test_scores_of_the_largest_pixels(method, magnitude):
    """Whose reciprocals are no normal numbers."""
    image, feature, largest = noise(0, 12, 13), noise(1, 5, 4), np.float32(magnitude)
    image, feature = image / np.abs(image).max(), feature / np.abs(feature).max()
    expected = cnn.cosine(image, feature)
    got = [
        cnn.cosine(image * a, feature * b, method=method) for a, b in ((largest, 1), (1, largest), (largest, largest))
    ]
    for scores in got:
        np.testing.assert_allclose(scores, expected, atol=1e-6)
    np.testing.assert_allclose(cnn.zncc(image * largest, feature, method=method), cnn.zncc(image, feature), atol=1e-6)
    dots = cnn.match(image * largest, feature / 64, method=method)
    np.testing.assert_allclose(np.float64(dots) / magnitude, cnn.match(image, feature / 64), atol=1e-7)
