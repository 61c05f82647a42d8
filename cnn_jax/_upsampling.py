"""Upsampling of images by whole factors."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._typing import Pair


def upsample_nearest(image: Float[Array, "H W *C"], scale: Pair) -> Float[Array, "H2 W2 *C"]:
    """The image with every pixel repeated.

    >>> upsample_nearest(jnp.array([[1.0, 2.0]]), (1, 2))
    Array([[1., 1., 2., 2.]], dtype=float32)
    """
    return jnp.repeat(jnp.repeat(image, scale[0], 0), scale[1], 1)


def upsample_bilinear(image: Float[Array, "H W *C"], scale: Pair) -> Float[Array, "H2 W2 *C"]:
    """Bilinear interpolation between the centers of pixels; beyond the outermost centers the image goes on as it ends.

    A pixel of the result depends only on the pixels next to it, so that a NaN does not spread further.

    >>> upsample_bilinear(jnp.array([[0.0, 4.0]]), (1, 2))
    Array([[0., 1., 3., 4.]], dtype=float32)
    """
    rows_upsampled = _upsample_first_axis(image, scale[0])
    return jnp.swapaxes(_upsample_first_axis(jnp.swapaxes(rows_upsampled, 0, 1), scale[1]), 0, 1)


def _upsample_first_axis(image: Array, scale: int) -> Array:
    before = jnp.concatenate([image[:1], image[:-1]])
    after = jnp.concatenate([image[1:], image[-1:]])
    phases = []
    for phase in range(scale):
        offset = (phase + 0.5) / scale - 0.5  # of the new pixel's center from the old one's, in old pixels
        if offset == 0:
            phases.append(image)
        else:
            neighbor = before if offset < 0 else after
            phases.append((1 - abs(offset)) * image + abs(offset) * neighbor)
    return jnp.stack(phases, 1).reshape(-1, *image.shape[1:])


UPSAMPLING = {"nearest": upsample_nearest, "bilinear": upsample_bilinear}
