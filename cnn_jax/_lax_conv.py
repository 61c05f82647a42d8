"""Correlation by XLA's convolution: fast for many channels, and on accelerators."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._dtypes import accumulation_dtype
from ._typing import Pads, Pair


def conv_correlate(
    image: Array,
    kernel: Array,
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair,
    channels_first: bool,
    divisor: int,
    precision: lax.PrecisionLike,
) -> Array:
    """The algorithm "conv" of `_correlate.Algorithm`."""
    out = lax_conv(
        image,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        lhs_dilation=lhs_dilation,
        precision=precision,
    )
    out = jnp.moveaxis(out, -1, 1) if channels_first else out
    return out / divisor


def lax_conv(
    image: Array,
    kernel: Array,
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair = (1, 1),
    groups: int = 1,
    batch_groups: int = 1,
    precision: lax.PrecisionLike,
) -> Array:
    """`lax.conv_general_dilated` of images (N, H, W, C) and kernels (h, w, C // groups, K), in the dtype of sums.

    `batch_groups` splits the images instead of the channels, and the kernels, into groups.
    """
    return lax.conv_general_dilated(
        image,
        kernel,
        stride,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        batch_group_count=batch_groups,
        precision=precision,
        preferred_element_type=accumulation_dtype(image.dtype),
    )
