"""Every score of `matching` against its formula, patch by patch, and where the formulas leave off."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import settings
from jax.test_util import check_grads

import cnn_jax as cnn
from tests.helpers import oracles
from tests.helpers.oracles import NAMES, noise

METHODS = ("auto", "conv", "shift", "im2col", "fft")
NORMED = ("cosine", "zncc", "normalized_squared_difference", "sharpened_cosine")


@cache
def all_scores(method="auto", q=1e-3):
    """One program for all scores, for every test that has images of the same shape."""

    def scores(image, feature, mask=None):
        options = {name: {"q": q} if name == "sharpened_cosine" else {} for name in NAMES}
        return {name: getattr(cnn, name)(image, feature, mask=mask, method=method, **options[name]) for name in NAMES}

    return jax.jit(scores)


@jax.jit
def all_defined(image, feature, mask=None):
    return {name: cnn.is_defined(image, feature, getattr(cnn, name), mask=mask) for name in NAMES}


class Case(NamedTuple):
    """One compiled program, that gives all scores and where they are defined."""

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
    border = rng.integers(0, window[:, None] + 1, (2, 2)).tolist()
    layout = {
        "padding": ("VALID", "SAME", "CEIL", border)[rng.integers(4)],
        "stride": tuple(rng.choice([1, 1, 2, 3], 2).tolist()),
        "fill": (0.0, -1.0, "edge", "reflect")[rng.integers(4)],
    }
    shape, window = (*size.tolist(), *channels), (*window.tolist(), *channels)
    weights = np.where(rng.uniform(size=window) > 0.25, rng.uniform(0.1, 1, window), 0)
    mask = (None, weights > 0, (weights > 0) * 7, weights.astype(np.float32))[number % 4]
    dtype = ("float32", "float16", "bfloat16", "uint8", "int32", "bool")[rng.integers(6)]
    return Case(number, method, dtype, shape, window, mask, layout)


# Every method with every kind of mask twice; sixteen times with --hypothesis-profile=thorough.
CASES = [draw_case(number) for number in range(448 if settings().max_examples > 100 else 56)]


def pictures(case):
    """What an image and a feature may hold, and an exponent and a floor for the sharpened cosine."""
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
        yield name, *(of_dtype(a, case.dtype) for a in pair), options


def of_dtype(array, dtype):
    if dtype == "uint8":
        return np.clip(array * 20 + 128, 0, 255).astype(np.uint8)
    if dtype == "int32":
        return np.round(array * 3).astype(np.int32)
    return array > 0 if dtype == "bool" else array.astype(jnp.dtype(dtype))


def compiled(case):
    """All scores in one program; where half of them are defined, which no method changes, for one method only."""

    def scores(image, feature, options):
        out = {}
        for name in NAMES:
            score, extra = getattr(cnn, name), options if name == "sharpened_cosine" else {}
            ok = None
            if case.method == "auto" and name in NAMES[case.number % 2 :: 2]:
                ok = cnn.is_defined(image, feature, score, mask=case.mask, **case.layout)
            out[name] = score(image, feature, mask=case.mask, method=case.method, **case.layout, **extra), ok
        return out

    _, image, feature, options = next(pictures(case))
    return jax.jit(scores).lower(image, feature, options).compile()


@pytest.fixture(scope="module")
def programs():
    pool = ThreadPoolExecutor(os.cpu_count())
    yield {case.number: pool.submit(compiled, case) for case in CASES}
    pool.shutdown(cancel_futures=True)


@np.errstate(all="ignore")
def units(case, image, feature):
    """What `matching` states the errors of every score in: they grow as a patch is less than what is added up."""
    image, feature = (np.asarray(a, np.float64).reshape(*a.shape[:2], -1) for a in (image, feature))
    m = np.ones(feature.shape) if case.mask is None else case.mask.reshape(feature.shape)
    m = m if m.dtype.kind == "f" else m != 0
    patches = oracles.patches(image, feature.shape[:2], **case.layout)
    whole, _ = oracles.bordered(image, feature.shape[:2], **case.layout)
    usual = np.median(whole.mean(axis=(1, 2)))

    def norm(pixels):
        return np.sqrt((m**2 * pixels**2).sum(axis=(-3, -2, -1)))

    def times_more(pixels, own):
        """How often the norm of what is added up holds the patch's own; with a mask its square, for its sums do."""
        added = np.abs(pixels).max() * norm(np.ones(pixels.shape)) if case.method == "fft" else norm(pixels)
        times = np.maximum(added / own, 1)
        return added, times if case.mask is None else times**2

    mean = (m * patches).sum(axis=(-3, -2, -1), keepdims=True) / m.sum()
    own, patch = norm(feature), norm(patches)
    added, cosine = times_more(patches, patch)
    centred, zncc = times_more(patches - usual, norm(patches - mean))
    return {
        "match": added * own / (m**2).sum(),
        "cosine": cosine,
        "zncc": zncc,
        "squared_difference": centred**2 + norm(feature - usual) ** 2,
        "normalized_squared_difference": (own / patch + patch / own) * cosine,
        "sharpened_cosine": 3 * cosine,
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.number))
def test_scores_equal_the_reference(case, programs):
    program = programs[case.number].result()
    for picture, image, feature, options in pictures(case):
        unit, outputs = units(case, image, feature), program(image, feature, options)
        for name, (got, ok) in outputs.items():
            extra = options if name == "sharpened_cosine" else {}
            what = f"{name} {extra} of {picture!r} in case {case}"
            want, defined = oracles.scores(name, image, feature, mask=case.mask, **case.layout, **extra)
            assert got.dtype == (case.dtype if "float" in case.dtype else np.float32), what
            rounding = float(jnp.finfo(got.dtype).eps) * np.abs(want) + float(jnp.finfo(got.dtype).smallest_subnormal)
            allowed = np.where(defined, 2e-6 * unit[name] + rounding, 0)
            errors = np.abs(np.asarray(got, np.float64) - want)
            assert np.all(errors <= allowed), f"{what}: off by {errors}, allowed {allowed}"
            assert ok is None or np.array_equal(ok, defined), f"{what}: defined where {ok}, not {defined}"


@pytest.mark.parametrize("dtype", ["uint8", "bool", "bfloat16", "float16"])
def test_scores_of_other_dtypes_are_computed_in_float32(dtype):
    image = jnp.asarray((np.abs(noise(0, 12, 11)) * 60).astype(np.uint8) % 2**7, dtype)

    @jax.jit
    def both(image):
        same, wide = (all_scores()(a, a[3:7, 2:7]) for a in (image, image.astype(jnp.float32)))
        return same, wide

    same, wide = both(image)
    for name, got in same.items():
        assert got.dtype == (image.dtype if "float" in dtype else jnp.float32), name
        want, rounding = np.asarray(wide[name]), float(jnp.finfo(got.dtype).eps) / 2
        np.testing.assert_allclose(
            got.astype(jnp.float32), want, rtol=rounding, atol=1e-6 * np.abs(want).max(), err_msg=name
        )


def exact_zncc(image, feature):
    patches = np.lib.stride_tricks.sliding_window_view(np.float64(image), feature.shape)
    patches = patches - patches.mean(axis=(2, 3), keepdims=True)
    feature = np.float64(feature) - np.float64(feature).mean()
    return np.einsum("yxij,ij->yx", patches, feature) / np.sqrt((patches**2).sum(axis=(2, 3)) * (feature**2).sum())


@pytest.fixture(scope="module")
def bright():
    """An image, a feature, and the image made brighter, as a whole and by steps: each with its exact scores."""
    image, feature = noise(0, 256, 256), noise(1, 16, 16)
    whole = [image + np.float32(offset) for offset in (0, 1000, -1000)]
    steps = np.arange(256) > 127, np.arange(256)[:, None] > np.arange(256)
    stepped = [image + np.float32(1000) * step for step in steps]
    return image, feature, *([(one, exact_zncc(one, feature)) for one in some] for some in (whole, stepped))


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("method", METHODS)
def test_zncc_is_exact_however_bright_the_image_is(method, bright):
    image, feature, whole, stepped = bright
    run = jax.jit(partial(cnn.zncc, method=method))
    plain = run(image, feature)
    for one, exact in whole:
        np.testing.assert_allclose(run(one, feature), exact, atol=1e-5)
    for offset in (1000, -1000):
        np.testing.assert_allclose(run(image, feature + np.float32(offset)), plain, atol=1e-3)
    for one, exact in stepped:
        np.testing.assert_allclose(run(one, feature), exact, atol=1e-4)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_scores_do_not_depend_on_the_scale(scale):
    image, feature, scale = noise(0, 20, 21), noise(1, 3, 4), np.float32(scale)
    run = all_scores(q=0.0)
    want, both, one = run(image, feature), run(image * scale, feature * scale), run(image * scale, feature)
    for name in ("cosine", "zncc", "sharpened_cosine"):
        np.testing.assert_allclose(both[name], want[name], rtol=0, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(one[name], want[name], rtol=0, atol=1e-5, err_msg=name)
    name = "normalized_squared_difference"
    np.testing.assert_allclose(both[name], want[name], rtol=0, atol=1e-5)


def holding(spot, image, feature):
    """Which patches hold this pixel."""
    hit = np.zeros(image.shape, bool)
    hit[spot] = True
    return np.lib.stride_tricks.sliding_window_view(hit, feature.shape).any(axis=(2, 3))


@pytest.mark.parametrize("method", ["shift", "conv", "fft"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_pixel_spoils_only_the_patches_that_hold_it(method, bad):
    image, feature = noise(0, 20, 21), noise(1, 3, 4)
    run = all_scores(method=method)
    clean = run(image, feature)
    image[10, 9] = bad
    hit = holding((10, 9), image, feature)
    for name, got in run(image, feature).items():
        assert not np.isfinite(got[hit]).any(), name
        np.testing.assert_allclose(got[~hit], clean[name][~hit], rtol=0, atol=2e-5, err_msg=name)
    for name, ok in all_defined(image, feature).items():
        np.testing.assert_array_equal(ok, ~hit, name)


@pytest.mark.parametrize("scale", [1e18, 1e-25])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_pixel_changes_no_score_of_what_is_bright_in_a_black_image(scale, bad):
    image, feature = np.zeros((20, 21), np.float32), noise(1, 3, 4)
    image[10:13, 9:13] = feature * np.float32(scale)
    image[0, 0] = bad
    for name, got in all_scores()(image, feature).items():
        assert name not in ("cosine", "zncc") or got[10, 9] == pytest.approx(1, abs=1e-5), name


def test_black_patches_under_a_large_mask_are_undefined():
    image, feature, mask = np.zeros((120, 130), np.float32), noise(1, 40, 40), np.zeros((40, 40), bool)
    image[:60], image[80, 90], mask[10:30, 10:30] = noise(0, 60, 130), 1, True
    black = np.asarray(cnn.window_sum(np.abs(image), 20))[10:91, 10:101] == 0
    assert black.any()
    names = "cosine", "normalized_squared_difference", "sharpened_cosine"

    @jax.jit
    def each(image, feature):
        scores = [getattr(cnn, name) for name in names]
        return [
            (score(image, feature, mask=mask), cnn.is_defined(image, feature, score, mask=mask)) for score in scores
        ]

    for name, (scores, defined) in zip(names, each(image, feature), strict=True):
        assert not np.any(scores[black]), name
        assert not np.any(defined[black]), name


def test_a_huge_pixel_spoils_only_the_patches_that_hold_it():
    image, feature = noise(0, 20, 21), noise(1, 3, 4)
    run = all_scores(method="shift")
    clean = run(image, feature)
    image[10, 9] = 1e30
    hit, scores = holding((10, 9), image, feature), run(image, feature)
    for name in ("cosine", "zncc", "sharpened_cosine"):
        np.testing.assert_allclose(scores[name][~hit], clean[name][~hit], rtol=0, atol=1e-4, err_msg=name)
        want, _ = oracles.scores(name, image, feature)
        np.testing.assert_allclose(scores[name], want, rtol=0, atol=1e-4, err_msg=name)


def test_what_is_bright_in_a_dark_image_is_seen():
    y, x = np.indices((120, 110))
    blob = np.exp(-((y - 25.0) ** 2 + (x - 25.0) ** 2) / 128).astype(np.float32)
    score = jax.jit(lambda image, feature: (cnn.zncc(image, feature), cnn.cosine(image, feature)))
    for scores in score(blob, blob[20:40, 15:35]):
        assert scores[20, 15] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("method", ["shift", "conv", "fft"])
def test_flat_and_black_parts_score_zero_under_a_mask(method):
    """However the sums are rounded, and however bright the rest is."""
    y, x = np.mgrid[:12, :12] - 5.5
    disc, feature, left = x**2 + y**2 < 34, noise(1, 12, 12), np.arange(48) < 24
    run = all_scores(method=method)
    for level in (0.0, 0.3):
        image = np.where(left, noise(0, 48, 48), np.float32(level))
        scores = run(image, feature, disc)
        for name in ("zncc",) if level else NORMED:
            np.testing.assert_array_equal(scores[name][:, 24:], 0, name)
            assert np.all(scores[name][:, :24] != 0), name


@pytest.mark.parametrize("channels", [3, 6, 7])
def test_a_flat_part_is_flat_in_all_channels_together(channels):
    """The mean of several equal numbers may be rounded to another."""
    images = np.broadcast_to(noise(0, 8, 1, 1, 1), (8, 10, 16, channels)).copy()
    images[:, :, :8] = noise(1, 8, 10, 8, channels)
    feature = noise(2, 3, 3, channels)
    scores, ok = jax.jit(jax.vmap(lambda image: (cnn.zncc(image, feature), cnn.is_defined(image, feature))))(images)
    np.testing.assert_array_equal(ok[:, :, 8:], False)
    np.testing.assert_array_equal(scores[:, :, 8:], 0)
    assert ok[:, :, :8].all()


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


@jax.jit
def scores_and_gradients(image, feature, mask):
    run = all_scores()
    both = {name: (lambda i, f, name=name: run(i, f, mask)[name].sum()) for name in NAMES}
    gradients = {name: jax.grad(total, (0, 1))(image, feature) for name, total in both.items()}
    return run(image, feature, mask), all_defined(image, feature, mask), gradients


@pytest.mark.parametrize("case", DEGENERATE)
def test_nothing_to_compare_scores_zero_with_finite_gradients(case):
    image, feature, mask = DEGENERATE[case]
    scores, defined, gradients = scores_and_gradients(image.astype(np.float32), feature.astype(np.float32), mask)
    for name, got in scores.items():
        assert np.isfinite(got).all(), name
        np.testing.assert_array_equal(got[~defined[name]], 0, name)
        assert name not in ("cosine", "zncc") or np.abs(got).max() <= 1, name
        for gradient in gradients[name]:
            assert np.isfinite(gradient).all(), name


def test_gradients_of_faint_patches_are_finite():
    image = noise(0, 20, 21)
    image[8:] *= np.float32(1e-17)
    for name in ("cosine", "zncc"):
        scores, back = jax.vjp(jax.jit(getattr(cnn, name)), image, noise(1, 3, 4))
        for gradient in back(jnp.ones_like(scores)):
            assert np.isfinite(gradient).all(), name


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_agree_with_differences(masked):
    mask = jnp.array([[1.0, 0.5], [0.0, 1.0], [1.0, 1.0]]) if masked else None
    with jax.enable_x64(True):
        image, feature = noise(0, 5, 4).astype(np.float64), noise(1, 3, 2).astype(np.float64)
        run = all_scores()
        scores = jax.jit(lambda i, f: run(i, f, mask))
        check_grads(scores, (image, feature), order=1, modes=["fwd", "rev"], rtol=1e-4)


def test_the_exponent_and_the_floor_can_be_learned():
    image, feature = noise(0, 6, 6), noise(1, 3, 3)

    @jax.jit
    def loss(p, q):
        return cnn.sharpened_cosine(image, feature, p=p, q=q).sum()

    with jax.enable_x64(True):
        check_grads(loss, (1.7, 0.3), order=1, modes=["rev"], rtol=1e-3)


def test_transformations_nest():
    images, features = noise(0, 2, 7, 6), noise(1, 3, 3, 2)
    run = all_scores()

    @jax.jit
    def nested(images, features):
        banks = jax.vmap(lambda f: jax.vmap(lambda i: run(i, f))(images))(features)
        each, together = {}, {}
        for name in NAMES:
            each[name] = jax.vmap(jax.grad(lambda f, name=name: run(images[0], f)[name].sum()))(features)
            bank = jax.vmap(lambda f, name=name: run(images[0], f)[name])
            together[name] = jax.grad(lambda features, bank=bank: bank(features).sum())(features)
        return banks, each, together

    banks, each, together = nested(images, features)
    for name in NAMES:
        want = [[oracles.scores(name, i, f)[0] for i in images] for f in features]
        np.testing.assert_allclose(banks[name], want, rtol=0, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(each[name], together[name], rtol=0, atol=1e-4, err_msg=name)


IMAGE, FEATURE = np.ones((6, 7)), np.ones((3, 3))
ERRORS = [
    ({"mask": np.ones((3, 4))}, ValueError, r"mask: expected the shape of the feature, \(3, 3\), got \(3, 4\)"),
    ({"mask": np.ones(3)}, ValueError, r"mask: expected the shape of the feature, \(3, 3\), got \(3,\)"),
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
        cnn.is_defined(IMAGE, FEATURE, jnp.add)


@pytest.mark.parametrize(("p", "q", "wrong"), [(np.ones(2), 1.0, "p"), (2.0, np.ones(3), "q")])
def test_exponent_and_floor_are_single_numbers(p, q, wrong):
    with pytest.raises(ValueError, match=f"{wrong}: expected one number"):
        cnn.sharpened_cosine(IMAGE, FEATURE, p=p, q=q)
