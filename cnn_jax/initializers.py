"""Kernels to start from, besides those of `jax.nn.initializers`."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from ._dtypes import accumulation_dtype
from ._validation import as_floats, as_pair, check_number, check_shape


def dirac(fallback: Initializer = jax.nn.initializers.zeros) -> Initializer:
    """Kernels (h, w, C, K) that hand their channels on: the first min(C, K) features are 1 at the middle pixel of one
    channel each and 0 elsewhere, the others are left to `fallback`.

    The middle of an even size is the pixel after it, as in PyTorch; the padding must put it on the image's pixel.
    Raises a ValueError for what is no kernel of a convolution.

    >>> dirac()(jax.random.key(0), (1, 3, 1, 1)).ravel()
    Array([0., 1., 0.], dtype=float32)
    """

    def init(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        if len(shape) != 4:
            raise ValueError(f"dirac: expected a kernel (h, w, C, K), got shape {tuple(shape)}")
        rows, columns, channels, features = shape
        same = min(channels, features)
        kernel = jnp.asarray(fallback(key, shape, dtype, out_sharding)).at[..., :same].set(0)
        each = jnp.arange(same)
        return kernel.at[rows // 2, columns // 2, each, each].set(1)

    return init


def whitening(
    images: Float[Array, "N H W C"], size: int | tuple[int, int] = 2, *, epsilon: float = 1.2e-4
) -> Float[Array, "h w C K"]:
    """Kernels that make the patches of images uncorrelated, of variance eigenvalue / (eigenvalue + epsilon):
    (h, w, C, 2 h w C).

    The eigenvectors of the patches' covariance, each divided by sqrt(eigenvalue + epsilon), largest first, and then all
    their negatives, so that a rectified layer loses nothing.

    Raises a ValueError for a wrong rank, images smaller than a patch or an epsilon that is not above 0.

    Source: Page, "How to Train Your ResNet" (2019), whose epsilon is 5e-4 for pixels of deviation 1. Those in [-1, 1]
    deviate by about a half, so that a quarter of it does the same.

    >>> whitening(jax.random.normal(jax.random.key(0), (10, 8, 8, 3)), 2).shape
    (2, 2, 3, 24)
    """
    (images,) = as_floats(images=images)
    images = images.astype(accumulation_dtype(images.dtype))
    check_shape("images", images, "N H W C")
    rows, columns = as_pair("size", size)
    epsilon = check_number("epsilon", epsilon, "a finite number above 0", lambda epsilon: epsilon > 0)
    if images.shape[1] < rows or images.shape[2] < columns:
        raise ValueError(f"size: expected at most the images' {images.shape[1:3]}, got {(rows, columns)}")
    channels = images.shape[3]
    slices = [
        images[:, i : images.shape[1] - rows + 1 + i, j : images.shape[2] - columns + 1 + j]
        for i in range(rows)
        for j in range(columns)
    ]
    patches = jnp.concatenate(slices, -1).reshape(-1, rows * columns * channels)
    patches = patches - jnp.mean(patches, 0, keepdims=True)
    covariance = jnp.matmul(patches.T, patches, precision="highest") / len(patches)
    values, vectors = jnp.linalg.eigh(covariance)
    scaled = (vectors / jnp.sqrt(jnp.maximum(values, 0) + epsilon)[None])[:, ::-1]
    kernels = scaled.reshape(rows, columns, channels, -1)
    return jnp.concatenate([kernels, -kernels], -1)
