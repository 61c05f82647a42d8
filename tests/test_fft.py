"""Tiles and pieces: small limits make small images take the ways of large ones."""

import itertools

import jax
import numpy as np
import pytest

from cnn_jax import _fft
from tests.helpers import oracles
from tests.helpers.oracles import noise


@pytest.fixture
def limits(monkeypatch):
    def limit(**values):
        for name, value in values.items():
            monkeypatch.setattr(_fft, name, value)
        _fft.best_plan.cache_clear()

    yield limit
    monkeypatch.undo()
    _fft.best_plan.cache_clear()


def correlate(images, kernels):
    return jax.jit(lambda images, kernels: _fft.fft_correlate(images, kernels))(images, kernels)


def correlated(images, kernels):
    return np.array([[oracles.conv(i, kernels[..., [k]])[..., 0] for k in range(kernels.shape[-1])] for i in images])


@pytest.mark.parametrize(("images", "channels", "kernels"), [(1, 1, 1), (3, 1, 2), (5, 2, 3)])
@pytest.mark.parametrize(("sides", "at_once"), [((8, 10), 2**19), ((8, 10), 1), ((), 2**19), ((), 1), ((12,), 300)])
def test_tiles_and_pieces_equal_the_reference(limits, images, channels, kernels, sides, at_once):
    limits(SIDES=sides, AT_ONCE=at_once)
    pictures, bank = noise(0, images, 23, 31, channels), noise(1, 4, 3, channels, kernels)
    got = correlate(pictures, bank)
    np.testing.assert_allclose(got, correlated(pictures, bank), atol=2e-5)


def test_images_at_once_do_not_disturb_each_other():
    images, kernels = noise(0, 4, 12, 12, 1), noise(1, 3, 3, 1, 1)
    images[0] *= 1e30
    scales = np.array([1e30, 1, 1, 1])[:, None, None, None]
    got = correlate(images, kernels) / scales
    np.testing.assert_allclose(got, correlated(images / scales, kernels), atol=1e-5)


def test_an_offset_costs_no_accuracy():
    image, kernel = noise(0, 1, 40, 40, 1), noise(1, 9, 9, 1, 1)
    image = (image + np.float32(1000)).astype(np.float32)
    got = correlate(image, kernel - kernel.mean())
    np.testing.assert_allclose(got, correlated(image - np.float32(1000), kernel - kernel.mean()), atol=2e-3)


@pytest.mark.parametrize("n", [1, 2, 11, 13, 97, 511, 1025, 2448])
def test_good_lengths_have_small_factors(n):
    good = _fft.next_fast_len(n)
    smooth = [a * b * c * d for a, b, c, d in itertools.product(*[[p**k for k in range(13)] for p in (2, 3, 5, 7)])]
    assert good == min(s for s in smooth if s >= n)


@pytest.mark.parametrize("size", [(5, 5), (64, 64), (100, 2000), (2448, 3264)])
@pytest.mark.parametrize("kernel", [(1, 1), (5, 3), (5, 5)])
@pytest.mark.parametrize("many", [1, 300])
def test_tiles_hold_the_kernel_and_cover_the_image(size, kernel, many):
    image, bank = (many, *size, 1), (*kernel, 1, many)
    tile, at_once, _ = _fft.best_plan(image, bank)
    assert all(k <= t <= _fft.next_fast_len(n) for k, t, n in zip(kernel, tile, size, strict=True))
    assert 1 <= at_once <= many
    assert tile[0] * tile[1] * many <= _fft.MOST_SPECTRA
    for count, t, k, n in zip(_fft._counts(image, bank, tile), tile, kernel, size, strict=True):
        assert count * (t - k + 1) >= n - k + 1 > (count - 1) * (t - k + 1)


def test_too_many_kernels_and_channels_take_the_smallest_tiles():
    tile, at_once, _ = _fft.best_plan((8, 500, 500, 512), (5, 5, 512, 512))
    assert (tile, at_once) == ((32, 32), 1)
