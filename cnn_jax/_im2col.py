"""Sliding dot products as products of matrices: the patches of some images at a time, side by side in the cache.

A matrix product does several times the multiply-adds a second of XLA:CPU's convolution when there are few channels or
few positions, as in the gradient of kernels; and writing the patches down costs little while they stay in the cache.
"""

import itertools
import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

Pair = tuple[int, int]
# Numbers of patches that are worked on at a time, and the most for one image or one channel.
CHUNK, LARGEST = 2**20, 2**22
SLICES = 64  # that patches are made of without compiling for seconds


def im2col_batched(
    image: Array,
    kernel: Array,
    *,
    output_size: Sequence[int],
    stride: Pair,
    dilation: Pair,
    precision: lax.PrecisionLike,
) -> Array:
    """Dot products of kernels (h, w, C, K) with images (N, H, W, C) at `output_size` positions, (N, H', W', K): some images
    at a time."""
    n, (*window, _, kernels) = len(image), kernel.shape
    taps = _grid(window, dilation, output_size, stride)
    weights = kernel.reshape(-1, kernels)
    some = _at_a_time(n, math.prod(output_size) * len(weights))

    def multiply(part: Array) -> Array:
        return jnp.matmul(_patches(part, taps), weights, precision=precision)

    parts = lax.map(multiply, _in_chunks(image, some))
    return parts.reshape(len(parts) * some, *output_size, kernels)[:n]


def im2col_over_channels(
    image: Array,
    kernel: Array,
    *,
    output_size: Sequence[int],
    stride: Pair,
    dilation: Pair,
    precision: lax.PrecisionLike,
) -> Array:
    """The same for few positions, summed over some channels at a time, which come first: images (C, H, W, N) and
    kernels (C, h, w, K) give (H', W', N, K). This is the gradient of kernels, whose channels are images."""
    channels, *window, kernels = kernel.shape
    places = _grid(output_size, stride, window, dilation)
    rows = len(places) * image.shape[3]
    some = _at_a_time(channels, math.prod(window) * rows)

    fewer_kernels = kernels < rows  # the smaller factor first is faster

    def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
        factors = _patches(part[0], places).reshape(-1, rows), part[1].reshape(-1, kernels)
        first, second = factors[::-1] if fewer_kernels else factors
        return total + jnp.matmul(first.T, second, precision=precision), None

    parts = _in_chunks(image, some), _in_chunks(kernel, some)
    shape = (kernels, rows) if fewer_kernels else (rows, kernels)
    total, _ = lax.scan(add, jnp.zeros(shape, image.dtype), parts)
    return (total.T if fewer_kernels else total).reshape(*output_size, -1, kernels)


def _grid(starts: Sequence[int], steps: Pair, output_size: Sequence[int], strides: Pair) -> list[tuple[slice, slice]]:
    """The strided slices of rows and columns that start at every point of a grid."""
    rows, columns = (
        [slice(i * step, i * step + (count - 1) * stride + 1, stride) for i in range(start)]
        for start, step, count, stride in zip(starts, steps, output_size, strides, strict=True)
    )
    return list(itertools.product(rows, columns))


def _patches(image: Array, slices: list[tuple[slice, slice]]) -> Array:
    """The slices of images (N, H, W, C), side by side in the last axis."""
    return jnp.concatenate([image[:, rows, columns] for rows, columns in slices], axis=-1)


def _at_a_time(count: int, numbers: int) -> int:
    """How many of `count` go into a chunk when each has so many numbers: chunks of one size, as full as can be."""
    chunks = -(-count * numbers // CHUNK)
    return max(count, 1) if chunks <= 2 else -(-count // min(chunks, count))


def _in_chunks(array: Array, some: int) -> Array:
    """(N, ...) as (N / some, some, ...), with zeros at the end where N is no multiple."""
    more = -len(array) % some
    if more:
        array = jnp.pad(array, [(0, more)] + [(0, 0)] * (array.ndim - 1))
    return array.reshape(len(array) // some, some, *array.shape[1:])
