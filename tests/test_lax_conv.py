import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax._lax_conv import conv_correlate, lax_conv
from cnn_jax._padding import NO_PADDING
from tests.helpers import oracles
from tests.helpers.oracles import noise, whole

PLAIN: dict[str, Any] = {"stride": (1, 1), "padding": NO_PADDING, "dilation": (1, 1), "precision": None}


@pytest.mark.parametrize("channels_first", [False, True])
def test_maps_come_last_or_first(channels_first):
    image, kernel = jnp.asarray(whole(0, 2, 5, 6, 3)), jnp.asarray(whole(1, 2, 3, 3, 4))
    out = conv_correlate(image, kernel, lhs_dilation=(1, 1), channels_first=channels_first, divisor=2, **PLAIN)
    expected = np.array([oracles.conv(single, kernel) / 2 for single in image])
    np.testing.assert_array_equal(jnp.moveaxis(out, 1, -1) if channels_first else out, expected)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("platform", "dtype"), [("cpu", "f32"), ("cuda", "bf16"), ("tpu", "bf16")])
def test_accelerators_round_sums_to_the_images(platform, dtype, groups):
    """In both gradients."""
    image, kernel = jnp.ones((9, 9, 16), "bfloat16"), jnp.ones((3, 3, 16 // groups, 32), "bfloat16")

    def total(image, kernel):
        return cnn.conv(image, kernel, groups=groups, method="conv").astype("float32").sum()

    lowered = jax.jit(jax.grad(total, (0, 1))).trace(image, kernel).lower(lowering_platforms=(platform,)).as_text()
    results = re.findall(r"stablehlo.convolution.* -> tensor<[\dx]+x(\w+)>", lowered)
    assert len(results) == 2
    assert set(results) == {dtype}


def test_groups_and_the_dtype_of_sums():
    image, kernel = jnp.asarray(whole(0, 1, 5, 4, 6), "bfloat16"), jnp.asarray(whole(1, 2, 3, 2, 6), "bfloat16")
    out = lax_conv(image, kernel, groups=3, **PLAIN)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out[0], oracles.conv(image[0], kernel, groups=3))


@pytest.fixture(scope="module")
def many_channels():
    """A compiled convolution of five images of 32 channels by "auto" and by "conv"."""
    images, kernel = noise(0, 5, 9, 9, 32), noise(1, 3, 3, 32, 20)

    def convolve(images, kernel):
        return [
            jax.vmap(partial(cnn.conv, padding="SAME", method=method), (0, None))(images, kernel)
            for method in ("auto", "conv")
        ]

    return jax.jit(convolve), images, kernel


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
def test_a_fault_in_many_channels_spoils_only_the_windows_that_hold_it(many_channels, fault):
    run, images, kernel = many_channels
    spoiled = images.copy()
    spoiled[2, 4, 5, 6] = fault
    for got, clean in zip(run(spoiled, kernel), run(images, kernel), strict=True):
        got = np.asarray(got)
        hit = np.zeros(got.shape, bool)
        hit[2, 3:6, 4:7] = True
        assert not np.isfinite(got[hit]).any()
        assert np.isnan(got[hit]).all() == np.isnan(fault)
        np.testing.assert_allclose(got[~hit], clean[~hit], atol=1e-4)


def test_sums_that_overflow_are_not_hidden():
    images, kernel = np.full((16, 16, 16, 64), 1e30, np.float32), 1e30 * np.sign(noise(0, 3, 3, 64, 64))
    got = jax.jit(jax.vmap(partial(cnn.conv, method="conv"), (0, None)))(images, kernel)
    plain = jax.jit(partial(lax_conv, **PLAIN))(images, kernel)
    assert not np.isfinite(plain).any()
    np.testing.assert_array_equal(got, plain)
