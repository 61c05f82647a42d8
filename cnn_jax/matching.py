"""How well each patch of an image matches a feature.

With a patch p and a feature f of n pixels, and all sums over the pixels of the patch:

    match                          Σpf / n                                      the article
    cosine                         Σpf / (‖p‖ ‖f‖)                              OpenCV's TM_CCORR_NORMED
    zncc                           Σ(p - p̄)(f - f̄) / (‖p - p̄‖ ‖f - f̄‖)          OpenCV's TM_CCOEFF_NORMED
    squared_difference             Σ(p - f)²                                    OpenCV's TM_SQDIFF
    normalized_squared_difference  Σ(p - f)² / (‖p‖ ‖f‖)                        OpenCV's TM_SQDIFF_NORMED
    sharpened_cosine               sgn(c) |c|^p with c = Σpf / ((‖p‖ + q) ‖f‖)  Rohrer

Every score takes one image and one feature; `jax.vmap` over features computes what concerns the image alone once. A
patch or feature with nothing to compare (flat for zncc, zero for those with norms, all masked) scores exactly 0 and
has finite gradients; `defined` says where. The scores of patches
that hold a pixel that is not finite are not finite either; all others are what they were.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Num

from .convolution import wide_conv
from .windows import Padding, Pads, Pair, accumulator, as_floats, check_shape, fold, pads, pair, walled

# What a window's pixels may exceed the image's usual contrast by: squares of this are still far from overflow.
LARGEST = 2.0**50
# Up to about this many pixels in each direction tell an image's usual brightness and contrast.
SAMPLES = 64


def match(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    *,
    mask: Num[Array, "h w *C"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
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
      mask: which pixels of the feature count, in the shape of the feature: bools and integers (0 or not), or floats as
        weights m, which enter squared: Σ m² p f / Σ m².
      stride: steps between patches, an int or (rows, columns).
      padding: "VALID", "SAME", "CEIL" or ((top, bottom), (left, right)).
      fill: what padded cells hold: a number (0 matches nothing), "edge" for the nearest pixel, or "reflect".
      method, precision: as in `conv`.

    Returns:
      The match map, (H', W').

    Raises:
      ValueError: ranks, channels or masks that differ, an empty array, a feature larger than the image, an unknown
        padding, fill or method.
      TypeError: arrays that are not real numbers, options that are not ints.

    Source: Rohrer, "How Convolutional Neural Networks Work" (2016).

    >>> import jax.numpy as jnp
    >>> diagonal = jnp.array([[1, -1], [-1, 1]])
    >>> match(jnp.array([[1, -1, 1], [-1, 1, -1]]), diagonal)
    Array([[ 1., -1.]], dtype=float32)
    """
    inputs = _inputs(image, feature, mask, stride, padding, fill, method, precision)
    return _match(inputs)[0].astype(inputs.dtype)


def cosine(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    *,
    mask: Num[Array, "h w *C"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """The cosine of the angle between a feature and every patch: how alike they are, whatever their brightness scale.

        out[y, x] = Σ m² p f / sqrt(Σ m² p² Σ m² f²),  m = 1 without a mask

    In [-1, 1], and 0 where patch or feature is all zero. Within 2e-6 of the exact value in float32. Arguments and
    errors are those of `match`; `precision` is the highest unless told otherwise.

    Source: TM_CCORR_NORMED of OpenCV's matchTemplate.

    >>> import numpy as np
    >>> np.asarray(cosine(np.array([[3.0, 4.0, 0.0]]), np.array([[30.0, 40.0]])).round(2)).round(2)
    array([[1. , 0.6]], dtype=float32)
    """
    inputs = _inputs(image, feature, mask, stride, padding, fill, method, precision)
    return _cosine(inputs)[0].astype(inputs.dtype)


def zncc(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    *,
    mask: Num[Array, "h w *C"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """Zero-mean normalized cross-correlation: how alike patch and feature are, whatever their brightness and contrast.

        out[y, x] = Σ m² (p - p̄)(f - f̄) / sqrt(Σ m² (p - p̄)² Σ m² (f - f̄)²),  p̄ = Σ m p / Σ m,  m = 1 without a mask

    In [-1, 1], and 0 where patch or feature is flat. In float32 the error is about 1e-6, at most 1e-5 on an image whose
    brightness lies a thousand times its contrast away from zero, and at most 1e-4 where the brightness steps by as
    much. With a mask the last is the step's square times 1e-7.

    Arguments and errors are those of `match`; `precision` is the highest unless told otherwise.

    Source: Lewis, "Fast Normalized Cross-Correlation" (1995); TM_CCOEFF_NORMED of OpenCV's matchTemplate. The sums of
    squares are put together from halves by the rule of Chan, Golub and LeVeque (1979), and subtract no large numbers.

    >>> import numpy as np
    >>> np.asarray(zncc(np.array([[246.0, 245.0, 246.0, 246.0]]), np.array([[1.0, 0.0]]))).round(2)
    array([[ 1., -1.,  0.]], dtype=float32)
    """
    inputs = _inputs(image, feature, mask, stride, padding, fill, method, precision)
    return _zncc(inputs)[0].astype(inputs.dtype)


def squared_difference(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    *,
    mask: Num[Array, "h w *C"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """The sum of squared differences between a feature and every patch: 0 is a perfect match.

        out[y, x] = Σ m² (p - f)²,  m = 1 without a mask

    Never negative; the error is about 1e-6 of the sum of the squared contrasts of patch and feature. Arguments and
    errors are those of `match`; `precision` is the highest unless told otherwise.

    Source: TM_SQDIFF of OpenCV's matchTemplate.

    >>> import jax.numpy as jnp
    >>> squared_difference(jnp.array([[1.0, 2.0, 4.0]]), jnp.array([[1.0, 2.0]]))
    Array([[0., 5.]], dtype=float32)
    """
    inputs = _inputs(image, feature, mask, stride, padding, fill, method, precision)
    return _squared_difference(inputs)[0].astype(inputs.dtype)


def normalized_squared_difference(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    *,
    mask: Num[Array, "h w *C"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """The squared difference in units of both norms: 0 is a perfect match.

        out[y, x] = Σ m² (p - f)² / sqrt(Σ m² p² Σ m² f²) = ‖p‖ / ‖f‖ + ‖f‖ / ‖p‖ - 2 cosine

    Never negative; 0 too where patch or feature is all zero, so ask `defined` before taking the least. Arguments and
    errors are those of `match`; `precision` is the highest unless told otherwise.

    Source: TM_SQDIFF_NORMED of OpenCV's matchTemplate.

    >>> import numpy as np
    >>> np.asarray(normalized_squared_difference(np.array([[3.0, 4.0, 0.0]]), np.array([[3.0, 4.0]]))).round(2)
    array([[0.  , 0.85]], dtype=float32)
    """
    inputs = _inputs(image, feature, mask, stride, padding, fill, method, precision)
    return _normalized_squared_difference(inputs)[0].astype(inputs.dtype)


def sharpened_cosine(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    *,
    p: float | Float[Array, ""] = 2.0,
    q: float | Float[Array, ""] = 1e-3,
    mask: Num[Array, "h w *C"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """The cosine made sharper by a power, and weaker where the patch is faint; `p` and `q` can be learned.

        out[y, x] = sgn(c) |c|^p,  c = Σ m² p f / ((sqrt(Σ m² p²) + q) sqrt(Σ m² f²)),  m = 1 without a mask

    In [-1, 1] for q >= 0 and p > 0, and 0 where patch or feature is all zero. Other arguments and errors are those of
    `match`; `precision` is the highest unless told otherwise.

    Source: Rohrer, sharpened cosine similarity.

    >>> import numpy as np
    >>> np.asarray(sharpened_cosine(np.array([[3.0, 4.0, 0.0]]), np.array([[3.0, 4.0]]), p=2, q=0).round(2)).round(2)
    array([[1.  , 0.36]], dtype=float32)
    """
    inputs = _inputs(image, feature, mask, stride, padding, fill, method, precision)
    (p, q), wide = as_floats(p=p, q=q), inputs.image.dtype
    for name, value in (("p", p), ("q", q)):
        if value.shape:
            raise ValueError(f"{name}: expected one number, got shape {value.shape}; use jax.vmap for several")
    p, q = p.astype(wide), q.astype(wide)
    cos, ok, patch_norm, _ = _cosine(inputs)
    there = ok & (cos != 0)
    shrunk = jnp.where(there, jnp.abs(cos) * patch_norm / jnp.where(there, patch_norm + q, 1), 1)
    return jnp.where(there, jnp.sign(cos) * shrunk**p, jnp.where(jnp.isnan(cos), cos, 0)).astype(inputs.dtype)


def defined(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    score: Callable[..., Array] = zncc,
    *,
    mask: Num[Array, "h w *C"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
) -> Bool[Array, "H2 W2"]:
    """Where a score of this room compares something: neither patch nor feature is flat, zero, all masked or not finite.

    Elsewhere the score is 0 by decree, or not finite. Arguments and errors are those of `match`; `score` is one of the
    functions of this room, else a ValueError.

    >>> import jax.numpy as jnp
    >>> defined(jnp.array([[0.0, 0.0, 1.0]]), jnp.array([[1.0, 2.0]]), cosine)
    Array([[False,  True]], dtype=bool)
    """
    if score not in PARTS:
        names = ", ".join(each.__name__ for each in PARTS)
        raise ValueError(f"score: expected one of {names}, got {getattr(score, '__name__', score)!r}")
    value, ok, *_ = PARTS[score](_inputs(image, feature, mask, stride, padding, fill, "auto", "highest"))
    return ok & jnp.isfinite(value)


class _Inputs(NamedTuple):
    """Checked arguments: image (H, W, C) with its border, feature (h, w, C), both in the dtype to compute in."""

    image: Array
    feature: Array
    mask: Array | None
    binary: bool
    stride: Pair
    dot: Callable[[Array, Array], Array]
    dtype: Any

    @property
    def window(self) -> Pair:
        """The feature's rows and columns."""
        return self.feature.shape[0], self.feature.shape[1]

    def weighted(self, feature: Array) -> Array:
        """m² times an array like the feature, and 0 rather than NaN where m is 0."""
        return feature if self.mask is None else jnp.where(self.mask != 0, self.mask**2 * feature, 0)

    def total(self) -> Array | int:
        """Σ m²."""
        return self.feature.size if self.mask is None else (self.mask**2).sum()

    def sum_squares(self, image: Array) -> Array:
        """Σ m² p² over every patch of an image like ours."""
        squares = image**2
        if self.mask is not None:
            return jnp.maximum(self.dot(squares, self.mask**2), 0)
        return fold(squares.sum(axis=-1), self.window, self.stride, NO_BORDER, 0, lambda a, b, *_: a + b)


def _inputs(
    image: Any,
    feature: Any,
    mask: Any,
    stride: int | Sequence[int],
    padding: Padding,
    fill: float | str,
    method: str,
    precision: lax.PrecisionLike,
) -> _Inputs:
    image, feature = as_floats(image=image, feature=feature)
    check_shape("image", image, "H W", "H W C")
    check_shape("feature", feature, "h w", "h w C")
    if image.shape[2:] != feature.shape[2:]:
        raise ValueError(
            f"feature: expected the channels of the image of shape {image.shape}, got shape {feature.shape}"
        )
    if feature.shape[0] > image.shape[0] or feature.shape[1] > image.shape[1]:
        raise ValueError(f"feature: expected at most the size of the image {image.shape[:2]}, got {feature.shape[:2]}")
    dtype, wide = image.dtype, accumulator(image.dtype)
    steps = pair("stride", stride)
    border = pads(padding, image.shape[:2], feature.shape[:2], steps, names=("image", "feature"))
    image, feature = (array.astype(wide).reshape(*array.shape[:2], -1) for array in (image, feature))
    binary = True
    if mask is not None:
        (weights,) = as_floats(mask=mask)
        binary = not jnp.issubdtype(jnp.asarray(mask).dtype, jnp.floating)
        mask = (weights != 0).astype(weights.dtype) if binary else weights
        if mask.size and mask.reshape(*mask.shape[:2], -1).shape != feature.shape:
            raise ValueError(f"mask: expected the shape of the feature {feature.shape}, got {mask.shape}")
        mask = mask.astype(wide).reshape(feature.shape)
    dot = functools.partial(_dot, stride=steps, method=method, precision=precision)
    return _Inputs(_bordered(image, border, fill), feature, mask, binary, steps, dot, dtype)


def _dot(image: Array, kernel: Array, *, stride: Pair, method: str, precision: lax.PrecisionLike) -> Array:
    out = wide_conv(image, kernel[..., None], stride=stride, padding="VALID", method=method, precision=precision)
    return out[..., 0]


def _bordered(image: Array, border: Pads, fill: float | str) -> Array:
    widths = [*border, (0, 0)]
    if isinstance(fill, str):
        if fill not in ("edge", "reflect"):
            raise ValueError(f"fill: expected a number, 'edge' or 'reflect', got {fill!r}")
        return jnp.pad(image, widths, mode=fill)
    try:
        return jnp.pad(image, widths, constant_values=float(fill))
    except TypeError:
        raise TypeError(f"fill: expected a number, 'edge' or 'reflect', got {fill!r}") from None


# The scores: each gives its map, where it is defined, and what others make use of.


def _match(inputs: _Inputs) -> tuple[Array, Array]:
    total = inputs.total()
    ok = jnp.asarray(total) > 0
    dot = inputs.dot(inputs.image, inputs.weighted(inputs.feature))
    out = jnp.where(ok, dot / jnp.where(ok, total, 1).astype(dot.dtype), 0)
    return out, jnp.broadcast_to(ok, out.shape)


def _cosine(inputs: _Inputs) -> tuple[Array, Array, Array, Array]:
    """The cosine, where it is defined, and the norms of the patches and of the feature."""
    _, contrast = _typical(inputs.image, centred=False)
    image, (feature, scale) = _limited(inputs.image / contrast), _scaled(inputs.feature, inputs)
    dot = inputs.dot(image, inputs.weighted(feature))
    patch, own = inputs.sum_squares(image), inputs.weighted(feature**2).sum()
    out, ok = _ratio(dot, patch, own)
    norms = [jnp.where(ok, jnp.sqrt(jnp.where(ok, squares, 1)), 0) for squares in (patch, own)]
    return out, ok, norms[0] * contrast, norms[1] * scale


def _zncc(inputs: _Inputs) -> tuple[Array, Array]:
    centre, contrast = _typical(inputs.image, centred=True)
    image = _limited((inputs.image - centre) / contrast)
    feature, _ = _scaled(_centred(inputs), inputs)
    kernel, own = inputs.weighted(feature), inputs.weighted(feature**2).sum()
    dot = inputs.dot(image, kernel)
    if inputs.mask is None:
        patch = _moments(image, inputs)[1]
    else:
        mask, total = inputs.mask, inputs.mask.sum()
        mean = inputs.dot(image, mask) / jnp.where(total > 0, total, 1)
        linear = mean * total if inputs.binary else inputs.dot(image, mask**2)
        squares = inputs.sum_squares(image)
        patch = squares - 2 * mean * linear + mean**2 * (mask**2).sum()
        patch = jnp.where(patch > 8 * jnp.finfo(patch.dtype).eps * squares, patch, 0)  # rounding alone
        dot = dot - mean * kernel.sum()
    return _ratio(dot, patch, own)


def _squared_difference(inputs: _Inputs) -> tuple[Array, Array]:
    centre, _ = _typical(inputs.image, centred=True)
    image, feature = inputs.image - centre, inputs.feature - centre
    if inputs.mask is None:
        mean, spread = _moments(image, inputs)
        own = feature.mean()
        rest = feature - own
        out = (mean - own) ** 2 * feature.size + spread + (rest**2).sum() - 2 * inputs.dot(image, rest)
    else:
        cross = inputs.dot(image, inputs.weighted(feature))
        out = inputs.sum_squares(image) + inputs.weighted(feature**2).sum() - 2 * cross
    ok = jnp.asarray(inputs.total()) > 0
    return jnp.where(ok, jnp.maximum(out, 0), 0), jnp.broadcast_to(ok, out.shape)


def _normalized_squared_difference(inputs: _Inputs) -> tuple[Array, Array]:
    cos, ok, patch, own = _cosine(inputs)
    patch, own = jnp.where(ok, patch, 1), jnp.where(ok, own, 1)
    return jnp.where(ok, jnp.maximum(patch / own + own / patch - 2 * cos, 0), jnp.where(jnp.isnan(cos), cos, 0)), ok


def _ratio(dot: Array, patch: Array, own: Array) -> tuple[Array, Array]:
    """dot / sqrt(patch own) in [-1, 1], and 0 where there is nothing to divide by."""

    def inverse_root(squares: Array) -> Array:
        there = squares > 0
        root = lax.rsqrt(jnp.where(there, squares, 1))
        return jnp.where(there, root, jnp.where(jnp.isnan(squares), jnp.nan, 0).astype(root.dtype))

    # By itself, so that a bank of features does not compute it once for each of them.
    out = jnp.clip(dot * walled(inverse_root, patch) * inverse_root(own), -1, 1)
    return out, (patch > 0) & (own > 0)


def _moments(image: Array, inputs: _Inputs) -> tuple[Array, Array]:
    """The mean of every patch and the sum of its squared deviations from it, (H', W'), without a mask."""
    channels = jnp.moveaxis(image, -1, 0)

    def moments(channel: Array) -> tuple[Array, Array]:
        start = channel, jnp.zeros_like(channel)
        return fold(start, inputs.window, inputs.stride, NO_BORDER, 0, _merge)

    means, spreads = jax.vmap(moments)(channels)
    if len(channels) == 1:
        return means[0], spreads[0]
    mean = means.mean(axis=0)
    pixels = inputs.feature.shape[0] * inputs.feature.shape[1]
    return mean, spreads.sum(axis=0) + ((means - mean[None]) ** 2).sum(axis=0) * pixels


def _merge(a: tuple[Array, Array], b: tuple[Array, Array], many: int, few: int) -> tuple[Array, Array]:
    """Mean and spread of two sets of pixels together; of equal means none is changed, so that flat stays flat."""
    step = b[0] - a[0]
    return a[0] + step * (few / (many + few)), a[1] + b[1] + step**2 * (many * few / (many + few))


def _centred(inputs: _Inputs) -> Array:
    """The feature less its mean, Σ m f / Σ m; exactly 0 where it is flat."""
    feature = inputs.feature
    weights = jnp.ones_like(feature) if inputs.mask is None else inputs.mask
    counts = weights != 0
    level = lax.stop_gradient(jnp.where(counts, feature, -jnp.inf).max())
    feature = jnp.where(counts, feature - jnp.where(jnp.isneginf(level), 0, level), 0)
    total = jnp.where(counts, weights, 0).sum()
    for _ in range(2):  # the second time takes away what rounding left the first time
        feature = jnp.where(counts, feature - (weights * feature).sum() / jnp.where(total != 0, total, 1), 0)
    return feature


def _scaled(feature: Array, inputs: _Inputs) -> tuple[Array, Array]:
    """The feature divided by its largest magnitude, and that."""
    counts = True if inputs.mask is None else inputs.mask != 0
    scale = lax.stop_gradient(jnp.where(counts, jnp.abs(feature), 0).max())
    scale = jnp.where(scale > 0, scale, 1)
    return feature / scale, scale


def _typical(image: Array, *, centred: bool) -> tuple[Array, Array]:
    """An image's usual brightness, or 0, and its usual contrast to it: medians over rows, so that no pixel rules both.

    Scores do not depend on either; they only keep sums small, so no gradient passes through them.
    """
    image = lax.stop_gradient(image)
    sample = image[:: -(-image.shape[0] // SAMPLES), :: -(-image.shape[1] // SAMPLES)]
    rows = sample.reshape(len(sample), -1)
    finite = jnp.isfinite(rows)
    counts = finite.sum(axis=1).astype(rows.dtype)

    def median(rows: Array) -> Array:
        means = jnp.where(finite, rows / jnp.maximum(counts, 1)[:, None], 0).sum(axis=1)
        return jnp.nan_to_num(jnp.nanmedian(jnp.where(counts > 0, means, jnp.nan)))

    centre = median(rows) if centred else jnp.zeros((), rows.dtype)
    usual = median(jnp.abs(rows - centre))
    largest = jnp.maximum(image.max() - centre, centre - image.min())  # where most of the image is flat
    contrast = jnp.where(usual > 0, usual, jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 1))
    return centre, contrast


def _limited(image: Array) -> Array:
    return jnp.where(jnp.isfinite(image), jnp.clip(image, -LARGEST, LARGEST), jnp.nan)


NO_BORDER = ((0, 0), (0, 0))
PARTS = {
    match: _match,
    cosine: _cosine,
    zncc: _zncc,
    squared_difference: _squared_difference,
    normalized_squared_difference: _normalized_squared_difference,
    sharpened_cosine: _cosine,
}
