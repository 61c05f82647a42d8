from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

import cnn_jax as cnn
from tests.helpers import article, oracles
from tests.helpers.oracles import assert_same, layouts, noise, seeds, whole

METHODS = ("auto", "conv", "shift", "im2col", "fft")


def over_features_in_images(match):
    return jax.vmap(lambda image, features: jax.vmap(lambda f: match(image, f))(features), (0, None))


def over_images_in_features(match):
    return jax.vmap(lambda images, feature: jax.vmap(lambda i: match(i, feature))(images), (None, 0), 1)


@pytest.mark.parametrize("method", METHODS)
def test_the_article(method):
    pool = jax.vmap(partial(cnn.max_pool, padding="CEIL"))
    maps, deformed = over_features_in_images(partial(cnn.match, method=method))(article.IMAGES, article.FEATURES)
    rectified = jax.nn.relu(maps)
    stages = [
        (maps, article.MAPS),
        (rectified, article.RECTIFIED),
        (pool(rectified), article.POOLED),
        (pool(pool(rectified)), article.POOLED_TWICE),
        (deformed, article.DEFORMED_MAPS),
        (pool(deformed), article.DEFORMED_POOLED),
        (pool(pool(deformed)), article.DEFORMED_POOLED_TWICE),
    ]
    for got, ninths in stages:
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, ninths, rtol=0, atol=1e-6)


def test_the_votes_of_the_article():
    """A vote is a dot product too: the mean of the values that vote for a letter."""
    weights = np.zeros((1, 1, 12, 2), np.float32)
    for letter, voters in enumerate(article.VOTERS.values()):
        weights[..., voters, letter] = 1 / len(voters)
    got = cnn.conv(article.VOTES.astype(np.float32)[None, None], weights)
    np.testing.assert_allclose(got[0, 0], article.PRINTED_VOTES, atol=0.01)


@given(layout=layouts(), channels=st.sampled_from([(), (1,), (3,)]), seed=seeds, method=st.sampled_from(METHODS))
def test_match_equals_the_reference(layout, channels, seed, method):
    window = layout.pop("window")
    shape = np.maximum(layout.pop("shape"), window)  # unlike a window, a feature may never be larger than the image
    image, feature = whole(seed, *shape, *channels), whole(seed + 1, *window, *channels)
    got = jax.jit(partial(cnn.match, method=method, **layout))(image, feature)
    atol = 2e-5 if method == "fft" else 0
    np.testing.assert_allclose(got, oracles.match(image, feature, **layout), rtol=1e-6, atol=atol)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_perfect_match_is_one_and_the_negative_minus_one(channels):
    image = np.random.default_rng(0).choice([-1.0, 1.0], (8, 9, *channels))
    feature = image[2:6, 3:8]
    scores = cnn.match(image, feature)
    assert scores[2, 3] == 1
    assert cnn.match(image, -feature)[2, 3] == -1
    assert jnp.abs(scores).max() <= 1


def test_padded_cells_match_nothing():
    scores = cnn.match(np.ones((3, 3)), np.ones((2, 2)), padding=((2, 0), (0, 1)))
    np.testing.assert_array_equal(scores, [[0, 0, 0], [0.5, 0.5, 0.25], [1, 1, 0.5], [1, 1, 0.5]])


@pytest.mark.parametrize("nest", [over_features_in_images, over_images_in_features])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_vmap_equals_loops_and_is_one_dense_convolution(nest, channels):
    images, features = whole(0, 3, 6, 5, *channels), whole(1, 4, 2, 3, *channels)
    looped = [[oracles.match(i, f) for f in features] for i in images]
    np.testing.assert_allclose(jax.jit(nest(cnn.match))(images, features), looped, rtol=1e-6)
    assert oracles.convolutions(nest(cnn.match), images, features) == [True]


def test_three_nested_vmaps_stay_one_dense_convolution():
    images, features = whole(0, 2, 3, 6, 5), whole(1, 4, 2, 3)
    nest = jax.vmap(over_features_in_images(cnn.match), (0, None))
    looped = [[[oracles.match(i, f) for f in features] for i in batch] for batch in images]
    np.testing.assert_allclose(nest(images, features), looped, rtol=1e-6)
    assert oracles.convolutions(nest, images, features) == [True]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", [(0, 0), (3, 4), (6, 7)])
def test_a_nan_spoils_only_the_patches_that_hold_it(method, place):
    image, feature, spot = whole(0, 7, 8), whole(1, 3, 2), np.zeros((7, 8))
    spot[place] = 1
    clean = cnn.match(image, feature, method=method)
    image[place] = np.nan
    hit = oracles.pool(spot, np.max, window=(3, 2), stride=1) == 1
    got = np.asarray(cnn.match(image, feature, method=method))
    assert np.isnan(got[hit]).all()
    assert_same(got[~hit], clean[~hit], method)


def test_gradients_agree_with_differences():
    image, feature = noise(0, 4, 5), noise(1, 3, 2)
    with jax.enable_x64(True):
        arguments = image.astype(np.float64), feature.astype(np.float64)
        match = partial(cnn.match, padding="SAME")
        check_grads(jax.jit(match), arguments, order=2, modes=["fwd", "rev"], rtol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32"])
def test_integers_and_bools_become_float32(dtype):
    image = (np.arange(20).reshape(4, 5) % 3).astype(dtype)
    got = cnn.match(image, image[:2, :2])
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, cnn.match(image.astype(np.float32), image[:2, :2].astype(np.float32)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", METHODS)
def test_16_bit_floats_add_up_in_float32(dtype, method):
    large = 4 / float(jnp.finfo(dtype).eps)
    numbers = np.random.default_rng(0).permutation([large] * 4 + [-large] * 4 + [1.0] * 8)
    image = jnp.asarray(numbers.reshape(4, 4), dtype)
    got = cnn.match(image, jnp.ones_like(image), method=method)
    assert (float(got[0, 0]), got.dtype) == (0.5, jnp.dtype(dtype))


def test_a_large_float16_feature_matches_itself():
    image = jnp.ones((256, 257), jnp.float16)
    assert cnn.match(image, image)[0, 0] == 1


def test_float64_stays_float64():
    image, feature = noise(0, 5, 6).astype(np.float64), noise(1, 3, 2).astype(np.float64)
    with jax.enable_x64(True):
        got = cnn.match(image, feature)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, oracles.match(image, feature), rtol=1e-12, atol=1e-13)


IMAGE, FEATURE = np.ones((6, 7)), np.ones((3, 3))
ERRORS = [
    ({"image": IMAGE[0]}, ValueError, r"image: .*\(H, W\) or \(H, W, C\), got \(7,\)"),
    ({"image": IMAGE[:0]}, ValueError, r"image: .*empty shape \(0, 7\)"),
    ({"image": IMAGE.astype(np.complex64)}, TypeError, "image: expected a real array .*, got complex64"),
    ({"feature": FEATURE[0]}, ValueError, r"feature: .*\(h, w\) or \(h, w, C\), got \(3,\)"),
    ({"feature": FEATURE[:, :0]}, ValueError, r"feature: .*empty shape \(3, 0\)"),
    ({"feature": FEATURE.astype(np.complex64)}, TypeError, "feature: expected a real array .*, got complex64"),
    ({"feature": [[1, 2], [3]]}, TypeError, "feature: expected a real array .*, got list"),
    ({"feature": FEATURE[..., None]}, ValueError, r"feature: expected the channels .*\(6, 7\), got shape \(3, 3, 1\)"),
    (
        {"image": IMAGE[..., None].repeat(2, 2), "feature": FEATURE[..., None]},
        ValueError,
        r"feature: expected the channels .*\(6, 7, 2\), got shape \(3, 3, 1\)",
    ),
    ({"feature": np.ones((7, 1))}, ValueError, r"feature: .* image \(6, 7\), got \(7, 1\)"),
    ({"feature": np.ones((1, 8)), "padding": "SAME"}, ValueError, r"feature: .* image \(6, 7\), got \(1, 8\)"),
    ({"stride": 0}, ValueError, "stride: expected at least 1, got 0"),
    ({"stride": "2"}, TypeError, "stride: expected an int or two ints, got '2'"),
    ({"padding": "FULL"}, ValueError, "padding: expected 'VALID', 'SAME', 'CEIL' or .*, got 'FULL'"),
    ({"method": "magic"}, ValueError, "method: expected one of .*'auto'.*, got 'magic'"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), ERRORS)
def test_match_names_the_wrong_argument(wrong, error, message):
    arguments = {"image": IMAGE, "feature": FEATURE} | wrong
    with pytest.raises(error, match=message):
        cnn.match(arguments.pop("image"), arguments.pop("feature"), **arguments)
