"""Activations of a network: its stages as images, and the patches and kernels behind them."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Shaped

from ._calibration import check_calibrated
from ._programs import compiled, program_of
from ._validation import check_arrays, check_image, check_int, to_floats
from .layers import Layer, Params, Stages
from .receptive_field import patch_grid

IMAGE_BATCH_SIZE = 64  # images that `top_activating_patches` evaluates in one batch


def stages(net: Layer, params: Params, image: Shaped[ArrayLike, "H W C"]) -> Stages:
    """Intermediate activations of a network: every stage of shape (H', W', K) by name, in order.

    Vectors, such as the logits, are left out.

    Args:
      net, params: the network.
      image: (H, W, C).

    Returns:
      An ordered dict from stage names to arrays.

    Raises:
      ValueError: the image is not (H, W, C), or the network does not accept it.

    Example:
      >>> from cnn_jax import Chain, Conv, Flatten, MaxPool
      >>> net = Chain(Conv(2), MaxPool(), Flatten())
      >>> params = net.init(jax.random.key(0), (6, 6, 1))
      >>> {name: stage.shape for name, stage in stages(net, params, jnp.ones((6, 6, 1))).items()}
      {'conv1': (4, 4, 2), 'max_pool1': (2, 2, 2)}
    """
    check_calibrated(params)
    return program_of(_stages, net)(params, check_image(image, "H W C"))


def _stages(net: Layer, params: Params, image: Array) -> Stages:
    (image,) = to_floats(image)
    activations = net.stages(params, image)
    return Stages((name, activation) for name, activation in activations.items() if activation.ndim == 3)


class TopPatches(NamedTuple):
    """Maximally activating patches of the K features of a stage, by decreasing activation.

    Attributes:
      patches: (K, count, h, w, C), as large as the stage's receptive field; 0 beyond the image's border.
      values: the activations, (K, count).
      indices: index of the image that each patch is from, (K, count).
      y, x: row and column of each activation in the stage, (K, count).
    """

    patches: Float[Array, "K count h w C"]
    values: Float[Array, "K count"]
    indices: Int[Array, "K count"]
    y: Int[Array, "K count"]
    x: Int[Array, "K count"]


def top_activating_patches(
    net: Layer, params: Params, images: Shaped[ArrayLike, "N H W C"], *, stage: str | None = None, count: int = 9
) -> TopPatches:
    """Maximally activating patches: for each feature of a stage, the patches with the largest activations.

    Each image gives at most one patch per feature, at the first of its largest activations. A feature with equal
    activations everywhere, such as one that ReLU sets to 0, has the first position: check `values`.

    Args:
      net, params: the network.
      images: the data set, (N, H, W, C); it is processed in batches of 64.
      stage: a name of `stages(net, params, image)`; by default the last one that is not pooled.
      count: patches per feature, at most N.

    Returns:
      `TopPatches`.

    Raises:
      TypeError: `count` is not an int.
      ValueError: there is no such stage, there are fewer than `count` images, or the stage depends on no pixel
        according to `receptive_field`, which measures the patches' size.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2013),
      https://arxiv.org/abs/1311.2901.

    Example:
      >>> from cnn_jax import Activation
      >>> images = jnp.array([[[[1.0], [5.0]]], [[[7.0], [2.0]]], [[[3.0], [4.0]]]])  # three images of 1x2 pixels
      >>> top = top_activating_patches(Activation(jnp.negative), {}, images, count=2)
      >>> top.values.tolist(), top.indices.tolist(), top.x.tolist()
      ([[-1.0, -2.0]], [[0, 1]], [[0, 1]])
      >>> top.patches.shape
      (1, 2, 1, 1, 1)
    """
    (images,) = check_arrays(images=images)
    if images.ndim != 4:
        raise ValueError(f"images: expected shape (N, H, W, C), got {images.shape}")
    count = check_int("count", count)
    if count > len(images):
        raise ValueError(f"count: expected 1 to {len(images)} (the number of images), got {count}")
    check_calibrated(params)
    return program_of(_top_patches, net, stage=stage, count=count)(params, images)


def _top_patches(net: Layer, params: Params, images: Array, *, stage: str | None, count: int) -> TopPatches:
    (images,) = to_floats(images)
    shape = images.shape[1:]
    stage, activation = find_stage(net, params, jax.ShapeDtypeStruct(shape, images.dtype), stage)
    size, row_starts, column_starts = patch_grid(net, shape, stage)

    def maxima(image: Array) -> tuple[Array, Array]:
        """Each feature's largest activation, and its position in reading order."""
        activations = net.stages(params, image)[stage]
        flat = activations.reshape(-1, activations.shape[-1])
        return flat.max(axis=0), flat.argmax(axis=0)

    values, positions = lax.map(maxima, images, batch_size=IMAGE_BATCH_SIZE)  # (N, K)
    values, indices = lax.top_k(values.T, count)
    y, x = jnp.divmod(jnp.take_along_axis(positions.T, indices, axis=1), activation.shape[1])

    margin = [(size[0], size[0]), (size[1], size[1]), (0, 0)]

    def patch(index: Array, row: Array, column: Array) -> Array:
        padded = jnp.pad(images[index], margin)
        top = jnp.asarray(row_starts)[row] + size[0]
        left = jnp.asarray(column_starts)[column] + size[1]
        return lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), (*size, shape[-1]))

    return TopPatches(jax.vmap(jax.vmap(patch))(indices, y, x), values, indices, y, x)


def kernels_as_images(params: Params, *, stage: str | None = None) -> Float[Array, "K h w C"]:
    """A layer's kernels as images in [-1, 1]: divided by the largest magnitude of all its weights.

    Args:
      params: a network's parameters.
      stage: the layer's name, such as "conv2" or "residual1/conv1"; by default the first layer with kernels. Under
        `jax.jit` and `jax.vmap`, which sort names, that is the first in alphabetical order.

    Returns:
      The K kernels, (K, h, w, C); all 0 if the weights are.

    Raises:
      ValueError: there is no layer of this name, or it has no kernels (h, w, C, K).

    Example:
      >>> kernels = jnp.arange(18.0).reshape(3, 3, 1, 2)
      >>> images = kernels_as_images({"conv1": {"kernel": kernels, "bias": jnp.zeros(2)}})
      >>> images.shape, images.min().item(), images.max().item()
      ((2, 3, 3, 1), 0.0, 1.0)
    """
    kernels_by_stage = dict(_kernels(params))
    if stage is None:
        stage = next(iter(kernels_by_stage), None)
    if stage not in kernels_by_stage:
        raise ValueError(f"stage: expected one of the layers with kernels {list(kernels_by_stage)}, got {stage!r}")
    return _as_images(kernels_by_stage[stage])


@compiled()
def _as_images(kernels: Array) -> Array:
    kernels = jnp.moveaxis(kernels, -1, 0)
    largest = jnp.abs(kernels).max()
    return kernels / jnp.where(largest > 0, largest, 1)


def _kernels(params: Params, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Array]]:
    """The kernels (h, w, C, K) of every layer that has some, with the layer's name."""
    for name, value in params.items():
        if isinstance(value, dict):
            yield from _kernels(value, (*path, name))
        elif jnp.ndim(value) == 4:
            yield "/".join(path), value


def find_stage(
    net: Layer, params: Params, image: Array | jax.ShapeDtypeStruct, name: str | None
) -> tuple[str, jax.ShapeDtypeStruct]:
    """A stage (H', W', K) by name, by default the last one that is not pooled: its name, and its shape and dtype."""
    activations = jax.eval_shape(net.stages, params, image)
    images = {stage: activation for stage, activation in activations.items() if activation.ndim == 3}
    unpooled = [stage for stage in images if "pool" not in stage]
    chosen = next(reversed(unpooled or list(images)), "") if name is None else name
    if chosen not in images:
        raise ValueError(f"stage: expected one of {list(images)}, got {name!r}")
    return chosen, images[chosen]
