"""How well each patch of an image matches a feature."""

from collections.abc import Sequence

from jax import lax
from jaxtyping import Array, Float, Num

from .convolution import wide_conv
from .windows import Padding, as_floats, check_shape


def match(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    method: str = "auto",
    precision: lax.PrecisionLike = None,
) -> Float[Array, "H2 W2"]:
    """Compares a feature with every patch of an image: multiply pixel by pixel, add, divide by the number of pixels.

        out[y, x] = 1/n sum over i, j, c of image[stride y + i, stride x + j, c] feature[i, j, c],  n = h w C

    For pixels in [-1, 1] (white 1, black -1) the score lies in [-1, 1]; where both are ±1, a perfect match is 1 and the
    photographic negative -1.

    Args:
      image: (H, W) or (H, W, C). Integers and bools become float32; float16 and bfloat16 add up in float32.
      feature: (h, w) or (h, w, C), as many channels as the image. `jax.vmap` over features gives a bank of maps,
        `jax.vmap` over images a batch, both together one dense convolution.
      stride: steps between patches, an int or (rows, columns).
      padding: "VALID", "SAME", "CEIL" or ((top, bottom), (left, right)); padded cells are 0, which matches nothing.
      method, precision: as in `conv`.

    Returns:
      The match map, (H', W').

    Raises:
      ValueError: ranks or channels that differ, an empty array, a feature larger than the image, an unknown padding
        or method.
      TypeError: arrays that are not real numbers, options that are not ints.

    Source: Rohrer, "How Convolutional Neural Networks Work" (2016).

    >>> import jax.numpy as jnp
    >>> diagonal = jnp.array([[1, -1], [-1, 1]])
    >>> match(jnp.array([[1, -1, 1], [-1, 1, -1]]), diagonal)
    Array([[ 1., -1.]], dtype=float32)
    """
    image, feature = as_floats(image=image, feature=feature)
    check_shape("image", image, "H W", "H W C")
    check_shape("feature", feature, "h w", "h w C")
    if image.shape[2:] != feature.shape[2:]:
        raise ValueError(
            f"feature: expected the channels of the image of shape {image.shape}, got shape {feature.shape}"
        )
    if feature.shape[0] > image.shape[0] or feature.shape[1] > image.shape[1]:
        raise ValueError(f"feature: expected at most the size of the image {image.shape[:2]}, got {feature.shape[:2]}")
    if image.ndim == 2:
        image, feature = image[..., None], feature[..., None]
    out = wide_conv(image, feature[..., None], stride=stride, padding=padding, method=method, precision=precision)
    return (out[..., 0] / feature.size).astype(image.dtype)
