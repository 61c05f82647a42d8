"""Scores of patches that are constant, zero, masked, faint or not finite, and of the patches beside them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from tests.helpers import oracles
from tests.helpers.oracles import NAMES, noise
from tests.helpers.score_programs import all_scores, scores_and_definedness

# One shape for most tests, so that they share their programs.
SIZE = (20, 21)
WINDOW = (3, 4)
NORMED = ("cosine", "zncc", "normalized_squared_difference", "sharpened_cosine")
# "auto" takes "shift" for small features; "fft" is the least exact.
METHOD_PARAMS = ["shift", "fft", pytest.param("conv", marks=pytest.mark.slow)]


def holds_pixel(pixel, image, feature):
    """Which patches hold this pixel."""
    marked = np.zeros(image.shape, bool)
    marked[pixel] = True
    return np.lib.stride_tricks.sliding_window_view(marked, feature.shape).any(axis=(2, 3))


@pytest.mark.parametrize("method", METHOD_PARAMS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_pixel_spoils_only_the_patches_that_hold_it(method, bad):
    image, feature = noise(0, *SIZE), noise(1, *WINDOW)
    scores = all_scores(method)
    clean = scores(image, feature)
    image[10, 9] = bad
    holds_it = holds_pixel((10, 9), image, feature)
    for name, got in scores(image, feature).items():
        assert not np.isfinite(got[holds_it]).any(), name
        np.testing.assert_allclose(got[~holds_it], clean[name][~holds_it], rtol=0, atol=2e-5, err_msg=name)
    for name, defined in scores_and_definedness(image, feature)[1].items():
        np.testing.assert_array_equal(defined, ~holds_it, name)


@pytest.mark.parametrize("scale", [1e18, 1e-25])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_pixel_changes_no_score_of_what_is_bright_in_a_black_image(scale, bad):
    image, feature = np.zeros(SIZE, np.float32), noise(1, *WINDOW)
    image[10:13, 9:13] = feature * np.float32(scale)
    image[0, 0] = bad
    scores = all_scores()(image, feature)
    for name in ("cosine", "zncc"):
        assert scores[name][10, 9] == pytest.approx(1, abs=1e-5), name


@pytest.mark.slow  # fast: test_patch_statistics.test_only_patches_of_zeros_under_the_mask_are_all_zero
def test_black_patches_under_a_large_mask_are_undefined():
    image, feature, mask = np.zeros((120, 130), np.float32), noise(1, 40, 40), np.zeros((40, 40), bool)
    image[:60], image[80, 90], mask[10:30, 10:30] = noise(0, 60, 130), 1, True
    is_black = np.asarray(cnn.window_sum(np.abs(image), 20))[10:91, 10:101] == 0
    assert is_black.any()
    scores, defined = scores_and_definedness(image, feature, mask)
    for name in ("cosine", "normalized_squared_difference", "sharpened_cosine"):
        assert not np.any(scores[name][is_black]), name
        assert not np.any(defined[name][is_black]), name


def test_a_huge_pixel_spoils_only_the_patches_that_hold_it():
    image, feature = noise(0, *SIZE), noise(1, *WINDOW)
    clean = all_scores("shift")(image, feature)
    image[10, 9] = 1e30
    elsewhere, scores = ~holds_pixel((10, 9), image, feature), all_scores("shift")(image, feature)
    for name in ("cosine", "zncc", "sharpened_cosine"):
        np.testing.assert_allclose(scores[name][elsewhere], clean[name][elsewhere], rtol=0, atol=1e-4, err_msg=name)
        want, _ = oracles.scores(name, image, feature)
        np.testing.assert_allclose(scores[name], want, rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.slow  # fast: the test of bright pixels in a black image above
def test_what_is_bright_in_a_dark_image_is_seen():
    y, x = np.indices((120, 110))
    blob = np.exp(-((y - 25.0) ** 2 + (x - 25.0) ** 2) / 128).astype(np.float32)
    score = jax.jit(lambda image, feature: (cnn.zncc(image, feature), cnn.cosine(image, feature)))
    for scores in score(blob, blob[20:40, 15:35]):
        assert scores[20, 15] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("method", ["conv", "fft", pytest.param("shift", marks=pytest.mark.slow)])
def test_flat_and_black_parts_score_zero_under_a_mask(method):
    """However the sums are rounded, and however bright the rest is."""
    y, x = np.mgrid[:12, :12] - 5.5
    disk, feature, left = x**2 + y**2 < 34, noise(1, 12, 12), np.arange(48) < 24
    for level in (0.0, 0.3):
        image = np.where(left, noise(0, 48, 48), np.float32(level))
        scores = all_scores(method)(image, feature, disk)
        for name in ("zncc",) if level else NORMED:
            np.testing.assert_array_equal(scores[name][:, 24:], 0, name)
            assert np.all(scores[name][:, :24] != 0), name


@pytest.mark.parametrize(
    "channels", [3, pytest.param(6, marks=pytest.mark.slow), pytest.param(7, marks=pytest.mark.slow)]
)
def test_a_part_of_one_color_is_flat(channels):
    """The mean of several equal numbers may be rounded to another."""
    images = np.broadcast_to(noise(0, 8, 1, 1, channels), (8, 10, 16, channels)).copy()
    images[:, :, :8] = noise(1, 8, 10, 8, channels)
    feature = noise(2, 3, 3, channels)
    zncc = jax.jit(jax.vmap(lambda image: (cnn.zncc(image, feature), cnn.is_defined(image, feature))))
    scores, defined = zncc(images)
    np.testing.assert_array_equal(defined[:, :, 8:], False)
    np.testing.assert_array_equal(scores[:, :, 8:], 0)
    assert defined[:, :, :8].all()


DEGENERATE = {
    "flat image": (np.full((8, 8), 0.3), noise(0, 3, 3), None),
    "black image": (np.zeros((8, 8)), noise(0, 3, 3), None),
    "flat feature": (noise(0, 8, 8), np.full((3, 3), 0.7), None),
    "zero feature": (noise(0, 8, 8), np.zeros((3, 3)), None),
    "half flat": (np.where(np.arange(8) < 4, 0.3, noise(0, 8, 8)), noise(1, 3, 3), None),
    "all masked": (noise(0, 8, 8), noise(1, 3, 3), np.zeros((3, 3), np.float32)),
    "flat under the mask": (noise(0, 8, 8), np.eye(3), np.eye(3, dtype=np.float32)),
    "all masked by bools": (noise(0, 8, 8), noise(1, 3, 3), np.zeros((3, 3), bool)),
    "flat under a mask of bools": (noise(0, 8, 8), np.eye(3), np.eye(3, dtype=bool)),
    "image of one color": (np.broadcast_to([0.3, 0.1, -7], (8, 8, 3)), noise(0, 3, 3, 3), None),
    "image of one color under a mask": (np.broadcast_to([0.3, 0.1, -7], (8, 8, 3)), noise(0, 3, 3, 3), np.eye(3)),
    "feature of one color": (noise(0, 8, 8, 3), np.broadcast_to([0.3, 0.1, -7], (3, 3, 3)), np.eye(3) > 0),
    "one pixel": (noise(0, 8, 8), np.ones((1, 1)), None),
}
SLOW_DEGENERATE = (
    *("all masked by bools", "flat under a mask of bools", "one pixel"),
    *("image of one color", "feature of one color"),
)


@jax.jit
def scores_definedness_and_gradients(image, feature, mask):
    scores, defined = scores_and_definedness(image, feature, mask)

    def totals(image, feature):
        return jnp.stack([score.sum() for score in all_scores()(image, feature, mask).values()])

    return scores, defined, jax.jacrev(totals, (0, 1))(image, feature)


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow if c in SLOW_DEGENERATE else ()) for c in DEGENERATE]
)
def test_degenerate_patches_score_zero_with_finite_gradients(case):
    image, feature, mask = DEGENERATE[case]
    scores, defined, gradients = scores_definedness_and_gradients(
        image.astype(np.float32), feature.astype(np.float32), mask
    )
    for name, got in scores.items():
        assert np.isfinite(got).all(), name
        np.testing.assert_array_equal(got[~defined[name]], 0, name)
        assert name not in ("cosine", "zncc") or np.abs(got).max() <= 1, name
    for gradient in gradients:
        for name, of_score in zip(scores, gradient, strict=True):
            assert np.isfinite(of_score).all(), name


def test_gradients_of_faint_patches_are_finite():
    image = noise(0, 8, 8)
    image[3:] *= np.float32(1e-17)
    _, _, gradients = scores_definedness_and_gradients(image, noise(1, 3, 3), None)
    for gradient in gradients:
        for name in ("cosine", "zncc"):
            assert np.isfinite(gradient[NAMES.index(name)]).all(), name
