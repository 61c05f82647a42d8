"""Correlation by XLA's convolution: fast for many channels, and on accelerators."""

import functools
import math
from typing import NotRequired, Unpack

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ._dtypes import accumulation_dtype
from ._geometry import Spacing, correlation_extents, has_static_sizes, pad_and_dilate
from ._typing import Pads, Pair, Shape


class ConvOptions(Spacing):
    """The keyword arguments of `lax_conv`."""

    precision: lax.PrecisionLike
    groups: NotRequired[int]
    batch_groups: NotRequired[int]


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
    options = {"stride": stride, "padding": padding, "dilation": dilation, "lhs_dilation": lhs_dilation}
    convolve = functools.partial(fusible_conv, precision=precision, **options)
    if has_static_sizes(image, kernel) and _has_rows_for_tpus(image.shape, kernel.shape, **options):
        rows = functools.partial(row_conv, precision=precision, **options)
        out = lax.platform_dependent(image, kernel, tpu=rows, default=convolve)
    else:
        out = convolve(image, kernel)
    out = jnp.moveaxis(out, -1, 1) if channels_first else out
    return out / divisor


# XLA:TPU takes up to minutes to compile a convolution of few channels with a large kernel. It moves more bytes than one
# whose channels are the rows of the kernel: for 16x256x256x1, eight kernels of 9x9, v5e and precision "highest" 106 s
# and 608 MB; with rows 4 s and 409 MB. 1x480x640x1 with 64x64: 10 s with rows. In gradients the kernel may be a whole
# map, whose rows would only move more bytes.
# Report: none known.
# Versions: seen in libtpu 0.0.50.1 (jaxlib 0.12.0.1).
# Ends: when `python -m experiments.accelerators` shows no fewer seconds with rows.
FEW_CHANNELS = 8
LARGE_KERNEL_PIXELS = 25
MAX_ROWS = 64


def _has_rows_for_tpus(image: Shape, kernel: Shape, **spacing: Unpack[Spacing]) -> bool:
    *kernel_size, channels, _ = kernel
    pixels = math.prod(kernel_size)
    positions = math.prod(correlation_extents(image[1:3], kernel_size, **spacing).output_size)
    is_large = LARGE_KERNEL_PIXELS <= pixels < positions and kernel_size[0] <= MAX_ROWS
    return is_large and channels < FEW_CHANNELS


def row_conv(
    image: Array, kernel: Array, *, precision: lax.PrecisionLike, **spacing: Unpack[Spacing]
) -> Float[Array, "N H2 W2 K"]:
    """`lax_conv` as a convolution of one dimension, along rows, whose channels are the kernel's rows and channels."""
    h, w, channels, kernels = kernel.shape
    rows, columns = correlation_extents(image.shape[1:3], (h, w), **spacing).output_size
    padded = pad_and_dilate(image, spacing["padding"], spacing["lhs_dilation"]).astype(image.dtype)
    stride, dilation = spacing["stride"], spacing["dilation"]
    reach = (rows - 1) * stride[0] + 1
    starts = [i * dilation[0] for i in range(h)]
    bands = [lax.slice_in_dim(padded, start, start + reach, stride[0], axis=1) for start in starts]
    out = lax.conv_general_dilated(
        jnp.concatenate(bands, axis=3).reshape(-1, padded.shape[2], h * channels),
        kernel.swapaxes(0, 1).reshape(w, h * channels, kernels),
        stride[1:],
        "VALID",
        rhs_dilation=dilation[1:],
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=precision,
        preferred_element_type=image.dtype,
    )
    return out.reshape(-1, rows, columns, kernels).astype(accumulation_dtype(image.dtype))


# Accelerators add 16-bit products in float32 and round once. XLA:GPU fuses bias and activation into a convolution, and
# finds cuDNN's gradient of the images, only where the result has their dtype.
# Report: none known.
# Versions: seen in jaxlib 0.12.0.1, compiling for an H100.
# Ends: when `python -m experiments.accelerators` shows as many fused calls without it.
def fusible_conv(image: Array, kernel: Array, **options: Unpack[ConvOptions]) -> Array:
    """`lax_conv`; accelerators round its result to the dtype of the images."""
    dtype = accumulation_dtype(image.dtype)
    if image.dtype == dtype:
        return lax_conv(image, kernel, **options)

    def convolve(image: Array, kernel: Array) -> Array:
        return lax_conv(image, kernel, out_dtype=image.dtype, **options).astype(dtype)

    return lax.platform_dependent(image, kernel, cpu=functools.partial(lax_conv, **options), default=convolve)


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
    out_dtype: jnp.dtype | None = None,
) -> Array:
    """`lax.conv_general_dilated` of images (N, H, W, C) and kernels (h, w, C // groups, K), by default in sums' dtype.

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
        preferred_element_type=out_dtype or accumulation_dtype(image.dtype),
    )
