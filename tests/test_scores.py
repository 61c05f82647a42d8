"""Every score of `matching` against its formula, patch by patch, and where the formulas leave off."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from reference import layouts, noise, seeds

import cnn_jax as cnn

NAMES = (
    "match",
    "cosine",
    "zncc",
    "squared_difference",
    "normalized_squared_difference",
    "sharpened_cosine",
)
METHODS = ("auto", "conv", "shift", "fft")
NORMED = ("cosine", "zncc", "normalized_squared_difference", "sharpened_cosine")


def masks(kind, seed, shape):
    weights = np.random.default_rng(seed).uniform(size=shape)
    return {"none": None, "bool": weights > 0.3, "int": (weights > 0.3) * 7, "float": weights.astype(np.float32)}[kind]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8)
@given(
    layout=layouts(),
    channels=st.sampled_from([(), (1,), (3,)]),
    kind=st.sampled_from(["none", "bool", "int", "float"]),
    fill=st.sampled_from([0.0, -1.0, "edge"]),
    method=st.sampled_from(METHODS),
    seed=seeds,
)
def test_scores_equal_the_reference(name, layout, channels, kind, fill, method, seed):
    window = layout.pop("window")
    shape = np.maximum(layout.pop("shape"), window)
    image, feature = noise(seed, *shape, *channels), noise(seed + 1, *window, *channels)
    options = {"mask": masks(kind, seed, feature.shape), "fill": fill, **layout}
    want, ok = reference.scores(name, image, feature, **options)
    got = getattr(cnn, name)(image, feature, method=method, **options)
    np.testing.assert_allclose(got, want, atol=2e-3 if kind in ("bool", "int") else 5e-4, rtol=1e-5)
    np.testing.assert_array_equal(cnn.defined(image, feature, getattr(cnn, name), **options), ok)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["uint8", "bool", "bfloat16", "float16"])
def test_scores_of_other_dtypes_are_computed_in_float32(name, dtype):
    image = jnp.asarray((np.abs(noise(0, 12, 11)) * 60).astype(np.uint8) % 2**7, dtype)
    feature, score = image[3:7, 2:7], getattr(cnn, name)
    want = score(image.astype(jnp.float32), feature.astype(jnp.float32))
    got = score(image, feature)
    assert got.dtype == (image.dtype if "float" in dtype else jnp.float32)
    np.testing.assert_array_equal(got, want.astype(got.dtype))


def exact_zncc(image, feature):
    patches = np.lib.stride_tricks.sliding_window_view(np.float64(image), feature.shape)
    patches = patches - patches.mean(axis=(2, 3), keepdims=True)
    feature = np.float64(feature) - np.float64(feature).mean()
    return np.einsum("yxij,ij->yx", patches, feature) / np.sqrt((patches**2).sum(axis=(2, 3)) * (feature**2).sum())


@pytest.mark.parametrize("method", METHODS)
def test_zncc_is_exact_however_bright_the_image_is(method):
    image, feature = noise(0, 256, 256), noise(1, 16, 16)
    run = jax.jit(partial(cnn.zncc, method=method))
    for offset in (0, 1000, -1000):
        bright = (image + offset).astype(np.float32)
        np.testing.assert_allclose(run(bright, feature), exact_zncc(bright, feature), atol=1e-5)
        np.testing.assert_allclose(run(image, feature + np.float32(offset)), run(image, feature), atol=1e-3)
    for step in (np.arange(256) > 127, np.arange(256)[:, None] > np.arange(256)):
        stepped = (image + 1000 * step).astype(np.float32)
        np.testing.assert_allclose(run(stepped, feature), exact_zncc(stepped, feature), atol=1e-4)


@pytest.mark.parametrize("name", NORMED)
@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_scores_do_not_depend_on_the_scale(name, scale):
    image, feature = noise(0, 30, 30), noise(1, 5, 5)
    score = partial(cnn.sharpened_cosine, q=0) if name == "sharpened_cosine" else getattr(cnn, name)
    want = score(image, feature)
    np.testing.assert_allclose(score(image * np.float32(scale), feature * np.float32(scale)), want, atol=1e-5)
    if name != "normalized_squared_difference":
        np.testing.assert_allclose(score(image * np.float32(scale), feature), want, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["shift", "conv", "fft"])
def test_a_bad_pixel_spoils_only_the_patches_that_hold_it(name, method):
    image, feature = noise(0, 20, 21), noise(1, 3, 4)
    score = jax.jit(partial(getattr(cnn, name), method=method))
    clean = score(image, feature)
    hit = np.zeros(clean.shape, bool)
    hit[8:11, 6:10] = True
    for bad in (np.nan, np.inf):
        image[10, 9] = bad
        got = np.asarray(score(image, feature))
        assert not np.isfinite(got[hit]).any()
        np.testing.assert_allclose(got[~hit], clean[~hit], atol=2e-5)
        assert not cnn.defined(image, feature, getattr(cnn, name))[hit].any()


@pytest.mark.parametrize("name", ["cosine", "zncc", "sharpened_cosine"])
def test_a_huge_pixel_spoils_only_the_patches_that_hold_it(name):
    image, feature = noise(0, 20, 21), noise(1, 3, 4)
    clean = getattr(cnn, name)(image, feature, method="shift")
    image[10, 9] = 1e30
    got = np.asarray(getattr(cnn, name)(image, feature, method="shift"))
    hit = np.zeros(clean.shape, bool)
    hit[8:11, 6:10] = True
    np.testing.assert_allclose(got[~hit], clean[~hit], atol=1e-4)
    np.testing.assert_allclose(got, reference.scores(name, image, feature)[0], atol=1e-4)


DEGENERATE = {
    "flat image": (np.full((8, 8), 0.3), noise(0, 3, 3), None),
    "black image": (np.zeros((8, 8)), noise(0, 3, 3), None),
    "flat feature": (noise(0, 8, 8), np.full((3, 3), 0.7), None),
    "zero feature": (noise(0, 8, 8), np.zeros((3, 3)), None),
    "all masked": (noise(0, 8, 8), noise(1, 3, 3), np.zeros((3, 3))),
    "flat under the mask": (noise(0, 8, 8), np.eye(3), np.eye(3, dtype=bool)),
    "half flat": (np.where(np.arange(8) < 4, 0.3, noise(0, 8, 8)), noise(1, 3, 3), None),
    "one pixel": (noise(0, 8, 8), np.ones((1, 1)), None),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", DEGENERATE)
def test_nothing_to_compare_scores_zero_with_finite_gradients(name, case):
    image, feature, mask = (None if a is None else jnp.asarray(a) for a in DEGENERATE[case])
    image, feature = image.astype(jnp.float32), feature.astype(jnp.float32)
    score = getattr(cnn, name)
    got, ok = score(image, feature, mask=mask), cnn.defined(image, feature, score, mask=mask)
    assert jnp.isfinite(got).all()
    np.testing.assert_array_equal(np.asarray(got)[~ok], 0)
    if name in ("cosine", "zncc", "match"):
        assert jnp.abs(got).max() <= 1 or name == "match"
    for gradient in jax.grad(lambda i, f: score(i, f, mask=mask).sum(), (0, 1))(image, feature):
        assert jnp.isfinite(gradient).all()


def test_a_contrast_of_one_grey_level_is_seen():
    image = np.full((40, 40), 245, np.uint8)
    image[10:14, 20:24] = 246
    feature = image[8:16, 18:26]
    scores = cnn.zncc(image, feature)
    assert scores[8, 18] == pytest.approx(1, abs=1e-6)
    assert scores.argmax() == 8 * scores.shape[1] + 18


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_agree_with_differences(name, masked):
    mask = jnp.array([[1.0, 0.5], [0.0, 1.0], [1.0, 1.0]]) if masked else None
    with jax.enable_x64(True):
        image, feature = noise(0, 5, 4).astype(np.float64), noise(1, 3, 2).astype(np.float64)
        score = jax.jit(partial(getattr(cnn, name), mask=mask))
        check_grads(score, (image, feature), order=1, modes=["fwd", "rev"], rtol=1e-4)


def test_the_exponent_and_the_floor_can_be_learned():
    image, feature = noise(0, 6, 6), noise(1, 3, 3)

    def loss(p, q):
        return cnn.sharpened_cosine(image, feature, p=p, q=q).sum()

    with jax.enable_x64(True):
        check_grads(loss, (1.7, 0.3), order=1, modes=["rev"], rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_transformations_nest(name):
    images, features = noise(0, 2, 7, 6), noise(1, 3, 3, 2)
    score = getattr(cnn, name)
    bank = jax.jit(jax.vmap(lambda f: jax.vmap(lambda i: score(i, f))(images)))
    np.testing.assert_allclose(bank(features), [[score(i, f) for i in images] for f in features], atol=1e-5)
    each = jax.vmap(jax.grad(lambda f: score(images[0], f).sum()))(features)
    together = jax.grad(lambda fs: jax.vmap(lambda f: score(images[0], f))(fs).sum())(features)
    np.testing.assert_allclose(each, together, atol=1e-4)


IMAGE, FEATURE = np.ones((6, 7)), np.ones((3, 3))
ERRORS = [
    ({"mask": np.ones((3, 4))}, ValueError, r"mask: expected the shape of the feature"),
    ({"mask": 1j * np.ones((3, 3))}, TypeError, "mask: expected a real array"),
    ({"fill": "wrap"}, ValueError, "fill: expected a number, 'edge' or 'reflect', got 'wrap'"),
    ({"fill": None}, TypeError, "fill: expected a number, 'edge' or 'reflect', got None"),
    ({"padding": "FULL"}, ValueError, "padding: expected 'VALID'"),
    ({"feature": np.ones((7, 1))}, ValueError, "feature: expected at most the size"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("wrong", "error", "message"), ERRORS)
def test_scores_name_the_wrong_argument(name, wrong, error, message):
    arguments = {"image": IMAGE, "feature": FEATURE} | wrong
    with pytest.raises(error, match=message):
        getattr(cnn, name)(arguments.pop("image"), arguments.pop("feature"), **arguments)


def test_defined_takes_the_scores_of_this_room():
    with pytest.raises(ValueError, match="score: expected one of match, cosine"):
        cnn.defined(IMAGE, FEATURE, jnp.add)


@pytest.mark.parametrize(("p", "q", "wrong"), [(np.ones(2), 1.0, "p"), (2.0, np.ones(3), "q")])
def test_exponent_and_floor_are_single_numbers(p, q, wrong):
    with pytest.raises(ValueError, match=f"{wrong}: expected one number"):
        cnn.sharpened_cosine(IMAGE, FEATURE, p=p, q=q)
