"""Sums of groups side by side: several loops, chunks of images, and zeros between pixels."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._cost_model import CpuCosts
from cnn_jax._group_costs import GroupCosts
from cnn_jax._group_sums import shift_groups, sum_groups
from cnn_jax._padding import NO_PADDING
from tests.helpers import oracles
from tests.helpers.oracles import whole

OPTIONS: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2), "lhs_dilation": (1, 1)}


@pytest.mark.parametrize(
    "correlate",
    [
        partial(shift_groups, costs=CpuCosts()),
        partial(shift_groups, costs=CpuCosts(shift_fused_products=5)),
        partial(sum_groups, costs=GroupCosts()),
        partial(sum_groups, costs=GroupCosts(sum_fused_products=2)),
    ],
    ids=["one loop", "several loops", "one chunk", "several chunks"],
)
@pytest.mark.parametrize(("groups", "channels", "kernels"), [(4, 1, 1), (2, 3, 2)])
def test_groups_side_by_side_equal_the_reference(correlate, groups, channels, kernels):
    images, kernel = whole(0, 2, 7, 8, groups, channels), whole(1, 3, 2, groups, channels, kernels)
    got = jax.jit(partial(correlate, divisor=2, **OPTIONS))(images, kernel)
    for group in range(groups):
        for image, maps in zip(images, np.asarray(got), strict=True):
            expected = oracles.conv(
                image[:, :, group], kernel[:, :, group], stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(1, 2)
            )
            np.testing.assert_array_equal(maps[:, :, group], expected / 2)


@pytest.mark.parametrize(("channels", "size"), [(1, 1), (7, 7), (8, 8), (9, 5), (17, 6)])
def test_steps_of_equal_size_hold_all_images(channels, size):
    """In the gradient of kernels the channels are images. One image is not filled up to a whole step."""
    images, kernel = whole(0, 1, 5, 5, 2, channels), whole(1, 4, 4, 2, channels, 1)
    options = OPTIONS | {"stride": (1, 1), "padding": NO_PADDING, "dilation": (1, 1)}
    run = partial(sum_groups, divisor=1, **options)
    got = jax.jit(run)(images, kernel)
    for group in range(2):
        expected = oracles.conv(images[0, :, :, group], kernel[:, :, group])
        np.testing.assert_array_equal(got[0, :, :, group], expected)
    steps = -(-channels // size)
    assert re.search(rf"f32\[{steps},{size},1,5,5,2\]", str(jax.make_jaxpr(run)(images, kernel)))


@pytest.mark.parametrize("correlate", [shift_groups, sum_groups])
def test_zeros_between_pixels_cropped_borders_and_16_bits(correlate):
    images, kernel = whole(0, 1, 4, 5, 3, 1), whole(1, 2, 2, 3, 1, 1)
    spread = np.zeros((7, 5, 3), np.float32)
    spread[::2] = images[0, ..., 0]
    options = OPTIONS | {"stride": (1, 1), "padding": ((-1, 0), (0, -2)), "dilation": (1, 1), "lhs_dilation": (2, 1)}
    got = correlate(jnp.asarray(images, "bfloat16"), jnp.asarray(kernel, "bfloat16"), divisor=1, **options)
    assert got.dtype == jnp.float32
    expected = oracles.conv(spread[1:, :3], kernel[..., 0].swapaxes(2, 3), groups=3)
    np.testing.assert_array_equal(got[0, ..., 0], expected)
