"""Correlation as a matrix product of image patches: fast on the CPU for many kernels and few channels or positions.

A matrix product does several times as many multiply-adds per second as XLA:CPU's convolution where there are few
channels or few positions, as in the gradient of kernels. Patches are written for some images at a time, so that they
stay in the cache.
"""

import itertools
import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._cost_model import CPU_COSTS, CpuCosts
from ._dtypes import accumulation_dtype
from ._geometry import correlation_extents, pad_and_dilate
from ._mesh_axes import vary_like
from ._typing import Pads, Pair

Slices = list[tuple[slice, slice]]


def im2col_correlate(
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
    """The algorithm "im2col" of `_correlate.Algorithm`."""
    kernel_size = kernel.shape[:2]
    extents = correlation_extents(
        image.shape[1:3], kernel_size, stride=stride, padding=padding, dilation=dilation, lhs_dilation=lhs_dilation
    )
    output_size = extents.output_size
    kernel = kernel.astype(accumulation_dtype(kernel.dtype))
    options = {
        "output_size": output_size,
        "stride": stride,
        "dilation": dilation,
        "precision": precision,
        "chunk_numbers": costs.im2col_chunk_numbers,
    }
    if math.prod(output_size) < math.prod(kernel_size):
        image = pad_and_dilate(image.transpose(3, 1, 2, 0), padding, lhs_dilation)
        kernel = kernel.transpose(2, 0, 1, 3)
        out = im2col_over_channels(image, kernel, register_lanes=costs.register_lanes, **options).transpose(2, 0, 1, 3)
    else:
        out = im2col_batched(pad_and_dilate(image, padding, lhs_dilation), kernel, **options)
    out = jnp.moveaxis(out, -1, 1) if channels_first else out
    return out / divisor


def im2col_batched(
    image: Array,
    kernel: Array,
    *,
    output_size: Pair,
    stride: Pair,
    dilation: Pair,
    precision: lax.PrecisionLike,
    chunk_numbers: int,
) -> Array:
    """Dot products (N, H', W', K) of images (N, H, W, C) and kernels (h, w, C, K), some images at a time."""
    n = len(image)
    *kernel_size, _, kernels = kernel.shape
    taps = _slice_grid(kernel_size, dilation, output_size, stride)
    weights = kernel.reshape(-1, kernels)
    chunk = chunk_size(n, math.prod(output_size) * len(weights), chunk_numbers)

    def multiply(images: Array) -> Array:
        return jnp.matmul(_concatenated(images, taps), weights, precision=precision)

    out = lax.map(multiply, in_chunks(image, chunk))
    return out.reshape(len(out) * chunk, *output_size, kernels)[:n]


def im2col_over_channels(
    image: Array,
    kernel: Array,
    *,
    output_size: Pair,
    stride: Pair,
    dilation: Pair,
    precision: lax.PrecisionLike,
    chunk_numbers: int,
    register_lanes: int,
) -> Array:
    """Dot products (H', W', N, K) of images (C, H, W, N) and kernels (C, h, w, K), summed over some channels at a time.

    This is for few positions. In the gradient of kernels, whose channels are images, it is a sum over the batch.
    """
    channels, *kernel_size, kernels = kernel.shape
    positions = _slice_grid(output_size, stride, kernel_size, dilation)
    rows = len(positions) * image.shape[3]
    # Copies of fewer numbers than a register has lanes are slow: columns of pixels are copied instead.
    columns_first = image.shape[3] < register_lanes
    image = jnp.moveaxis(image, 3, 1) if columns_first else image
    chunk = chunk_size(channels, math.prod(kernel_size) * rows, chunk_numbers)
    fewer_kernels = kernels < rows and not columns_first  # a product is faster with the smaller factor first

    def add_product(total: Array, operands: tuple[Array, Array]) -> tuple[Array, None]:
        images, weights = operands
        weights = weights.reshape(-1, kernels)
        if columns_first:
            return total + jnp.matmul(_stacked(images, positions).reshape(rows, -1), weights, precision=precision), None
        patches = _concatenated(images, positions).reshape(-1, rows)
        first, second = (weights, patches) if fewer_kernels else (patches, weights)
        return total + jnp.matmul(first.T, second, precision=precision), None

    chunks = in_chunks(image, chunk), in_chunks(kernel, chunk)
    shape = (kernels, rows) if fewer_kernels else (rows, kernels)
    total, _ = lax.scan(add_product, vary_like(jnp.zeros(shape, image.dtype), chunks), chunks)
    total = total.T if fewer_kernels else total
    return total.reshape(*output_size, -1, kernels)


def chunk_size(count: int, numbers: int, chunk_numbers: int) -> int:
    """Images per chunk, for `count` images of `numbers` elements each.

    Chunks are equal and as full as possible, but for up to twice as many that divide the images: others need padding, a
    copy of all images.
    """
    chunks = min(-(-count * numbers // chunk_numbers), count)
    if chunks <= 2:
        return max(count, 1)
    return next((count // n for n in range(chunks, 2 * chunks) if count % n == 0), -(-count // chunks))


def _slice_grid(starts: Sequence[int], start_step: Pair, counts: Sequence[int], count_step: Pair) -> Slices:
    """Slices of rows and columns that begin at every point of a grid and take `counts` pixels each."""
    rows, columns = (
        [slice(i * step, i * step + (count - 1) * stride + 1, stride) for i in range(start)]
        for start, step, count, stride in zip(starts, start_step, counts, count_step, strict=True)
    )
    return list(itertools.product(rows, columns))


def _concatenated(image: Array, slices: Slices) -> Array:
    """The slices of images (N, H, W, C), side by side in the last axis."""
    return jnp.concatenate([image[:, rows, columns] for rows, columns in slices], axis=-1)


def _stacked(image: Array, slices: Slices) -> Array:
    """The slices of images (C, N, H, W), stacked in a first axis of slices and images."""
    planes = [image[:, n] for n in range(image.shape[1])]
    return jnp.stack([plane[:, rows, columns] for rows, columns in slices for plane in planes])


def in_chunks(array: Array, chunk: int) -> Array:
    """(N, ...) as (N / chunk, chunk, ...), zeros at the end where N is not a multiple of the chunk."""
    missing = -len(array) % chunk
    if missing:
        array = jnp.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
    return array.reshape(len(array) // chunk, chunk, *array.shape[1:])
