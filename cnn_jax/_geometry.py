"""Sizes of sliding windows, and the zeros around and between pixels."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._dtypes import accumulation_dtype
from ._typing import Pads, Pair


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


def correlation_extents(
    image_size: Sequence[int],
    kernel_size: Sequence[int],
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair,
) -> Extents:
    """The sizes that follow from the options of a correlation."""
    spread_size = dilated_size(image_size, lhs_dilation)
    padded_size = spread_size[0] + sum(padding[0]), spread_size[1] + sum(padding[1])
    effective_kernel_size = dilated_size(kernel_size, dilation)
    rows, columns = ((n - k) // s + 1 for n, k, s in zip(padded_size, effective_kernel_size, stride, strict=True))
    return Extents(padded_size, effective_kernel_size, (rows, columns))


def pad_and_dilate(images: Array, padding: Pads, lhs_dilation: Pair) -> Array:
    """Images (N, H, W, C) with zeros around and between their pixels, in the dtype of sums; negative pads crop."""
    images = images.astype(accumulation_dtype(images.dtype))
    zero = jnp.zeros((), images.dtype)
    rows = (*padding[0], lhs_dilation[0] - 1)
    columns = (*padding[1], lhs_dilation[1] - 1)
    return lax.pad(images, zero, [(0, 0, 0), rows, columns, (0, 0, 0)])
