"""The parts of a training step that take most of its time, in cnn_jax and in plain JAX.

All are functions of two arrays, and of one stage of a network: a 3x3 convolution that keeps the size, or 2x2
max-pooling. Convolutions in groups are depthwise ones, and those of several networks with images of their own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

import cnn_jax

NETWORKS = 8  # with kernels of their own

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


def depthwise(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """cnn_jax's depthwise convolution of images (N, H, W, C) and a kernel (3, 3, 1, C)."""
    groups = images.shape[3]
    return jax.vmap(lambda image: cnn_jax.conv(image, kernel, padding="SAME", groups=groups))(images)


def plain_jax_depthwise(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's depthwise convolution of images (N, H, W, C) and a kernel (3, 3, 1, C)."""
    return lax.conv_general_dilated(
        images,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=images.shape[3],
    )


def in_turn(conv: Part) -> Part:
    """A convolution of the images and the kernel of one network after another."""
    return lambda images, kernels: jnp.stack([conv(*pair) for pair in zip(images, kernels, strict=True)])


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


def gradients(conv: Part) -> Part:
    """(images, kernel) -> both gradients of half the sum of a convolution's squares, side by side."""

    def gradient(images: jax.Array, kernel: jax.Array) -> jax.Array:
        both = jax.grad(lambda *arrays: jnp.sum(conv(*arrays) ** 2) / 2, (0, 1))(images, kernel)
        return jnp.concatenate([array.reshape(-1) for array in both])

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

GROUPED_BENCHMARKS: Mapping[str, LayerBenchmark] = {
    "depthwise conv": LayerBenchmark(
        depthwise,
        plain_jax_depthwise,
        lambda n, s, c, k: [(n, s, s, c), (3, 3, 1, c)],
    ),
    "depthwise conv's gradients": LayerBenchmark(
        gradients(depthwise),
        gradients(plain_jax_depthwise),
        lambda n, s, c, k: [(n, s, s, c), (3, 3, 1, c)],
    ),
    f"conv of {NETWORKS} networks": LayerBenchmark(
        jax.vmap(conv),
        in_turn(plain_jax_conv),
        lambda n, s, c, k: [(NETWORKS, n, s, s, c), (NETWORKS, 3, 3, c, k)],
    ),
    f"its {NETWORKS} networks' gradients": LayerBenchmark(
        gradients(jax.vmap(conv)),
        gradients(in_turn(plain_jax_conv)),
        lambda n, s, c, k: [(NETWORKS, n, s, s, c), (NETWORKS, 3, 3, c, k)],
    ),
}
