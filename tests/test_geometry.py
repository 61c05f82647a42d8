from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cnn_jax._geometry import (
    Spacing,
    correlation_extents,
    dilated_size,
    image_gradient_spacing,
    kernel_gradient_spacing,
    pad_and_dilate,
    spacing_of,
)
from tests.helpers import oracles
from tests.helpers.oracles import layouts, whole


def test_dilated_pixels_cover_the_gaps_between_them():
    assert dilated_size((1, 4), (5, 3)) == (1, 10)


@given(layout=layouts(dilated=True, wide_border=True))
def test_positions_are_as_many_as_the_windows_of_the_reference(layout):
    if isinstance(layout["padding"], str):
        layout["padding"] = ((2, 1), (0, 3))
    shape = tuple(size + 8 for size in layout.pop("shape"))
    rows, columns = oracles.both_axes(shape, **layout)
    window = layout.pop("window")
    extents = correlation_extents(shape, window, lhs_dilation=(1, 1), **layout)
    assert extents.output_size == (len(rows), len(columns))
    assert extents.effective_kernel_size == dilated_size(window, layout["dilation"])


@given(layout=layouts(dilated=True, wide_border=True), lhs_dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_gradients_have_the_size_of_their_arguments(layout, lhs_dilation):
    if isinstance(layout["padding"], str):
        layout["padding"] = ((2, 1), (0, 3))
    size, window = layout.pop("shape"), layout.pop("window")
    size = (size[0] + 8, size[1] + 8)
    spacing = Spacing(**layout, lhs_dilation=lhs_dilation)
    output_size = correlation_extents(size, window, **spacing).output_size
    by_image = image_gradient_spacing(size, window, **spacing)
    assert correlation_extents(output_size, window, **by_image).output_size == size
    by_kernel = kernel_gradient_spacing(size, window, **spacing)
    assert correlation_extents(size, output_size, **by_kernel).output_size == window


def test_the_spacing_is_told_from_other_options():
    spacing = Spacing(stride=(1, 2), padding=((0, 1), (2, 3)), dilation=(3, 4), lhs_dilation=(5, 6))
    options: dict[str, Any] = {"method": "conv", **spacing}
    assert spacing_of(cast(Spacing, options)) == spacing


@given(st.integers(1, 3), st.integers(1, 3))
def test_the_padded_size_is_that_of_the_padded_image(down, across):
    images = whole(0, 2, 4, 5, 1)
    padding, lhs_dilation = ((1, 2), (0, 3)), (down, across)
    padded = pad_and_dilate(jnp.asarray(images), padding, lhs_dilation)
    extents = correlation_extents(
        (4, 5), (1, 1), stride=(1, 1), padding=padding, dilation=(1, 1), lhs_dilation=lhs_dilation
    )
    assert padded.shape[1:3] == extents.padded_size
    np.testing.assert_array_equal(padded[:, 1:-2:down, :-3:across], images)
    assert np.count_nonzero(padded) == np.count_nonzero(images)


def test_negative_pads_crop_and_16_bits_become_32():
    images = jnp.asarray(whole(0, 1, 4, 5, 1), "bfloat16")
    padded = pad_and_dilate(images, ((-1, 0), (0, -2)), (1, 1))
    assert padded.dtype == jnp.float32
    np.testing.assert_array_equal(padded, images[:, 1:, :3])
