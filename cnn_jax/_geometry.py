"""Sizes of sliding windows, and the zeros around and between pixels."""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict, Unpack

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._dtypes import accumulation_dtype
from ._typing import Pads, Pair


class Spacing(TypedDict):
    """The steps and borders of a correlation."""

    stride: Pair
    padding: Pads
    dilation: Pair
    lhs_dilation: Pair


def spacing_of(options: Spacing) -> Spacing:
    """The spacing alone, of options that hold more."""
    return Spacing(
        stride=options["stride"],
        padding=options["padding"],
        dilation=options["dilation"],
        lhs_dilation=options["lhs_dilation"],
    )


class Extents(NamedTuple):
    """Rows and columns of the parts of a correlation."""

    padded_size: Pair
    """The image with the zeros around and between its pixels."""
    effective_kernel_size: Pair
    """The kernel with the gaps between its pixels."""
    output_size: Pair
    """The positions of the kernel."""


def dilated_size(size: Sequence[int], dilation: Pair) -> Pair:
    """Rows and columns that pixels cover when neighbors are `dilation` apart: (size - 1) * dilation + 1.

    >>> dilated_size((3, 4), (2, 1))
    (5, 4)
    """
    rows, columns = ((n - 1) * d + 1 for n, d in zip(size, dilation, strict=True))
    return rows, columns


def correlation_extents(image_size: Sequence[int], kernel_size: Sequence[int], **spacing: Unpack[Spacing]) -> Extents:
    """The sizes that follow from the options of a correlation."""
    spread_size = dilated_size(image_size, spacing["lhs_dilation"])
    padding = spacing["padding"]
    padded_size = spread_size[0] + sum(padding[0]), spread_size[1] + sum(padding[1])
    effective_kernel_size = dilated_size(kernel_size, spacing["dilation"])
    rows, columns = (
        (n - k) // s + 1 for n, k, s in zip(padded_size, effective_kernel_size, spacing["stride"], strict=True)
    )
    return Extents(padded_size, effective_kernel_size, (rows, columns))


def image_gradient_spacing(
    image_size: Sequence[int], kernel_size: Sequence[int], **spacing: Unpack[Spacing]
) -> Spacing:
    """The spacing of the correlation of cotangents with rotated kernels that gives the cotangent of the images."""
    rows, columns = (
        (reach - 1 - low, size + low - ct) for size, reach, ct, low in _gradient_sizes(image_size, kernel_size, spacing)
    )
    return Spacing(
        stride=spacing["lhs_dilation"],
        padding=(rows, columns),
        dilation=spacing["dilation"],
        lhs_dilation=spacing["stride"],
    )


def kernel_gradient_spacing(
    image_size: Sequence[int], kernel_size: Sequence[int], **spacing: Unpack[Spacing]
) -> Spacing:
    """The spacing of the correlation of images with cotangents that gives the cotangent of the kernels."""
    rows, columns = (
        (low, reach - 1 + ct - size - low) for size, reach, ct, low in _gradient_sizes(image_size, kernel_size, spacing)
    )
    return Spacing(
        stride=spacing["dilation"],
        padding=(rows, columns),
        dilation=spacing["stride"],
        lhs_dilation=spacing["lhs_dilation"],
    )


def _gradient_sizes(
    image_size: Sequence[int], kernel_size: Sequence[int], spacing: Spacing
) -> list[tuple[int, int, int, int]]:
    """Of each axis: the sizes of the dilated image, kernel and cotangent, and the zeros before the image."""
    output_size = correlation_extents(image_size, kernel_size, **spacing).output_size
    image_reach = dilated_size(image_size, spacing["lhs_dilation"])
    kernel_reach = dilated_size(kernel_size, spacing["dilation"])
    ct_reach = dilated_size(output_size, spacing["stride"])
    before = [low for low, _ in spacing["padding"]]
    return list(zip(image_reach, kernel_reach, ct_reach, before, strict=True))


def pad_and_dilate(images: Array, padding: Pads, lhs_dilation: Pair, *, row_axis: int = 1) -> Array:
    """Images with zeros around and between their pixels, in the dtype of sums; negative pads crop.

    Rows and columns are the axes from `row_axis` on: of (N, H, W, C) by default.
    """
    images = images.astype(accumulation_dtype(images.dtype))
    zero = jnp.zeros((), images.dtype)
    config = [(0, 0, 0)] * images.ndim
    config[row_axis] = (*padding[0], lhs_dilation[0] - 1)
    config[row_axis + 1] = (*padding[1], lhs_dilation[1] - 1)
    return lax.pad(images, zero, config)


def has_static_sizes(*arrays: Array) -> bool:
    """Whether every size is a number, and not a symbol of `jax.export`."""
    return all(isinstance(size, int) for array in arrays for size in array.shape)
