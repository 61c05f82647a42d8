"""Sums and moments of patches, features under masks, and an image's location and scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import _patch_statistics as statistics
from tests.helpers import oracles
from tests.helpers.oracles import noise, whole

WINDOW = (3, 4)
STRIDE = (2, 1)
OPTIONS = statistics.CorrelateOptions(STRIDE, "auto", "highest")


def test_sums_and_energies_of_patches_equal_the_formulas():
    image, mask = whole(0, 9, 10, 3), np.float32(whole(1, *WINDOW, 3))
    patches = oracles.patches(image.astype(np.float64), WINDOW, stride=STRIDE)

    @jax.jit
    def sums(image, mask):
        return (
            statistics.patch_sums(image[..., 0], WINDOW, STRIDE),
            statistics.patch_dots(image, mask, OPTIONS),
            statistics.patch_dots(image, mask, OPTIONS, divisor=2),
            statistics.channel_dots(image, [mask, mask**2], OPTIONS),
            statistics.patch_energy(image, None, WINDOW, OPTIONS),
            statistics.patch_energy(image, mask, WINDOW, OPTIONS),
        )

    total, dot, half_dot, dots, energy, masked_energy = sums(image, mask)
    axes = (-3, -2, -1)
    np.testing.assert_array_equal(total, patches[..., 0].sum(axis=(-2, -1)))
    np.testing.assert_array_equal(dot, (patches * mask).sum(axis=axes))
    np.testing.assert_array_equal(half_dot, dot / 2)
    for k, weights in enumerate((mask, mask**2)):
        np.testing.assert_array_equal(dots[:, k], np.moveaxis((patches * weights).sum(axis=(-3, -2)), -1, 0))
    np.testing.assert_array_equal(energy, (patches**2).sum(axis=axes))
    np.testing.assert_array_equal(masked_energy, (patches**2 * mask**2).sum(axis=axes))


@pytest.fixture(scope="module")
def patch_moments():
    return jax.jit(lambda image: statistics.patch_moments(image, WINDOW, STRIDE))


def test_moments_of_patches_equal_the_formulas(patch_moments):
    image = noise(0, 9, 10, 3) + np.array([0, 1, 10], np.float32)
    patches = oracles.patches(image.astype(np.float64), WINDOW, stride=STRIDE)
    mean, squared_deviations = patch_moments(image)
    exact_mean = patches.mean(axis=(-3, -2), keepdims=True)
    exact_squared_deviations = ((patches - exact_mean) ** 2).sum(axis=(-3, -2))
    np.testing.assert_allclose(mean, np.moveaxis(exact_mean[..., 0, 0, :], -1, 0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(squared_deviations, np.moveaxis(exact_squared_deviations, -1, 0), rtol=1e-5)


@pytest.mark.parametrize("level", [0.1, 0.3, 1 / 3, 1e30])
def test_constant_patches_deviate_by_exactly_zero(patch_moments, level):
    mean, squared_deviations = patch_moments(np.full((9, 10, 3), level, np.float32))
    np.testing.assert_array_equal(mean, np.float32(level))
    np.testing.assert_array_equal(squared_deviations, 0)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_merged_moments_are_those_of_all_pixels(count):
    pixels = np.random.default_rng(count).normal(size=10)

    def moments(part):
        return statistics.Moments(part.mean(), ((part - part.mean()) ** 2).sum())

    merged = statistics.merge_moments(moments(pixels[:count]), moments(pixels[count:]), count, 10 - count)
    np.testing.assert_allclose(merged, moments(pixels), rtol=1e-12)


def test_every_channel_of_a_feature_is_centered_by_its_weighted_mean():
    feature, mask = noise(0, 3, 4, 2) + np.array([1000, -50], np.float32), np.abs(noise(1, 3, 4, 2))
    mask[0, 0] = 0
    centered = statistics.center_feature(jnp.asarray(feature), jnp.asarray(mask))
    mean = np.average(feature.astype(np.float64), axis=(0, 1), weights=mask)
    np.testing.assert_allclose(centered, np.where(mask != 0, feature - mean, 0), atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_a_constant_feature_is_exactly_zero_when_centered(masked):
    mask = np.arange(24).reshape(3, 4, 2) > 9
    feature = np.broadcast_to(np.array([0.7, -0.1], np.float32), (3, 4, 2)).copy()
    weights = jnp.asarray(mask, jnp.float32) if masked else None
    if masked:
        feature[~mask] = np.nan  # does not count
    np.testing.assert_array_equal(statistics.center_feature(jnp.asarray(feature), weights), 0)


def test_a_feature_is_scaled_by_what_counts():
    feature, mask = jnp.array([[[1.0]], [[-4.0]], [[jnp.nan]]]), jnp.array([[[1.0]], [[0.5]], [[0.0]]])
    scaled, magnitude = statistics.scale_to_unit_magnitude(feature, mask)
    assert (magnitude, scaled[:2, 0, 0].tolist()) == (4, [0.25, -1])
    assert statistics.scale_to_unit_magnitude(jnp.zeros((2, 2, 1)), None)[1] == 1
    assert statistics.times_squared_mask(feature, mask)[:, 0, 0].tolist() == [1, -1, 0]
    assert statistics.total_squared_weight(feature, mask) == 1.25
    assert statistics.total_squared_weight(feature, None) == 3


def test_only_patches_of_zeros_under_the_mask_are_all_zero():
    image, mask = np.zeros((8, 8, 1), np.float32), np.zeros((3, 3, 1), np.float32)
    image[1, 1], mask[1, 1] = 1e-30, 1e-3
    options = OPTIONS._replace(stride=(1, 1), method="fft")
    is_zero = jax.jit(lambda image, mask: statistics.is_all_zero_patch(image, mask, options))(image, mask)
    assert np.argwhere(~is_zero).tolist() == [[0, 0]]
    assert statistics.is_all_zero_patch(jnp.asarray(image), None, options) is False


def test_a_cosine_is_zero_where_an_energy_is_zero_and_never_above_one():
    dots, energies = jnp.array([2.0, -1.0, 0.0, jnp.nan]), jnp.array([4.0, 0.99, 0.0, jnp.nan])
    cosine, defined = jax.jit(statistics.safe_cosine)(dots, energies, jnp.float32(1))
    np.testing.assert_array_equal(cosine, [1, -1, 0, np.nan])
    assert defined.tolist() == [True, True, False, False]
    cosine, defined = jax.jit(statistics.safe_cosine)(dots[:2], energies[:2], jnp.float32(0))
    assert (cosine.tolist(), defined.tolist()) == ([0, 0], [False, False])


@pytest.fixture(scope="module")
def location_and_scale():
    return jax.jit(lambda image: statistics.robust_location_and_scale(image, centered=True))


def test_location_and_scale_are_medians_over_rows(location_and_scale):
    image = noise(0, 20, 32, 1) * 3 + np.float32(50)
    image[3, 4], image[7, 8], image[9] = 1e30, np.nan, np.inf
    location, scale = location_and_scale(image)
    assert location.shape == (1, 1, 1)
    rows = np.where(np.isfinite(image), image, np.nan)[np.arange(20) != 9, :, 0].astype(np.float64)
    want = np.median(np.nanmean(rows, axis=1))
    np.testing.assert_allclose(location, want, rtol=1e-6)
    np.testing.assert_allclose(scale, max(np.median(np.nanmean(abs(rows - want), axis=1)), 1e30 / 2**50), rtol=1e-6)


def test_what_is_bright_in_a_flat_image_is_its_scale(location_and_scale):
    image = np.full((20, 32, 1), 5, np.float32)  # means over 32 columns are exact
    assert [number.item() for number in location_and_scale(image)] == [5, 1]
    image[2, 3] = 7
    assert [number.item() for number in location_and_scale(image)] == [5, 2]


def test_every_channel_has_a_location_and_all_have_one_scale():
    levels = np.array([1000, -1000, 0.5], np.float32)
    image = noise(0, 21, 32, 3) + levels
    location, scale = jax.jit(lambda image: statistics.robust_location_and_scale(image, centered=True))(image)
    exact = np.median(image.astype(np.float64).mean(axis=1), axis=0)
    np.testing.assert_allclose(location[0, 0], exact, rtol=1e-6)
    np.testing.assert_allclose(scale, np.median(abs(image - exact).mean(axis=(1, 2))), rtol=1e-4)


def test_an_image_that_is_not_finite_has_finite_location_and_scale(location_and_scale):
    assert [number.item() for number in location_and_scale(np.full((20, 32, 1), np.nan, np.float32))] == [0, 1]


def test_location_is_zero_unless_centered():
    location, scale = statistics.robust_location_and_scale(jnp.full((2, 3, 1), -4.0), centered=False)
    assert (location.item(), scale.item()) == (0, 4)


def test_standardized_pixels_are_clipped_and_those_not_finite_are_nan():
    image = jnp.array([[[3.0], [1e30], [-1e30], [jnp.inf], [jnp.nan]]])
    standardized = jax.jit(statistics.standardize_image)(image, jnp.float32(1), jnp.float32(2))
    np.testing.assert_array_equal(standardized[0, :, 0], [1, 2.0**50, -(2.0**50), np.nan, np.nan])
