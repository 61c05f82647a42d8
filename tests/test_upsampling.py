"""Upsampling: by JAX's resize and by repetition, and how far a NaN spreads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.layers import Upsample
from tests.helpers.oracles import noise

IMAGE = noise(0, 3, 4, 2)


@pytest.mark.parametrize("scale", [1, 2, 3, (1, 4)])
def test_nearest_repeats_pixels(scale):
    rows, columns = np.broadcast_to(scale, 2)
    expected = IMAGE.repeat(rows, 0).repeat(columns, 1)
    np.testing.assert_array_equal(Upsample(scale).apply({}, IMAGE), expected)


@pytest.mark.parametrize("scale", [1, 2, 3, (1, 4)])
def test_bilinear_interpolates_between_the_centers_of_pixels(scale):
    rows, columns = np.broadcast_to(scale, 2)
    expected = jax.image.resize(IMAGE, (3 * rows, 4 * columns, 2), "bilinear")
    np.testing.assert_allclose(Upsample(scale, "bilinear").apply({}, IMAGE), expected, atol=1e-6)


def test_a_nan_reaches_only_its_neighbors():
    image = np.zeros((5, 5), np.float32)
    image[2, 2] = np.nan
    is_nan = np.isnan(Upsample(3, "bilinear").apply({}, image))
    expected = np.zeros((15, 15), bool)
    expected[5:10, 5:10] = True  # the nine pixels, and those nearer than a pixel to its center
    np.testing.assert_array_equal(is_nan, expected)


def test_infinity_is_kept_at_the_border():
    np.testing.assert_array_equal(Upsample(2, "bilinear").apply({}, jnp.full((2, 2), jnp.inf)), jnp.inf)


def test_integers_become_floats_and_16_bits_stay():
    assert Upsample().apply({}, np.ones((2, 2), np.uint8)).dtype == jnp.float32
    assert Upsample(2, "bilinear").apply({}, jnp.ones((2, 2), jnp.bfloat16)).dtype == jnp.bfloat16
