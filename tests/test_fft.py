"""Tiles and pieces: small limits make small images take the ways of large ones."""

import jax
import numpy as np
import pytest

from cnn_jax._cost_model import FftCosts
from cnn_jax._fft import correlate_tiles
from tests.helpers import oracles
from tests.helpers.oracles import noise

correlate = jax.jit(correlate_tiles, static_argnames="costs")
SHAPES = {"one": (1, 1, 1), "kernels": (3, 1, 2), "channels": (5, 2, 3)}
LIMITS = {
    "tiles": FftCosts(tile_sides=(8, 10), batch_pixels=2**19),
    "tiles of one image": FftCosts(tile_sides=(8, 10), batch_pixels=1),
    "whole images": FftCosts(tile_sides=(), batch_pixels=2**19),
    "whole image": FftCosts(tile_sides=(), batch_pixels=1),
    "tiles of some images": FftCosts(tile_sides=(12,), batch_pixels=300),
}
FAST = {("kernels", "tiles"), ("channels", "tiles of some images"), ("one", "whole image")}


def expected(images, kernels):
    return np.array([oracles.conv(image, kernels).transpose(2, 0, 1) for image in images])


@pytest.mark.parametrize(
    ("shape", "limits"),
    [
        pytest.param(shape, limits, marks=[] if (shape, limits) in FAST else [pytest.mark.slow])
        for shape in SHAPES
        for limits in LIMITS
    ],
)
def test_tiles_and_pieces_equal_the_reference(shape, limits):
    n, channels, kernels = SHAPES[shape]
    images, bank = noise(0, n, 23, 31, channels), noise(1, 4, 3, channels, kernels)
    np.testing.assert_allclose(correlate(images, bank, costs=LIMITS[limits]), expected(images, bank), atol=2e-5)


def test_images_of_one_piece_do_not_disturb_each_other():
    images, kernels = noise(0, 4, 12, 12, 1), noise(1, 3, 3, 1, 1)
    images[0] *= 1e30
    scales = np.array([1e30, 1, 1, 1])[:, None, None, None]
    got = correlate(images, kernels) / scales
    np.testing.assert_allclose(got, expected(images / scales, kernels), atol=1e-5)


def test_an_offset_costs_no_accuracy():
    image, kernel = noise(0, 1, 40, 40, 1), noise(1, 9, 9, 1, 1)
    image = (image + np.float32(1000)).astype(np.float32)
    got = correlate(image, kernel - kernel.mean())
    np.testing.assert_allclose(got, expected(image - np.float32(1000), kernel - kernel.mean()), atol=2e-3)
