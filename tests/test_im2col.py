"""Chunks of patches: a small limit makes few images take the way of many."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._im2col import chunk_size, im2col_batched, im2col_over_channels
from tests.helpers import oracles
from tests.helpers.oracles import noise

CHUNK_NUMBERS = 2**20
OPTIONS: list[dict[str, Any]] = [
    {"stride": (1, 1), "dilation": (1, 1)},
    {"stride": (2, 1), "dilation": (1, 3)},
]


def expected(images, kernels, options):
    return np.array([oracles.conv(image, kernels, **options) for image in images])


@pytest.mark.parametrize("chunk", [1, 700, 10**6])
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "stride and dilation"])
def test_some_images_at_a_time_equal_the_reference(chunk, options):
    images, kernels = noise(0, 7, 9, 10, 3), noise(1, 3, 2, 3, 4)
    want = expected(images, kernels, options)
    run = partial(im2col_batched, output_size=want.shape[1:3], precision=None, chunk_numbers=chunk, **options)
    np.testing.assert_allclose(jax.jit(run)(images, kernels), want, atol=5e-5)


@pytest.mark.parametrize("chunk", [1, 700, 10**6])
@pytest.mark.parametrize("kernels", [2, 40])
@pytest.mark.parametrize("lanes", [1, 8], ids=["channels first", "pixels first"])
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "stride and dilation"])
def test_some_channels_at_a_time_equal_the_reference(chunk, kernels, lanes, options):
    images, bank = noise(0, 3, 9, 10, 7), noise(1, 7, 2, 7, kernels)
    want = expected(images, bank, options)
    run = partial(im2col_over_channels, output_size=want.shape[1:3], precision=None, chunk_numbers=chunk, **options)
    run = partial(run, register_lanes=lanes)
    got = jax.jit(run)(images.transpose(3, 1, 2, 0), bank.transpose(2, 0, 1, 3))
    np.testing.assert_allclose(np.moveaxis(got, 2, 0), want, atol=5e-5)


def test_no_images_have_no_dot_products():
    options: dict[str, Any] = OPTIONS[0] | {"output_size": (6, 6), "precision": None, "chunk_numbers": CHUNK_NUMBERS}
    got = im2col_batched(jnp.zeros((0, 8, 8, 2)), jnp.zeros((3, 3, 2, 4)), **options)
    assert got.shape == (0, 6, 6, 4)


@pytest.mark.parametrize(("count", "numbers"), [(1, 1), (7, 100), (256, 1000), (10, 10**7), (9, 2**19)])
def test_chunks_are_few_and_even(count, numbers):
    chunk = chunk_size(count, numbers, CHUNK_NUMBERS)
    assert 1 <= chunk <= count
    assert chunk == 1 or chunk * numbers <= 2 * CHUNK_NUMBERS
    assert -(-count // chunk) * chunk - count < chunk
