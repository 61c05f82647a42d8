"""Kernel initializers, in addition to those of `jax.nn.initializers`."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Shaped

from ._dtypes import accumulation_dtype
from ._layer_options import text_of
from ._programs import compiled
from ._validation import as_pair, check_arrays, check_number, check_shape, to_floats

__all__ = ["dirac", "whitening"]


@dataclasses.dataclass(frozen=True, repr=False)
class dirac:
    """Identity (Dirac) initializer: kernels whose convolution copies the input channels.

    Each of the first min(C, K) kernels of (h, w, C, K) is 1 at the center pixel of its own channel and 0 elsewhere. The
    center of an even size is the pixel after the middle, as in PyTorch. The convolution copies only with padding that
    puts the center on the output's pixel.

    `dirac()` is an initializer, for `kernel_init` of `Conv`. It raises a ValueError for shapes other than (h, w, C, K).

    Args:
      fallback: initializer of the other kernels, if K > C.

    Source: Zagoruyko and Komodakis, "DiracNets" (2017), https://arxiv.org/abs/1706.00388

    >>> dirac()(jax.random.key(0), (1, 3, 1, 1)).ravel()
    Array([0., 1., 0.], dtype=float32)
    """

    fallback: Initializer = jax.nn.initializers.zeros

    def __call__(
        self,
        key: Array,
        shape: Sequence[int],
        dtype: DTypeLike | None = jnp.float32,
        out_sharding: jax.NamedSharding | jax.P | None = None,
    ) -> Array:
        if len(shape) != 4:
            raise ValueError(f"dirac: expected a kernel (h, w, C, K), got shape {tuple(shape)}")
        rows, columns, channels, features = shape
        copied = min(channels, features)
        kernel = jnp.asarray(self.fallback(key, shape, dtype, out_sharding)).at[..., :copied].set(0)
        channel = jnp.arange(copied)
        return kernel.at[rows // 2, columns // 2, channel, channel].set(1)

    def __repr__(self) -> str:
        return f"dirac({text_of(self.fallback)})"


def whitening(
    images: Shaped[ArrayLike, "N H W C"], size: int | Sequence[int] = 2, *, epsilon: float = 1.2e-4
) -> Float[Array, "h w C K"]:
    """Whitening kernels: convolution with them makes the channels of image patches uncorrelated.

    The kernels are the eigenvectors of the covariance of the patches, largest eigenvalue first, each divided by
    sqrt(eigenvalue + epsilon), and then their negatives, so that a following ReLU loses no information. The outputs
    have the variance eigenvalue / (eigenvalue + epsilon).

    Args:
      images: a sample of the training images. Integers and bools become float32.
      size: rows and columns of the kernels, an int or (h, w).
      epsilon: finite number above 0 that limits the gain of directions with little variance.

    Returns:
      2 h w C kernels, (h, w, C, 2 h w C).

    Raises:
      ValueError: a wrong rank, images smaller than the kernels, an epsilon that is not above 0.
      TypeError: images that are not real numbers, an option of the wrong type.

    Source: Page, "How to Train Your ResNet" (2019), https://myrtle.ai/learn/how-to-train-your-resnet/. The source
    uses epsilon = 5e-4 for pixels of variance 1. Pixels in [-1, 1] have a variance of about 1/4, so a quarter of that
    epsilon has the same effect.

    >>> whitening(jax.random.normal(jax.random.key(0), (10, 8, 8, 3)), 2).shape
    (2, 2, 3, 24)
    """
    (images,) = check_arrays(images=images)
    check_shape("images", images, "N H W C")
    rows, columns = as_pair("size", size)
    epsilon = check_number("epsilon", epsilon, "a finite number above 0", lambda epsilon: epsilon > 0)
    if images.shape[1] < rows or images.shape[2] < columns:
        raise ValueError(f"size: expected at most the size of the images {images.shape[1:3]}, got {(rows, columns)}")
    return _whitening(images, rows, columns, epsilon)


@compiled("rows", "columns")
def _whitening(images: Array, rows: int, columns: int, epsilon: float | Array) -> Array:
    (images,) = to_floats(images)
    patches = _all_patches(images.astype(accumulation_dtype(images.dtype)), rows, columns)
    centered = patches - jnp.mean(patches, 0, keepdims=True)
    covariance = jnp.matmul(centered.T, centered, precision="highest") / len(centered)
    eigenvalues, eigenvectors = jnp.linalg.eigh(covariance)
    largest_first = (eigenvectors / jnp.sqrt(jnp.maximum(eigenvalues, 0) + epsilon)[None])[:, ::-1]
    kernels = largest_first.reshape(rows, columns, images.shape[3], -1)
    return jnp.concatenate([kernels, -kernels], -1)


def _all_patches(images: Array, rows: int, columns: int) -> Array:
    """All patches of all images as vectors, (patches, h w C)."""
    positions_down = images.shape[1] - rows + 1
    positions_across = images.shape[2] - columns + 1
    shifted = [images[:, y : positions_down + y, x : positions_across + x] for y in range(rows) for x in range(columns)]
    return jnp.concatenate(shifted, -1).reshape(-1, rows * columns * images.shape[3])
