"""Template matching as scikit-image and OpenCV test it, and the bugs that their users reported."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from tests.helpers import oracles
from tests.helpers.oracles import NAMES, noise
from tests.helpers.score_programs import all_scores

# The shapes of most tests of scores, so that they share their programs.
SHARED_SIZE = (20, 21)
SHARED_WINDOW = (3, 4)

zncc = jax.jit(cnn.zncc, static_argnames=("padding", "fill"))
slow = pytest.mark.slow


def position_of_maximum(scores):
    return np.unravel_index(np.argmax(scores), np.shape(scores))


def textured(size):
    """A target with contrast in all directions, in [0, 1]."""
    y, x = np.mgrid[:size, :size] / size
    return 0.5 + 0.25 * np.sin(9 * x + 4 * y**2) + 0.25 * np.where((x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.1, 1, -1)


# scikit-image


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float16", marks=slow)])
def test_two_targets_in_noise_are_the_two_highest_peaks(dtype):
    image = np.random.default_rng(0).uniform(size=(400, 400))
    target, corners = textured(100), [(50, 50), (200, 200)]
    for y, x in corners:
        image[y : y + 100, x : x + 100] = target + 0.1 * image[y : y + 100, x : x + 100]
    scores = zncc(jnp.asarray(image, dtype), jnp.asarray(target, dtype))
    assert scores.dtype == dtype
    remaining, peaks = np.array(scores), []
    for _ in corners:
        y, x = position_of_maximum(remaining)
        peaks.append((y, x))
        remaining[max(0, y - 50) : y + 50, max(0, x - 50) : x + 50] = -1
    assert sorted(peaks) == corners


def test_a_match_is_one_and_its_negative_minus_one_at_their_places():
    image, target = np.full((60, 90), 0.5), textured(20)
    image[5:25, 60:80], image[35:55, 10:30] = target, 1 - target
    scores = np.asarray(zncc(image.astype(np.float32), target.astype(np.float32)))
    assert position_of_maximum(scores) == (5, 60)
    assert position_of_maximum(-scores) == (35, 10)
    np.testing.assert_allclose([scores.max(), scores.min()], [1, -1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("has_contrast", [False, pytest.param(True, marks=slow)])
def test_almost_flat_images_give_numbers_in_range(has_contrast):
    """float32 rounds the contrast away, so that scores are 0; float64 keeps it."""
    with jax.enable_x64(has_contrast):
        dtype = np.float64 if has_contrast else np.float32
        image = (0.5 + 1e-9 * np.random.default_rng(0).normal(size=SHARED_SIZE)).astype(dtype)
        feature = noise(1, *SHARED_WINDOW).astype(dtype)
        all_maps = all_scores()(image, feature)
        for name, scores in all_maps.items():
            assert scores.dtype == dtype
            assert np.isfinite(scores).all(), name
        want = oracles.scores("zncc", image, feature)[0]
        np.testing.assert_allclose(all_maps["zncc"], want, rtol=0, atol=1e-6)
        assert np.any(want) == has_contrast


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("image", "feature"),
    [
        ((5, 5), (6, 5)),  # switched
        ((5, 5), (5, 6)),
        ((5,), (3,)),
        ((5, 5), (3, 3, 3)),
        ((5, 5, 3), (3, 3)),
        ((5, 5, 5, 5), (3, 3, 3, 3)),
    ],
)
def test_switched_arguments_and_wrong_ranks_are_refused(name, image, feature):
    with pytest.raises(ValueError, match=r"^(image|feature): expected"):
        getattr(cnn, name)(np.ones(image), np.ones(feature))


@pytest.mark.parametrize("fill", ["edge", pytest.param("mean", marks=slow), pytest.param("reflect", marks=slow)])
def test_whole_targets_beat_those_that_the_edge_cuts(fill):
    target = noise(0, 5, 9)
    image = np.full((15, 40), 0.5, np.float32)
    image[2:7, 5:14] += target
    image[2:7, 20:29] -= target
    image[9:14, :6] += target[:, -6:]
    image[9:14, -6:] -= target[:, :6]
    fill = float(image.mean()) if fill == "mean" else fill
    scores = np.asarray(zncc(image, target, padding="SAME", fill=fill))
    assert scores.shape == image.shape
    assert position_of_maximum(scores) == (4, 9)
    assert position_of_maximum(-scores) == (4, 24)
    assert 0.3 < scores[11, 1] < 1 - 1e-3  # the targets that were cut score high, but not as high
    assert -0.3 > scores[11, 38] > -1 + 1e-3


@pytest.mark.parametrize(("fill", "best"), [("reflect", 1.0), (0.0, 0.8), pytest.param("edge", 0.8, marks=slow)])
def test_half_a_symmetric_target_is_found_at_the_edge(fill, best):
    """With reflected padding the target is whole."""
    y, x = np.abs(np.mgrid[-2:3, -2:3])
    diamond = np.maximum(3 - x - y, 0).astype(np.float32)
    image = np.zeros((10, 10), np.float32)
    image[2:7, :3] = diamond[:, 2:]
    scores = np.asarray(zncc(image, diamond, padding="SAME", fill=fill))
    assert position_of_maximum(scores) == (4, 0)
    assert scores.max() == pytest.approx(1, abs=1e-6) if best == 1 else scores.max() < 1 - 1e-3


@pytest.mark.parametrize("name", ["zncc", pytest.param("cosine", marks=slow)])
def test_scores_of_a_single_bright_pixel_on_a_page_stay_in_range(name):
    rows, columns = np.mgrid[:191, :384]
    words = (rows // 6 % 2 == 1) & (np.random.default_rng(0).uniform(size=rows.shape) < 0.4)
    page = np.where(words, 30, 200 - 0.3 * rows + 0.1 * columns).astype(np.uint8)  # ink on paper, lit from a corner
    delta = np.zeros((9, 9), np.float32)
    delta[4, 4] = 1
    scores = jax.jit(getattr(cnn, name))(page, delta)
    assert scores.min() >= -1
    assert scores.max() <= 1
    assert np.ptp(scores) > 0.05


@pytest.mark.parametrize("padding", ["VALID", pytest.param("SAME", marks=slow)])
def test_a_block_is_found_in_a_volume_whose_depth_is_its_channels(padding):
    volume, block = noise(0, 12, 12, 6) / 10, noise(1, 3, 5, 6)
    volume[3:6, 5:10] = block
    scores = zncc(volume, block, padding=padding)
    assert position_of_maximum(scores) == ((3, 5) if padding == "VALID" else (4, 7))
    assert scores.max() == pytest.approx(1, abs=1e-6)


# OpenCV


def test_the_least_squared_difference_of_an_almost_flat_8_bit_image_is_zero():
    image = np.full((17, 17), 201, np.uint8)
    image[4, 5] = image[11, 3] = 202
    feature = image[3:8, 2:9]
    scores = jax.jit(cnn.squared_difference)(image, feature)
    assert scores.min() == scores[3, 2] == 0
    want, _ = oracles.scores("squared_difference", image, feature)
    np.testing.assert_allclose(scores, want, rtol=0, atol=1e-6 * want.max())


SIZE, WINDOW = (100, 60), (7, 5)


def assert_accurate(image, feature, mask=None):
    """Every score against its formula; those without norms up to the size of the numbers that they add up."""
    got = all_scores()(image, feature, mask)
    for name in NAMES:
        want, ok = oracles.scores(name, image, feature, mask=mask)
        assert ok.all()
        scale = np.abs(want).max() if name in ("match", "squared_difference") else 1
        np.testing.assert_allclose(got[name], want, rtol=2e-6, atol=4e-6 * scale, err_msg=name)


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("dtype", "channels"),
    [
        ("float32", ()),
        pytest.param("float32", (3,), marks=slow),
        pytest.param("uint8", (), marks=slow),
        pytest.param("uint8", (3,), marks=slow),
    ],
)
def test_random_images_are_scored_as_the_formulas_say(dtype, channels):
    rng = np.random.default_rng(len(channels))
    image, feature = (rng.uniform(0, 255, (*shape, *channels)).astype(dtype) for shape in (SIZE, WINDOW))
    assert_accurate(image, feature)
    centered = feature - feature.mean(axis=(0, 1), dtype=np.float32)  # TM_CCOEFF is a match of the centered feature
    patches = oracles.patches(image.reshape(*SIZE, -1).astype(np.float64), WINDOW)
    want = np.einsum("yxijc,ijc->yx", patches, centered.reshape(*WINDOW, -1).astype(np.float64)) / feature.size
    got = jax.jit(cnn.match)(image, centered)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 * np.abs(patches).max() * np.abs(centered).mean())


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("dtype", ["float32", pytest.param("uint8", marks=slow)])
def test_masked_scores_are_as_the_formulas_say(dtype):
    """8-bit masks are on or off, those of floats are weights."""
    rng = np.random.default_rng(0)
    image, feature = (rng.uniform(0, 255, shape).astype(dtype) for shape in (SIZE, WINDOW))
    mask = rng.uniform(size=feature.shape)
    mask = (255 * (mask > 0.4)).astype(np.uint8) if dtype == "uint8" else mask.astype(np.float32)
    assert_accurate(image, feature, mask)


@pytest.mark.parametrize("dtype", ["bool", pytest.param("float32", marks=slow)])
def test_a_mask_of_ones_is_no_mask(dtype):
    image, feature = noise(0, *SHARED_SIZE), noise(1, *SHARED_WINDOW)
    unmasked = all_scores()(image, feature)
    masked = all_scores()(image, feature, np.ones(SHARED_WINDOW, dtype))
    for name, scores in masked.items():
        np.testing.assert_allclose(scores, unmasked[name], rtol=2e-6, atol=2e-5, err_msg=name)


@pytest.mark.slow  # fast: test_score_inputs.test_a_mask_of_rows_and_columns_counts_for_all_channels
def test_a_mask_of_one_channel_counts_for_all():
    image, feature, mask = noise(0, 20, 20, 3), noise(1, 3, 3, 3), noise(2, 3, 3) > 0
    want = all_scores()(image, feature, np.repeat(mask[..., None], 3, axis=2))
    for name, scores in all_scores()(image, feature, mask).items():
        np.testing.assert_allclose(scores, want[name], rtol=0, atol=1e-6, err_msg=name)


@slow
@pytest.mark.parametrize("masked", [False, True])
def test_a_feature_almost_as_high_as_the_image_is_found(masked):
    image = noise(0, 20, 6)
    feature = image[2:19, 1:4]
    mask = noise(1, 17, 3) > 0 if masked else None
    scores = all_scores()(image, feature, mask)
    assert scores["zncc"].shape == (4, 4)
    for name in ("cosine", "zncc", "sharpened_cosine"):
        assert position_of_maximum(scores[name]) == (2, 1)
    for name in ("squared_difference", "normalized_squared_difference"):
        assert position_of_maximum(-scores[name]) == (2, 1)


IMAGE = noise(0, *SHARED_SIZE)
FEATURE = noise(1, *SHARED_WINDOW)
CONSTANT = np.full(SHARED_WINDOW, 0.3, np.float32)
FLAT = np.full(SHARED_SIZE, 100.7, np.float32)
BLACK = np.zeros(SHARED_SIZE, np.float32)
MASK = np.eye(*SHARED_WINDOW) > 0
DEGENERATE = {
    "constant feature": (IMAGE, CONSTANT, None, ["zncc"]),
    "constant feature under a mask": (IMAGE, CONSTANT, MASK, ["zncc"]),
    "flat image under a mask": (FLAT, FEATURE, MASK, ["zncc"]),
    "black image": (BLACK, FEATURE, None, ["match", "cosine", "zncc", "sharpened_cosine"]),
    "black image under a mask": (BLACK, FEATURE, MASK, ["match", "cosine", "zncc", "sharpened_cosine"]),
    "fully masked": (IMAGE, FEATURE, np.zeros(SHARED_WINDOW, bool), NAMES),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_every_score_is_finite_where_there_is_nothing_to_compare(case):
    image, feature, mask, zeros = DEGENERATE[case]
    for name, scores in all_scores()(image, feature, mask).items():
        assert np.isfinite(scores).all(), name
        assert name not in zeros or not np.any(scores), name


def test_a_nan_spoils_twelve_windows_of_three_by_four():
    image = IMAGE.copy()
    image[7, 12] = np.nan
    for name, scores in all_scores()(image, FEATURE).items():
        bad = np.argwhere(np.isnan(scores))
        assert len(bad) == 12, name
        assert (bad.min(axis=0).tolist(), bad.max(axis=0).tolist()) == ([5, 9], [7, 12]), name


@pytest.mark.parametrize("masked", [False, pytest.param(True, marks=slow)])
def test_a_contrast_of_one_gray_level_is_seen(masked):
    image = np.full((40, 40), 245, np.uint8)
    image[10:14, 20:24] = 246
    mask = None if not masked else np.arange(8) + np.arange(8)[:, None] > 3
    scores = zncc(image, image[8:16, 18:26], mask=mask)
    assert scores[8, 18] == pytest.approx(1, abs=1e-6)
    assert position_of_maximum(scores) == (8, 18)


MODES = {
    "cosine": "TM_CCORR_NORMED",
    "zncc": "TM_CCOEFF_NORMED",
    "squared_difference": "TM_SQDIFF",
    "normalized_squared_difference": "TM_SQDIFF_NORMED",
    "match": "TM_CCORR",
}


def opencv_mask(kind, rng, shape):
    """No mask; 8 bits, on or off; float32 weights of pixels, or of every channel of every pixel."""
    if kind == "8 bits":
        return (255 * (rng.uniform(size=shape[:2]) > 0.3)).astype(np.uint8)
    if kind is None:
        return None
    return rng.uniform(size=shape if kind == "weights of channels" else shape[:2]).astype(np.float32)


@pytest.mark.parametrize("kind", [None, "8 bits", "weights", "weights of channels"])
@pytest.mark.parametrize("channels", [pytest.param((), marks=slow), (3,)])
def test_maps_are_those_of_opencv(kind, channels):
    """Of random sizes, tinted. OpenCV's float32 rounds to the brightness, ours to the contrast."""
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    tint = np.array([0.5, 1, 3] if channels else 1, np.float32)
    size, window = rng.integers(20, 60, 2).tolist(), rng.integers(2, 12, 2).tolist()
    image, feature = (tint + rng.uniform(0, 1, (*s, *channels)).astype(np.float32) for s in (size, window))
    mask = opencv_mask(kind, rng, feature.shape)
    weights = np.ones(feature.shape) if mask is None else mask if mask.dtype == np.float32 else mask != 0
    weights = np.broadcast_to(weights.reshape(*weights.shape, *[1] * (feature.ndim - weights.ndim)), feature.shape)
    pixels = (np.float64(weights) ** 2).sum()
    got = all_scores()(image, feature, mask)
    for name, mode in MODES.items():
        want = cv2.matchTemplate(image, feature, getattr(cv2, mode), mask=mask)
        want = want / pixels if name == "match" else want  # TM_CCORR is a sum
        scale = np.abs(want).max() if name == "squared_difference" else 1
        np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=5e-5 * scale, err_msg=name)


def test_a_tint_matches_nothing():
    """With one mean of all channels, any two pictures of one tint had a score of about 0.95."""
    tint = np.array([3, 0, -3], np.float32)
    image, feature = noise(0, 40, 50, 3) + tint, noise(1, 8, 7, 3) + tint
    scores = zncc(image, feature)
    assert abs(np.median(scores)) < 0.02
    np.testing.assert_allclose(scores, zncc(noise(0, 40, 50, 3), noise(1, 8, 7, 3)), rtol=0, atol=1e-6)


def test_maps_are_those_of_scikit_image():
    feature = pytest.importorskip("skimage.feature")
    image, template = noise(0, *SIZE), noise(1, *WINDOW)
    want = feature.match_template(image.astype(np.float64), template.astype(np.float64))
    np.testing.assert_allclose(all_scores()(image, template)["zncc"], want, rtol=0, atol=2e-6)
