"""Pyramids of a search of ranges: what of images and templates is compared."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._range_plan import plan_ranges
from cnn_jax._range_pyramids import fill_gaps, template_pyramid, without_unit
from tests.helpers.oracles import noise


def plan(height, width):
    (only,) = plan_ranges(
        (height, width), (500, 500), angles=(0.0,), scales=(1.0,), angle_range=(-1.0, 1.0), scale_range=None
    )
    return only


@pytest.mark.parametrize("largest", [1e-30, 0.7, 1.0, 3e30])
def test_the_largest_magnitude_becomes_one_half_to_one_by_a_power_of_two(largest):
    pixels = jnp.array([largest, -largest / 3, jnp.nan, jnp.inf], jnp.float32)
    scaled = without_unit(pixels)
    assert 0.5 <= float(scaled[0]) < 1 or float(scaled[0]) == 1
    assert math.frexp(float(scaled[0]))[0] == pytest.approx(math.frexp(float(pixels[0]))[0])
    assert without_unit(jnp.zeros(3)).tolist() == [0, 0, 0]


def test_integers_keep_their_unit():
    pixels = jnp.array([3, 200], jnp.uint8)
    assert without_unit(pixels) is pixels


def test_gaps_get_the_mean_of_the_other_pixels():
    assert fill_gaps(jnp.array([1.0, jnp.nan, 3.0, -jnp.inf])).tolist() == [1, 2, 3, 2]


def test_border_pixels_of_lower_levels_do_not_count():
    _, weights = template_pyramid(jnp.asarray(noise(0, 40, 64, 1)), None, plan(40, 64))
    assert [level.shape[:2] for level in weights] == [(40, 64), (20, 32), (16, 25)]
    assert weights[0].all()
    for level in weights[1:]:
        assert level[1:-1, 1:-1].all()
        assert level.sum() == (level.shape[0] - 2) * (level.shape[1] - 2)


def test_border_pixels_of_masks_do_not_count_unless_few_would_be_left():
    mask = np.zeros((40, 64, 1), np.float32)
    mask[8:33, 8:57] = 1  # pixels 4 to 16 and 4 to 28 of the next level
    _, weights = template_pyramid(jnp.asarray(noise(0, 40, 64, 1)), jnp.asarray(mask), plan(40, 64))
    half = np.asarray(weights[1][..., 0])
    assert half[6:15, 5:28].all()
    assert half[5:16, 6:27].all()
    assert np.count_nonzero(half) == 11 * 23 - 4  # without the corners, which hold less than half of the mask
    line = np.zeros_like(mask)
    line[18:22] = 1
    _, weights = template_pyramid(jnp.asarray(noise(0, 40, 64, 1)), jnp.asarray(line), plan(40, 64))
    assert all(level.any() for level in weights)
