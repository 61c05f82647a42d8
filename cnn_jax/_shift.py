"""Correlation as a sum of shifted products: fast on the CPU for few channels and small kernels."""

import functools
import itertools
import operator
from collections.abc import Callable
from typing import TypeVar

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._cost_model import CPU_COSTS, CpuCosts
from ._dtypes import accumulation_dtype
from ._geometry import pad_and_dilate
from ._typing import Pads, Pair
from ._xla import no_fusion

Images = TypeVar("Images")
Tap = tuple[int, int, int]  # channel, row and column of a kernel's number


def shift_correlate(
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
    costs: CpuCosts = CPU_COSTS,
) -> Array:
    """The algorithm "shift" of `_correlate.Algorithm`: adds shifted images, each times one number of the kernel.

    The products are fused into loops of `costs.shift_fused_products`. `precision` has no effect on them.
    """
    kernel = kernel.astype(accumulation_dtype(kernel.dtype))
    add_products = functools.partial(
        add_shifted_products,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        divisor=divisor,
        fused_products=costs.shift_fused_products,
    )
    # Registers are filled either with columns of whole maps or with kernels stored side by side.
    if not channels_first and kernel.shape[3] >= costs.register_lanes:
        image = pad_and_dilate(image, padding, lhs_dilation)
        return add_products(image, channel_of=_one_channel, kernel_axis=3, image_size=image.shape[1:3])
    maps = jnp.moveaxis(image, 3, 0)[:, :, None]  # split here, not within every loop
    maps = pad_and_dilate(maps, padding, lhs_dilation, row_axis=3)
    out = add_products(maps, channel_of=operator.getitem, kernel_axis=1, image_size=maps.shape[3:])
    return out if channels_first else jnp.moveaxis(out, 1, -1)


def _one_channel(image: Array, channel: int) -> Array:
    return image[..., channel, None]


def add_shifted_products(
    images: Images,
    kernel: Array,
    *,
    channel_of: Callable[[Images, int], Array],
    kernel_axis: int,
    image_size: tuple[int, ...],
    stride: Pair,
    dilation: Pair,
    divisor: int,
    fused_products: int,
) -> Array:
    """The sums of shifted channels times the kernel's numbers, over the divisor.

    Args:
      images: images, in the form that `channel_of` takes.
      kernel: kernels (h, w, C, K).
      channel_of: a channel of the images by its index: (N, 1, H, W), (N, H, W, 1), or (N, H, W, K).
      kernel_axis: the axis of a channel that the kernels are side by side in, 1 or 3.
      image_size: rows and columns of the images.
      stride, dilation, divisor: as in `correlate`.
      fused_products: the most products of one fused loop.

    Returns:
      The sums, (N, K, H', W') or (N, H', W', K).
    """
    h, w, channels, _ = kernel.shape
    ends = _ends(image_size, (h, w), dilation, stride)
    taps = list(itertools.product(range(channels), range(h), range(w)))
    loops = -(-len(taps) // fused_products)

    def add_products(loop: int, total: Array | None, images: Images, kernel: Array) -> Array:
        for channel, i, j in _share(taps, loop, loops):
            rows, columns = (
                slice(k * d, k * d + end + 1, s) for k, d, end, s in zip((i, j), dilation, ends, stride, strict=True)
            )
            shifted = channel_of(images, channel)
            shifted = shifted[:, :, rows, columns] if kernel_axis == 1 else shifted[:, rows, columns]
            product = shifted * _beside(kernel[i, j, channel], kernel_axis)
            total = product if total is None else total + product
        assert total is not None
        return total if loop + 1 < loops else total / divisor

    total = None
    for loop in range(loops):
        total = no_fusion(functools.partial(add_products, loop), total, images, kernel)
    assert total is not None
    return total


def _ends(image_size: tuple[int, ...], kernel_size: tuple[int, ...], dilation: Pair, stride: Pair) -> Pair:
    """The last row and column at which a kernel is, as multiples of the stride."""
    rows, columns = (
        (n - (k - 1) * d - 1) // s * s for n, k, d, s in zip(image_size, kernel_size, dilation, stride, strict=True)
    )
    return rows, columns


def _share(taps: list[Tap], loop: int, loops: int) -> list[Tap]:
    """The taps of one of several loops of about equal length."""
    return taps[len(taps) * loop // loops : len(taps) * (loop + 1) // loops]


def _beside(weights: Array, axis: int) -> Array:
    """One number for each kernel, along an axis of (N, K, H, W) or (N, H, W, K)."""
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    return weights.reshape(shape)
