"""Tiles, groups and runs of kernels: small limits make small images take the ways of large ones."""

import itertools

import jax
import numpy as np
import pytest
import reference
from reference import noise

from cnn_jax import fourier


@pytest.fixture
def limits(monkeypatch):
    def clear():
        fourier.best_tile.cache_clear()
        fourier._groups.cache_clear()

    def limit(**values):
        for name, value in values.items():
            monkeypatch.setattr(fourier, name, value)
        clear()

    yield limit
    monkeypatch.undo()
    clear()


def correlated(images, kernels):
    return np.array([[reference.conv(i, kernels[..., [k]])[..., 0] for i in images] for k in range(kernels.shape[-1])])


@pytest.mark.parametrize(("images", "channels", "kernels"), [(1, 1, 1), (3, 1, 2), (2, 2, 5)])
@pytest.mark.parametrize(("tiles", "most"), [((8, 10), 2**26), ((8, 10), 2**9), ((), 2**26), ((12,), 2**11)])
def test_tiles_and_runs_equal_the_reference(limits, images, channels, kernels, tiles, most):
    limits(TILES=tiles, MOST_BYTES=most, GROUP_COST=0)
    pictures, bank = noise(0, images, 23, 31, channels), noise(1, 4, 3, channels, kernels)
    got = jax.jit(lambda a, b: fourier.correlate(a, b))(pictures, bank)
    np.testing.assert_allclose(got, correlated(pictures, bank), atol=2e-5)


def test_neighbours_in_a_transform_do_not_disturb_each_other():
    images, kernels = noise(0, 2, 12, 12, 1), noise(1, 3, 3, 1, 1)
    images[0] *= 1e30
    got = np.asarray(fourier.correlate(images, kernels))
    np.testing.assert_allclose(
        got[0] / np.array([1e30, 1])[:, None, None],
        correlated(images / np.float64([[[[1e30]]], [[[1]]]]), kernels)[0],
        atol=1e-5,
    )


def test_an_offset_costs_no_accuracy():
    image, kernel = noise(0, 1, 40, 40, 1), noise(1, 9, 9, 1, 1)
    image = (image + np.float32(1000)).astype(np.float32)
    got = fourier.correlate(image, kernel - kernel.mean())
    np.testing.assert_allclose(got, correlated(image - np.float32(1000), kernel - kernel.mean()), atol=2e-3)


@pytest.mark.parametrize("n", [1, 2, 11, 13, 97, 511, 1025, 2448])
def test_good_lengths_have_small_factors(n):
    good = fourier.good_length(n)
    smooth = [a * b * c * d for a, b, c, d in itertools.product(*[[p**k for k in range(13)] for p in (2, 3, 5, 7)])]
    assert good == min(s for s in smooth if s >= n)


@pytest.mark.parametrize("size", [(5, 5), (64, 64), (100, 2000), (2448, 3264)])
@pytest.mark.parametrize("kernel", [(1, 1), (5, 3), (5, 5)])
def test_tiles_hold_the_kernel_and_cover_the_image(size, kernel):
    tile = fourier.best_tile(size, kernel)
    assert all(k <= t <= fourier.good_length(n) for k, t, n in zip(kernel, tile, size, strict=True))
    assert fourier.pixels(size, kernel, tile) >= size[0] * size[1]
