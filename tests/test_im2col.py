"""Chunks of patches: a small limit makes few images take the way of many."""

import numpy as np
import pytest

from cnn_jax import _im2col
from tests.helpers import oracles
from tests.helpers.oracles import noise


def plain(images, kernels, stride, dilation):
    return np.array([oracles.conv(image, kernels, stride=stride, dilation=dilation) for image in images])


@pytest.mark.parametrize("chunk", [1, 700, 10**6])
@pytest.mark.parametrize(("stride", "dilation"), [((1, 1), (1, 1)), ((2, 1), (1, 3))])
def test_some_images_at_a_time_equal_the_reference(monkeypatch, chunk, stride, dilation):
    monkeypatch.setattr(_im2col, "CHUNK", chunk)
    images, kernels = noise(0, 7, 9, 10, 3), noise(1, 3, 2, 3, 4)
    expected = plain(images, kernels, stride, dilation)
    counts = expected.shape[1:3]
    got = _im2col.im2col_batched(images, kernels, output_size=counts, stride=stride, dilation=dilation, precision=None)
    np.testing.assert_allclose(got, expected, atol=5e-5)


@pytest.mark.parametrize("chunk", [1, 700, 10**6])
@pytest.mark.parametrize("kernels", [2, 40])
@pytest.mark.parametrize(("stride", "dilation"), [((1, 1), (1, 1)), ((2, 1), (1, 3))])
def test_some_channels_at_a_time_equal_the_reference(monkeypatch, chunk, kernels, stride, dilation):
    monkeypatch.setattr(_im2col, "CHUNK", chunk)
    images, bank = noise(0, 3, 9, 10, 7), noise(1, 7, 2, 7, kernels)
    expected = plain(images, bank, stride, dilation)
    options = {"output_size": expected.shape[1:3], "stride": stride, "dilation": dilation, "precision": None}
    got = _im2col.im2col_over_channels(images.transpose(3, 1, 2, 0), bank.transpose(2, 0, 1, 3), **options)
    np.testing.assert_allclose(np.moveaxis(got, 2, 0), expected, atol=5e-5)


def test_no_images_have_no_dot_products():
    options = {"output_size": (6, 6), "stride": (1, 1), "dilation": (1, 1), "precision": None}
    got = _im2col.im2col_batched(noise(0, 0, 8, 8, 2), noise(1, 3, 3, 2, 4), **options)
    assert got.shape == (0, 6, 6, 4)


@pytest.mark.parametrize(("count", "numbers"), [(1, 1), (7, 100), (256, 1000), (10, 10**7), (9, 2**19)])
def test_chunks_are_few_and_even(count, numbers):
    some = _im2col._at_a_time(count, numbers)
    assert 1 <= some <= count
    assert some == 1 or some * numbers <= 2 * _im2col.CHUNK
    assert -(-count // some) * some - count < some
