"""Correlation by XLA's convolution: fast for many channels, and on accelerators."""

import functools
from typing import NotRequired, Unpack

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._dtypes import accumulation_dtype
from ._geometry import Spacing, has_static_sizes, pad_and_dilate
from ._tpu_conv import TpuConv, tpu_form
from ._typing import Pads, Pair


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
    spacing = Spacing(stride=stride, padding=padding, dilation=dilation, lhs_dilation=lhs_dilation)
    convolve = functools.partial(fusible_conv, precision=precision, **spacing)
    is_static = has_static_sizes(image, kernel)
    form = tpu_form(image.shape, kernel.shape, precision=precision, **spacing) if is_static else None
    if form is None:
        out = convolve(image, kernel)
    else:
        on_tpu = functools.partial(_padded_conv, form, precision=precision, **spacing)
        out = lax.platform_dependent(image, kernel, tpu=on_tpu, default=convolve)
    out = jnp.moveaxis(out, -1, 1) if channels_first else out
    return out / divisor


def _padded_conv(
    form: TpuConv, image: Array, kernel: Array, *, precision: lax.PrecisionLike, **spacing: Unpack[Spacing]
) -> Array:
    """A convolution in a form that takes images with their zeros."""
    padded = pad_and_dilate(image, spacing["padding"], spacing["lhs_dilation"]).astype(image.dtype)
    return form(padded, kernel, stride=spacing["stride"], dilation=spacing["dilation"], precision=precision)


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
