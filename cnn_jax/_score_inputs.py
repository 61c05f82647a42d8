"""The arguments of a score: checked once, then padded and cast to the dtype to accumulate in."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Shaped

from ._algorithms import check_method
from ._dtypes import accumulation_dtype
from ._padding import explicit_padding
from ._patch_statistics import CorrelateOptions
from ._typing import AnyArray, Padding, Pads, Pair
from ._validation import as_pair, broadcast_mask, check_arrays, check_mask, check_shape, to_floats


class ScoreInputs(NamedTuple):
    """Arguments of a score as its formula takes them."""

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


class ScoreOptions(NamedTuple):
    """Checked options of a score; hashable."""

    stride: Pair
    pads: Pads
    fill: float | str
    method: str
    precision: lax.PrecisionLike


class ScoreArguments(NamedTuple):
    """Checked arguments of a score, in their own shapes and dtypes."""

    options: ScoreOptions
    image: AnyArray
    feature: AnyArray
    mask: AnyArray | None


def check_score_arguments(
    image: Shaped[ArrayLike, "H W *C"],
    feature: Shaped[ArrayLike, "h w *C"],
    mask: Shaped[ArrayLike, "h w *c"] | None,
    stride: int | Sequence[int],
    padding: Padding,
    fill: float | str,
    method: str,
    precision: lax.PrecisionLike,
) -> ScoreArguments:
    """Checks the arguments of a score.

    Raises:
      ValueError: wrong ranks, channels or mask shapes, an empty array, a feature larger than the image, an unknown
        padding, fill or method.
      TypeError: arrays that are not real numbers, options of a wrong type.
    """
    image, feature = check_arrays(image=image, feature=feature)
    _check_shapes(image, feature)
    strides = as_pair("stride", stride)
    pads = explicit_padding(padding, image.shape[:2], feature.shape[:2], strides, names=("image", "feature"))
    weights = None if mask is None else check_mask(mask, feature.shape)
    check_method(method)
    options = ScoreOptions(strides, pads, _check_fill(fill), method, precision)
    return ScoreArguments(options, image, feature, weights)


def prepare_score_inputs(
    options: ScoreOptions, image: AnyArray, feature: AnyArray, mask: AnyArray | None
) -> ScoreInputs:
    """Pads the image and casts all arrays to the dtype to accumulate in."""
    image, feature = to_floats(image, feature)
    weights = None if mask is None else broadcast_mask(mask, feature.shape)
    out_dtype = image.dtype
    dtype = accumulation_dtype(out_dtype)
    return ScoreInputs(
        image=_pad(_with_channels(image, dtype), options.pads, options.fill),
        feature=_with_channels(feature, dtype),
        mask=None if weights is None else _with_channels(weights, dtype),
        is_binary_mask=weights is None or weights.dtype == jnp.bool_,
        window=(feature.shape[0], feature.shape[1]),
        options=CorrelateOptions(options.stride, options.method, options.precision),
        out_dtype=out_dtype,
    )


def _check_shapes(image: AnyArray, feature: AnyArray) -> None:
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


def _check_fill(fill: float | str) -> float | str:
    expected = "a number, 'edge' or 'reflect'"
    if isinstance(fill, str):
        if fill not in ("edge", "reflect"):
            raise ValueError(f"fill: expected {expected}, got {fill!r}")
        return fill
    try:
        return float(fill)
    except TypeError:
        raise TypeError(f"fill: expected {expected}, got {fill!r}") from None


def _pad(image: Array, pads: Pads, fill: float | str) -> Array:
    widths = [*pads, (0, 0)]
    if isinstance(fill, str):
        return jnp.pad(image, widths, mode=fill)
    return jnp.pad(image, widths, constant_values=fill)
