"""Correlation by XLA's convolution: fast for many channels, and on accelerators."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._cost_model import all_cores_pay
from ._dtypes import accumulation_dtype
from ._typing import Pads, Pair
from ._xla import convolve_on_all_cores


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
    all_cores: bool = True,
) -> Array:
    """The algorithm "conv" of `_correlate.Algorithm`; on the CPU on all cores where that is faster."""
    convolve = functools.partial(
        lax_conv, stride=stride, padding=padding, dilation=dilation, lhs_dilation=lhs_dilation, precision=precision
    )
    result = jax.eval_shape(convolve, image, kernel)
    outputs = result.shape[1] * result.shape[2] * result.shape[3]
    all_cores = all_cores and isinstance(image.shape[3], int)  # not the symbolic batch size of jax.export
    if all_cores and image.dtype == jnp.float32 and all_cores_pay(image.shape[3], outputs, lhs_dilation):
        on_cpu = functools.partial(convolve_on_all_cores, convolve)
        out = lax.platform_dependent(image, kernel, cpu=on_cpu, default=convolve)
    else:
        out = convolve(image, kernel)
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
