"""Pyramids beside OpenCV's pyrDown, and their weighted means."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._pyramid import PyramidPlan, halve, image_pyramid, masked_pyramid, plan_pyramid, shrink
from tests.helpers.oracles import noise


@pytest.mark.parametrize("shape", [(9, 14), (8, 7), (2, 3), (1, 1)])
def test_halving_is_the_filter_of_burt_and_adelson(shape):
    image = noise(0, *shape, 2)
    weights = np.array([1, 4, 6, 4, 1]) / 16
    mode: list[Literal["reflect", "edge"]] = [("reflect" if n > 3 else "edge") for n in shape]
    padded = np.pad(image.astype(np.float64), [(2, 2), (0, 0), (0, 0)], mode=mode[0])
    padded = np.pad(padded, [(0, 0), (2, 2), (0, 0)], mode=mode[1])
    want = np.zeros(image.shape)
    for i in range(5):
        for j in range(5):
            want += weights[i] * weights[j] * padded[i : i + shape[0], j : j + shape[1]]
    np.testing.assert_allclose(halve(jnp.asarray(image)), want[::2, ::2], atol=1e-6)


def test_halving_is_opencvs():
    cv2 = pytest.importorskip("cv2")
    image = noise(1, 31, 40)
    np.testing.assert_allclose(halve(jnp.asarray(image)[..., None])[..., 0], cv2.pyrDown(image), atol=1e-6)


def test_bytes_become_float32_and_wider_floats_stay():
    assert halve(jnp.zeros((4, 4, 1), jnp.uint8)).dtype == jnp.float32
    assert halve(jnp.zeros((4, 4, 1), jnp.bfloat16)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert halve(jnp.zeros((4, 4, 1), jnp.float64)).dtype == jnp.float64


@pytest.mark.parametrize("ratio", [1.3, 1.9])
def test_pixel_i_of_a_shrunken_image_is_at_i_times_the_ratio(ratio):
    rows, columns = np.indices((20, 31)).astype(np.float32)
    ramp = shrink(jnp.stack([jnp.asarray(rows), jnp.asarray(columns)], -1), ratio)
    want_rows, want_columns = np.indices(ramp.shape[:2]) * ratio
    np.testing.assert_allclose(ramp[1:-1, 1:-1, 0], want_rows[1:-1, 1:-1], atol=0.1)
    np.testing.assert_allclose(ramp[1:-1, 1:-1, 1], want_columns[1:-1, 1:-1], atol=0.1)


@pytest.mark.parametrize(
    ("side", "factors"),
    [(10, (1,)), (16, (1,)), (17, (1,)), (24, (1, 1.5)), (32, (1, 2)), (80, (1, 2, 4, 5)), (521, (1, 2, 4, 8, 16, 32))],
)
def test_the_top_level_has_the_side_that_was_asked_for(side, factors):
    assert plan_pyramid(side, 16).factors == factors


def test_levels_of_an_image():
    levels = image_pyramid(jnp.ones((50, 41, 1)), PyramidPlan(2, 1.5))
    assert [level.shape for level in levels] == [(50, 41, 1), (25, 21, 1), (13, 11, 1), (9, 7, 1)]
    for level in levels:
        np.testing.assert_allclose(level, 1, atol=1e-6)


def test_pixels_without_weight_do_not_matter():
    image = noise(2, 20, 20, 1)
    weights = np.ones_like(image)
    weights[:, 12:] = 0
    spoiled = np.where(weights == 0, np.nan, image)
    plan = PyramidPlan(1, 1.5)
    levels, level_weights = masked_pyramid(jnp.asarray(spoiled), jnp.asarray(weights), plan, 0.5)
    plain, _ = masked_pyramid(jnp.asarray(np.where(weights == 0, 9, image)), jnp.asarray(weights), plan, 0.5)
    for got, want, weight in zip(levels[1:], plain[1:], level_weights[1:], strict=True):
        np.testing.assert_array_equal(got, want)
        assert (weight[:, :3] > 0).all()
        assert (weight[:, -2:] == 0).all()
