"""Bytes to pixels and back."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.data import pixels

BYTES = np.arange(256, dtype=np.uint8)


def test_pixels_are_in_range_and_evenly_spaced():
    values = pixels.from_uint8(BYTES)
    assert values.dtype == np.float32
    assert (values[0], values[-1]) == (-1, 1)
    np.testing.assert_allclose(np.diff(values), 2 / 255, atol=1e-6)


def test_jax_arrays_give_the_same_pixels_in_jax():
    values = jax.jit(pixels.from_uint8)(jnp.asarray(BYTES))
    assert isinstance(values, jax.Array)
    np.testing.assert_allclose(values, pixels.from_uint8(BYTES), atol=1e-7)


def test_opacity_is_from_0_to_1_and_colors_are_those_of_from_uint8():
    rgba = pixels.rgba_from_uint8(np.repeat(BYTES[:, None], 4, axis=1))
    np.testing.assert_allclose(rgba[:, :3], np.repeat(pixels.from_uint8(BYTES)[:, None], 3, axis=1), atol=1e-7)
    np.testing.assert_array_equal(rgba[:, 3], BYTES.astype(np.float32) / 255)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bytes_come_back(dtype):
    np.testing.assert_array_equal(pixels.to_uint8(pixels.from_uint8(BYTES).astype(dtype)), BYTES)


def test_pixels_out_of_range_are_clipped_and_nan_is_gray():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        levels = pixels.to_uint8(np.array([-2, 2, -np.inf, np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(levels, [0, 255, 0, 255, 128])
    assert levels.dtype == np.uint8
