"""Loops and registers: small limits make small kernels take the ways of large ones."""

import jax
import numpy as np
import pytest

from cnn_jax._cost_model import CpuCosts
from cnn_jax._padding import NO_PADDING
from cnn_jax._shift import shift_correlate
from tests.helpers import oracles
from tests.helpers.oracles import whole


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize(
    "costs",
    [CpuCosts(), CpuCosts(shift_fused_products=4), CpuCosts(register_lanes=2)],
    ids=["one loop", "several loops", "kernels side by side"],
)
def test_shifted_sums_equal_the_reference(costs, channels_first):
    image, kernel = whole(0, 2, 7, 8, 2), whole(1, 2, 3, 2, 4)
    options = {"stride": (2, 1), "padding": NO_PADDING, "dilation": (1, 2), "lhs_dilation": (1, 1)}
    out = jax.jit(
        lambda image, kernel: shift_correlate(
            image, kernel, channels_first=channels_first, divisor=2, precision=None, costs=costs, **options
        )
    )(image, kernel)
    expected = np.array([oracles.conv(i, kernel, stride=(2, 1), dilation=(1, 2)) / 2 for i in image])
    np.testing.assert_array_equal(np.moveaxis(out, 1, -1) if channels_first else out, expected)
