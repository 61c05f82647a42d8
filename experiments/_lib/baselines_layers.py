"""The parts of a training step that take most of its time, in cnn_jax and in plain JAX.

All are functions of two arrays, and of one stage of a network: a 3x3 convolution that keeps the size, or 2x2
max-pooling.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import cnn_jax

Part = Callable[[jax.Array, jax.Array], jax.Array]


class LayerBenchmark(NamedTuple):
    """A part of a training step."""

    ours: Part
    plain_jax: Part
    shapes: Callable[[int, int, int, int], Sequence[Sequence[int]]]
    """The shapes of both arguments for `n` images of `s` by `s` pixels and `c` channels, and `k` features."""


def conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """cnn_jax's convolution of images (N, H, W, C) and a kernel (3, 3, C, K)."""
    return jax.vmap(lambda image: cnn_jax.conv(image, kernel, padding="SAME"))(images)


def plain_jax_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's convolution of images (N, H, W, C) and a kernel (3, 3, C, K)."""
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def plain_jax_pool(images: jax.Array) -> jax.Array:
    """XLA's 2x2 max-pooling of images (N, H, W, C)."""
    return lax.reduce_window(images, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def kernel_gradient(conv: Part) -> Part:
    """(images, cotangent maps) -> the gradient of a convolution's kernel."""

    def gradient(images: jax.Array, maps: jax.Array) -> jax.Array:
        shape = (3, 3, images.shape[3], maps.shape[3])
        return transpose(lambda kernel: conv(images, kernel), shape, maps)

    return gradient


def image_gradient(conv: Part) -> Part:
    """(cotangent maps, kernel) -> the gradient of a convolution's images."""

    def gradient(maps: jax.Array, kernel: jax.Array) -> jax.Array:
        shape = (*maps.shape[:3], kernel.shape[2])
        return transpose(lambda images: conv(images, kernel), shape, maps)

    return gradient


def pool_gradient(pool: Callable[[jax.Array], jax.Array]) -> Part:
    """(images, cotangent of the pooled images) -> the gradient of the images."""
    return lambda images, pooled: jax.vjp(pool, images)[1](pooled)[0]


def transpose(linear: Callable[[jax.Array], jax.Array], shape: Sequence[int], cotangent: jax.Array) -> jax.Array:
    """The transpose of a linear function of an array of this shape, applied to a cotangent."""
    return jax.linear_transpose(linear, jax.ShapeDtypeStruct(shape, cotangent.dtype))(cotangent)[0]


LAYER_BENCHMARKS: Mapping[str, LayerBenchmark] = {
    "conv": LayerBenchmark(
        conv,
        plain_jax_conv,
        lambda n, s, c, k: [(n, s, s, c), (3, 3, c, k)],
    ),
    "its kernels' gradient": LayerBenchmark(
        kernel_gradient(conv),
        kernel_gradient(plain_jax_conv),
        lambda n, s, c, k: [(n, s, s, c), (n, s, s, k)],
    ),
    "its images' gradient": LayerBenchmark(
        image_gradient(conv),
        image_gradient(plain_jax_conv),
        lambda n, s, c, k: [(n, s, s, k), (3, 3, c, k)],
    ),
    "max_pool's gradient": LayerBenchmark(
        pool_gradient(jax.vmap(cnn_jax.max_pool)),
        pool_gradient(plain_jax_pool),
        lambda n, s, c, k: [(n, s, s, k), (n, s // 2, s // 2, k)],
    ),
}
