import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._faults import spoil_windows
from tests.helpers.oracles import whole


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel_axis", [1, 3])
@pytest.mark.parametrize(
    ("window", "stride", "dilation"),
    [((1, 1), (1, 1), (1, 1)), ((3, 4), (1, 1), (1, 1)), ((2, 3), (2, 1), (3, 2)), ((9, 12), (1, 1), (1, 1))],
)
def test_windows_that_hold_a_fault_are_spoiled(fault, channel_axis, window, stride, dilation):
    image = whole(0, 2, 9, 12, 3)
    image[1, 3, 5, 2] = fault
    rows, columns = (
        (size - (n - 1) * gap - 1) // step + 1
        for size, n, gap, step in zip((9, 12), window, dilation, stride, strict=True)
    )
    out = np.ones((2, rows, columns, 4), np.float32)
    expected = out.copy()
    for y in range(rows):
        for x in range(columns):
            top, left = y * stride[0], x * stride[1]
            held = image[1, top :: dilation[0], left :: dilation[1]][: window[0], : window[1]]
            if not np.isfinite(held).all():
                expected[1, y, x] = np.nan
    got = spoil_windows(
        jnp.moveaxis(out, 3, channel_axis), jnp.asarray(image), window, stride, dilation, channel_axis=channel_axis
    )
    np.testing.assert_array_equal(jnp.moveaxis(got, channel_axis, 3), expected)


def test_sums_that_overflow_spoil_nothing():
    image = jnp.full((1, 4, 4, 1), 3e38)
    out = jnp.ones((1, 3, 3, 2))
    np.testing.assert_array_equal(spoil_windows(out, image, (2, 2), (1, 1), (1, 1), channel_axis=3), out)
