"""Correlation as a sum of shifted products: fast on the CPU for few channels and small kernels."""

import functools
import itertools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._cost_model import CPU_COSTS, CpuCosts
from ._dtypes import accumulation_dtype
from ._geometry import pad_and_dilate
from ._typing import Pads, Pair
from ._xla import no_fusion

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
    image = pad_and_dilate(image, padding, lhs_dilation)
    kernel = kernel.astype(accumulation_dtype(kernel.dtype))
    # Registers are filled either with columns of whole maps or with kernels stored side by side.
    maps_first = channels_first or kernel.shape[3] < costs.register_lanes
    kernel_axis = 1 if maps_first else 3
    out = add_shifted_products(
        [jnp.expand_dims(image[..., c], kernel_axis) for c in range(image.shape[3])],
        kernel,
        kernel_axis=kernel_axis,
        stride=stride,
        dilation=dilation,
        divisor=divisor,
        fused_products=costs.shift_fused_products,
    )
    return jnp.moveaxis(out, 1, -1) if maps_first and not channels_first else out


def add_shifted_products(
    channels: list[Array],
    kernel: Array,
    *,
    kernel_axis: int,
    stride: Pair,
    dilation: Pair,
    divisor: int,
    fused_products: int,
) -> Array:
    """The sums of shifted channels times the kernel's numbers, over the divisor.

    Args:
      channels: images, (N, 1, H, W) or (N, H, W, 1) or (N, H, W, K). Channels are split here, not within every loop.
      kernel: kernels (h, w, C, K).
      kernel_axis: the axis of `channels` that the kernels are side by side in, 1 or 3.
      stride, dilation, divisor: as in `correlate`.
      fused_products: the most products of one fused loop.

    Returns:
      The sums, (N, K, H', W') or (N, H', W', K).
    """
    image_size = channels[0].shape[2:4] if kernel_axis == 1 else channels[0].shape[1:3]
    ends = _ends(image_size, kernel.shape[:2], dilation, stride)
    taps = list(itertools.product(range(len(channels)), range(kernel.shape[0]), range(kernel.shape[1])))
    loops = -(-len(taps) // fused_products)

    def add_products(loop: int, total: Array | None, channels: list[Array], kernel: Array) -> Array:
        for channel, i, j in _share(taps, loop, loops):
            rows, columns = (
                slice(k * d, k * d + end + 1, s) for k, d, end, s in zip((i, j), dilation, ends, stride, strict=True)
            )
            shifted = channels[channel]
            shifted = shifted[:, :, rows, columns] if kernel_axis == 1 else shifted[:, rows, columns]
            product = shifted * _beside(kernel[i, j, channel], kernel_axis)
            total = product if total is None else total + product
        assert total is not None
        return total if loop + 1 < loops else total / divisor

    total = None
    for loop in range(loops):
        total = no_fusion(functools.partial(add_products, loop), total, channels, kernel)
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
