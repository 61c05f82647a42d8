"""What `experiments.accelerators` compiles: functions of the library beside the same in plain JAX."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import cnn_jax

from . import benchmark_network
from .baselines_layers import plain_jax_pool

EXACT = lax.Precision.HIGHEST  # as scores multiply; TPUs multiply bfloat16 by default
ANGLES = tuple(np.arange(36) * np.pi / 18)


class Case(NamedTuple):
    """Two functions of the same arguments; None where plain JAX has no such function."""

    ours: Callable[..., Any]
    plain_jax: Callable[..., Any] | None
    arguments: Any
    divided: tuple[int, ...] = ()
    """Positions of the arguments that are divided among all devices; if there are none, one device computes all."""


def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """The shape of an argument."""
    return jax.ShapeDtypeStruct(shape, dtype)


def over_images_and_features(score: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A score of every image of a batch with every feature of a bank."""
    return jax.vmap(jax.vmap(score, (None, 0)), (0, None))


def plain_jax_match(images: jax.Array, features: jax.Array) -> jax.Array:
    """XLA's convolution of images (N, H, W) and features (K, h, w), over the pixels."""
    out = lax.conv_general_dilated(images[:, None], features[:, None], (1, 1), "VALID", precision=EXACT)
    return out / (features.shape[1] * features.shape[2])


def plain_jax_zncc(images: jax.Array, features: jax.Array) -> jax.Array:
    """The textbook's formula: sums of pixels and of their squares by `lax.reduce_window`."""
    window = 1, *features.shape[1:]
    pixels = window[1] * window[2]
    sums = lax.reduce_window(images, 0.0, lax.add, window, (1, 1, 1), "VALID")
    squares = lax.reduce_window(images**2, 0.0, lax.add, window, (1, 1, 1), "VALID")
    centered = features - features.mean(axis=(1, 2), keepdims=True)
    dots = plain_jax_match(images, centered) * pixels
    patch_energies = (squares - sums**2 / pixels)[:, None]
    feature_energies = (centered**2).sum((1, 2))[None, :, None, None]
    return dots / jnp.sqrt(patch_energies * feature_energies)


def training_case(
    images: int, size: int, channels: int, features: tuple[int, ...], dtype: Any, *, is_data_parallel: bool = False
) -> Case:
    """A training step of the small network of the benchmarks, computed in a dtype; parameters are float32."""
    network = benchmark_network.network(features)
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), (size, size, channels)))

    def step(apply: benchmark_network.Apply) -> Callable[..., Any]:
        return benchmark_network.sgd_step(benchmark_network.in_dtype(apply, dtype))

    state = jax.eval_shape(benchmark_network.optimizer().init, params)
    arguments = params, state, array(images, size, size, channels), array(images, dtype=jnp.int32)
    divided = (2, 3) if is_data_parallel else ()
    return Case(step(jax.vmap(network.apply, (None, 0))), step(benchmark_network.plain_jax_network), arguments, divided)


def pool_gradient(pool: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """The gradient of the sum of squares of pooled images."""
    return jax.grad(lambda images: (pool(images) ** 2).sum())


CASES: Mapping[str, Case] = {
    "match 256x28x28, 16x3x3": Case(
        over_images_and_features(cnn_jax.match), plain_jax_match, (array(256, 28, 28), array(16, 3, 3))
    ),
    "match 1x256x256, 1x9x9": Case(
        over_images_and_features(cnn_jax.match), plain_jax_match, (array(1, 256, 256), array(1, 9, 9))
    ),
    "cosine 1x256x256, 1x9x9": Case(
        over_images_and_features(cnn_jax.cosine), None, (array(1, 256, 256), array(1, 9, 9))
    ),
    "zncc 1x256x256, 1x9x9": Case(
        over_images_and_features(cnn_jax.zncc), plain_jax_zncc, (array(1, 256, 256), array(1, 9, 9))
    ),
    "zncc 16x256x256, 8x9x9": Case(
        over_images_and_features(cnn_jax.zncc), plain_jax_zncc, (array(16, 256, 256), array(8, 9, 9))
    ),
    "peaks 256x256": Case(cnn_jax.peaks, None, (array(256, 256),)),
    "find 480x640, 64x64": Case(cnn_jax.find, None, (array(480, 640), array(64, 64))),
    "find 480x640, 64x64, 36 angles": Case(
        functools.partial(cnn_jax.find, angles=ANGLES), None, (array(480, 640), array(64, 64))
    ),
    "find 480x640, 64x64, any angle": Case(
        functools.partial(cnn_jax.find, angle_range=(-np.pi, np.pi)), None, (array(480, 640), array(64, 64))
    ),
    "max_pool's gradient 256x16x16x64": Case(
        pool_gradient(jax.vmap(functools.partial(cnn_jax.max_pool, window=2))),
        pool_gradient(plain_jax_pool),
        (array(256, 16, 16, 64),),
    ),
    **{
        f"training step 512x32x32x3, 64-128, {np.dtype(dtype)}": training_case(512, 32, 3, (64, 128), dtype)
        for dtype in (jnp.float32, jnp.bfloat16)
    },
    "data-parallel training step 512x32x32x3, 64-128, bfloat16": training_case(
        512, 32, 3, (64, 128), jnp.bfloat16, is_data_parallel=True
    ),
}
