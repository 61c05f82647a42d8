"""The arguments of a score: checked once, padded, and in the dtype to accumulate in."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Shaped

from ._correlate import check_method
from ._dtypes import accumulation_dtype
from ._padding import explicit_padding
from ._patch_statistics import CorrelateOptions
from ._typing import Padding, Pads, Pair
from ._validation import as_floats, as_pair, broadcast_mask, check_shape


class ScoreInputs(NamedTuple):
    """Checked arguments of a score."""

    image: Array
    """(H, W, C), padding included."""
    feature: Array
    """(h, w, C), in the dtype of the image."""
    mask: Array | None
    """Weights of the feature's pixels, (h, w, C), in the dtype of the image."""
    is_binary_mask: bool
    """Whether all weights are 0 or 1."""
    window: Pair
    """Rows and columns of the feature."""
    options: CorrelateOptions
    """Stride, method and precision of the sums over patches."""
    out_dtype: jnp.dtype
    """The dtype of the score."""


def check_score_inputs(
    image: Shaped[ArrayLike, "H W *C"],
    feature: Shaped[ArrayLike, "h w *C"],
    mask: Shaped[ArrayLike, "h w *c"] | None,
    stride: int | Sequence[int],
    padding: Padding,
    fill: float | str,
    method: str,
    precision: lax.PrecisionLike,
) -> ScoreInputs:
    """Checks the arguments of a score, pads the image and casts all arrays to the dtype to accumulate in.

    Raises:
      ValueError: wrong ranks, channels or mask shapes, an empty array, a feature larger than the image, an unknown
        padding, fill or method.
      TypeError: arrays that are not real numbers, options of a wrong type.
    """
    image, feature = as_floats(image=image, feature=feature)
    _check_shapes(image, feature)
    strides = as_pair("stride", stride)
    window = feature.shape[0], feature.shape[1]
    pads = explicit_padding(padding, image.shape[:2], window, strides, names=("image", "feature"))
    weights = None if mask is None else broadcast_mask(mask, feature.shape)
    check_method(method)
    out_dtype = image.dtype
    dtype = accumulation_dtype(out_dtype)
    return ScoreInputs(
        image=_pad(_with_channels(image, dtype), pads, fill),
        feature=_with_channels(feature, dtype),
        mask=None if weights is None else _with_channels(weights, dtype),
        is_binary_mask=weights is None or weights.dtype == jnp.bool_,
        window=window,
        options=CorrelateOptions(strides, method, precision),
        out_dtype=out_dtype,
    )


def _check_shapes(image: Array, feature: Array) -> None:
    check_shape("image", image, "H W", "H W C")
    check_shape("feature", feature, "h w", "h w C")
    if image.shape[2:] != feature.shape[2:]:
        raise ValueError(
            f"feature: expected the channels of the image of shape {image.shape}, got shape {feature.shape}"
        )
    if feature.shape[0] > image.shape[0] or feature.shape[1] > image.shape[1]:
        raise ValueError(f"feature: expected at most the size of the image {image.shape[:2]}, got {feature.shape[:2]}")


def _with_channels(array: Array, dtype: DTypeLike) -> Array:
    """(H, W) or (H, W, C) as (H, W, C)."""
    return array.astype(dtype).reshape(*array.shape[:2], -1)


def _pad(image: Array, pads: Pads, fill: float | str) -> Array:
    widths = [*pads, (0, 0)]
    if isinstance(fill, str):
        if fill not in ("edge", "reflect"):
            raise ValueError(f"fill: expected a number, 'edge' or 'reflect', got {fill!r}")
        return jnp.pad(image, widths, mode=fill)
    try:
        return jnp.pad(image, widths, constant_values=float(fill))
    except TypeError:
        raise TypeError(f"fill: expected a number, 'edge' or 'reflect', got {fill!r}") from None
