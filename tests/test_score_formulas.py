"""Every score against its formula in float64, patch by patch."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax.test_util import check_grads

import cnn_jax as cnn
from cnn_jax._algorithms import METHODS
from tests.helpers import oracles
from tests.helpers.oracles import NAMES, noise, seeds
from tests.helpers.score_programs import SCORES, all_scores, scores_and_definedness

# One shape for most tests, so that they share their programs.
SIZE = (20, 21)
WINDOW = (3, 4)


class Case(NamedTuple):
    """One compiled program that gives all scores and where they are defined."""

    number: int
    method: str
    dtype: str
    shape: tuple[int, ...]
    window: tuple[int, ...]
    mask: np.ndarray | None
    layout: dict[str, Any]

    def __str__(self):
        mask = None if self.mask is None else f"{self.mask.dtype}{self.mask.tolist()}"
        return f"{self.number}: {self.method} {self.dtype} {self.shape} {self.window} {self.layout} mask={mask}"


def draw_case(number):
    rng = np.random.default_rng(number)
    method = ("conv", "auto", "shift", "conv", "auto", "shift", "fft")[number % 7]
    channels = ((), (1,), (3,))[rng.integers(3)]
    size = rng.integers(1, 15, 2)
    window = np.minimum(size, rng.integers(1, 5, 2))
    pads = rng.integers(0, window[:, None] + 1, (2, 2)).tolist()
    layout = {
        "padding": ("VALID", "SAME", "CEIL", pads)[rng.integers(4)],
        "stride": tuple(rng.choice([1, 1, 2, 3], 2).tolist()),
        "fill": (0.0, -1.0, "edge", "reflect")[rng.integers(4)],
    }
    shape, window = (*size.tolist(), *channels), (*window.tolist(), *channels)
    weights = np.where(rng.uniform(size=window) > 0.25, rng.uniform(0.1, 1, window), 0)
    mask = (None, weights > 0, (weights > 0) * 7, weights.astype(np.float32))[number % 4]
    dtype = ("float32", "float16", "bfloat16", "uint8", "int32", "bool")[rng.integers(6)]
    return Case(number, method, dtype, shape, window, mask, layout)


def pictures(case):
    """Kinds of images and features, with an exponent and an added norm for the sharpened cosine."""
    rng = np.random.default_rng(case.number)
    image, feature = rng.normal(size=case.shape), rng.normal(size=case.window)
    half = (np.arange(case.shape[0]) < case.shape[0] / 2).reshape(-1, *[1] * (len(case.shape) - 1))
    drawn = {
        "noise": (image, feature),
        "bright": (image + 10, feature + 3),
        "half flat": (np.where(half, 0.3, image), feature),
        "half black": (np.where(half, 0, image), feature),
        "half faint": (np.where(half, image / 50, image), feature),
    }
    for name, pair in drawn.items():
        options = {"p": rng.choice([1.0, 1.7, 3.0]), "q": rng.choice([0.0, 1e-3, 0.5])}
        yield name, *(as_dtype(array, case.dtype) for array in pair), options


def as_dtype(array, dtype):
    if dtype == "uint8":
        return np.clip(array * 20 + 128, 0, 255).astype(np.uint8)
    if dtype == "int32":
        return np.round(array * 3).astype(np.int32)
    return array > 0 if dtype == "bool" else array.astype(jnp.dtype(dtype))


def score_program(case):
    """All scores, and where half of them are defined. Definedness does not depend on the method: only for "auto"."""

    def scores(image, feature, options):
        out = {}
        for name, score in SCORES.items():
            extra = options if name == "sharpened_cosine" else {}
            defined = None
            if case.method == "auto" and name in NAMES[case.number % 2 :: 2]:
                defined = cnn.is_defined(image, feature, score, mask=case.mask, **case.layout)
            out[name] = score(image, feature, mask=case.mask, method=case.method, **case.layout, **extra), defined
        return out

    return jax.jit(scores)


@np.errstate(all="ignore")
def error_units(case, image, feature):
    """The units of the error bounds that `matching` states."""
    image, feature = (np.asarray(array, np.float64).reshape(*array.shape[:2], -1) for array in (image, feature))
    m = np.ones(feature.shape) if case.mask is None else case.mask.reshape(feature.shape)
    m = m if m.dtype.kind == "f" else m != 0
    patches = oracles.patches(image, feature.shape[:2], **case.layout)
    padded, _, _ = oracles.padded_windows(image, feature.shape[:2], **case.layout)
    brightness = np.median(padded.mean(axis=1), axis=0)

    def norm(pixels):
        return np.sqrt((m**2 * pixels**2).sum(axis=(-3, -2, -1)))

    def magnification(pixels, patch_norm):
        """The norm of the sums' terms, and its ratio to the patch's norm; squared with a mask, which sums squares."""
        added = np.abs(pixels).max() * norm(np.ones(pixels.shape)) if case.method == "fft" else norm(pixels)
        ratio = np.maximum(added / patch_norm, 1)
        return added, ratio if case.mask is None else ratio**2

    mean = (m * patches).sum(axis=(-3, -2), keepdims=True) / np.maximum(m.sum(axis=(0, 1)), 1e-30)
    feature_norm, patch_norm = norm(feature), norm(patches)
    added, cosine = magnification(patches, patch_norm)
    centered, zncc = magnification(patches - brightness, norm(patches - mean))
    return {
        "match": added * feature_norm / (m**2).sum(),
        "cosine": cosine,
        "zncc": zncc,
        "squared_difference": centered**2 + norm(feature - brightness) ** 2,
        "normalized_squared_difference": (feature_norm / patch_norm + patch_norm / feature_norm) * cosine,
        "sharpened_cosine": 3 * cosine,
    }


# Every method with every kind of mask twice; sixteen times with --hypothesis-profile=thorough.
CASES = [draw_case(number) for number in range(448 if settings().max_examples > 100 else 56)]
QUICK_CASES = (4, 5, 6, 7)  # every kind of mask once, every method but im2col


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case.number in QUICK_CASES else pytest.mark.slow) for case in CASES],
    ids=lambda case: str(case.number),
)
def test_scores_equal_the_reference(case):
    program = score_program(case)
    for picture, image, feature, options in pictures(case):
        unit, outputs = error_units(case, image, feature), program(image, feature, options)
        for name, (got, defined) in outputs.items():
            extra = options if name == "sharpened_cosine" else {}
            description = f"{name} {extra} of {picture!r} in case {case}"
            want, want_defined = oracles.scores(name, image, feature, mask=case.mask, **case.layout, **extra)
            assert got.dtype == (case.dtype if "float" in case.dtype else np.float32), description
            rounding = float(jnp.finfo(got.dtype).eps) * np.abs(want) + float(jnp.finfo(got.dtype).smallest_subnormal)
            allowed = np.where(want_defined, 2e-6 * unit[name] + rounding, 0)
            errors = np.abs(np.asarray(got, np.float64) - want)
            assert np.all(errors <= allowed), f"{description}: off by {errors}, allowed {allowed}"
            assert defined is None or np.array_equal(defined, want_defined), f"{description}: defined at {defined}"


@given(seed=seeds)
def test_scores_of_noise_equal_the_reference(seed):
    image, feature = noise(seed, *SIZE), noise(seed + 1, *WINDOW)
    scores, defined = scores_and_definedness(image, feature)
    for name in NAMES:
        want, _ = oracles.scores(name, image, feature)
        np.testing.assert_allclose(scores[name], want, rtol=1e-5, atol=1e-5, err_msg=name)
        assert defined[name].all()


@pytest.mark.slow  # fast: the cases above, and test_score_inputs
@pytest.mark.parametrize("dtype", ["uint8", "bool", "bfloat16", "float16"])
def test_scores_of_other_dtypes_are_computed_in_float32(dtype):
    image = jnp.asarray((np.abs(noise(0, *SIZE)) * 60).astype(np.uint8) % 2**7, dtype)
    feature = image[3:6, 2:6]
    in_float32 = all_scores()(image.astype(jnp.float32), feature.astype(jnp.float32))
    for name, got in all_scores()(image, feature).items():
        assert got.dtype == (image.dtype if "float" in dtype else jnp.float32), name
        want, rounding = np.asarray(in_float32[name]), float(jnp.finfo(got.dtype).eps) / 2
        np.testing.assert_allclose(
            got.astype(jnp.float32), want, rtol=rounding, atol=1e-6 * np.abs(want).max(), err_msg=name
        )


def exact_zncc(image, feature):
    patches = np.lib.stride_tricks.sliding_window_view(np.float64(image), feature.shape)
    patches = patches - patches.mean(axis=(2, 3), keepdims=True)
    feature = np.float64(feature) - np.float64(feature).mean()
    return np.einsum("yxij,ij->yx", patches, feature) / np.sqrt((patches**2).sum(axis=(2, 3)) * (feature**2).sum())


class BrightImages(NamedTuple):
    """An image and a feature; the image made brighter as a whole and by steps, each with its exact scores."""

    image: np.ndarray
    feature: np.ndarray
    offset: list[tuple[np.ndarray, np.ndarray]]
    stepped: list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def bright_images():
    image, feature = noise(0, 256, 256), noise(1, 16, 16)
    offset = [image + np.float32(brightness) for brightness in (0, 1000, -1000)]
    steps = np.arange(256) > 127, np.arange(256)[:, None] > np.arange(256)
    stepped = [image + np.float32(1000) * step for step in steps]
    exact = ([(brighter, exact_zncc(brighter, feature)) for brighter in images] for images in (offset, stepped))
    return BrightImages(image, feature, *exact)


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("method", [pytest.param(m, marks=() if m == "auto" else pytest.mark.slow) for m in METHODS])
def test_zncc_is_exact_however_bright_the_image_is(method, bright_images):
    image, feature, offset, stepped = bright_images
    zncc = jax.jit(partial(cnn.zncc, method=method))
    plain = zncc(image, feature)
    for brighter, exact in offset:
        np.testing.assert_allclose(zncc(brighter, feature), exact, atol=1e-5)
    for brightness in (1000, -1000):
        np.testing.assert_allclose(zncc(image, feature + np.float32(brightness)), plain, atol=1e-3)
    for brighter, exact in stepped:
        np.testing.assert_allclose(zncc(brighter, feature), exact, atol=1e-4)


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("masked", [False, True])
def test_zncc_is_exact_however_bright_some_channels_are(masked):
    image, feature = noise(0, 40, 60, 3), noise(1, 9, 8, 3)
    mask = np.abs(noise(2, 9, 8, 3)) if masked else None
    brighter = image + np.array([1000, 0, -300], np.float32)
    want, _ = oracles.scores("zncc", brighter, feature, mask=mask)
    np.testing.assert_allclose(jax.jit(cnn.zncc)(brighter, feature, mask=mask), want, rtol=0, atol=1e-5)


def test_the_squared_difference_of_equal_colors_is_exactly_zero():
    image, color = noise(0, *SIZE, 3), noise(1, 3)
    image[5:10, 6:12] = color
    scores = jax.jit(cnn.squared_difference)(image, np.broadcast_to(color, (*WINDOW, 3)))
    is_of_color = np.zeros(scores.shape, bool)
    is_of_color[5:8, 6:9] = True
    np.testing.assert_array_equal(scores == 0, is_of_color)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_scores_do_not_depend_on_the_scale(scale):
    image, feature, scale = noise(0, *SIZE), noise(1, *WINDOW), np.float32(scale)
    scores = partial(all_scores(), p=2.0, q=0.0)
    want = scores(image, feature)
    both_scaled = scores(image * scale, feature * scale)
    image_scaled = scores(image * scale, feature)
    for name in ("cosine", "zncc", "sharpened_cosine"):
        np.testing.assert_allclose(both_scaled[name], want[name], rtol=0, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(image_scaled[name], want[name], rtol=0, atol=1e-5, err_msg=name)
    name = "normalized_squared_difference"
    np.testing.assert_allclose(both_scaled[name], want[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("masked", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_gradients_agree_with_differences(masked):
    mask = jnp.array([[1.0, 0.5], [0.0, 1.0], [1.0, 1.0]]) if masked else None
    with jax.enable_x64(True):
        image, feature = noise(0, 5, 4).astype(np.float64), noise(1, 3, 2).astype(np.float64)
        scores = jax.jit(lambda image, feature: all_scores()(image, feature, mask))
        check_grads(scores, (image, feature), order=1, modes=["fwd", "rev"], rtol=1e-4)
