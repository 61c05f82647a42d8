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
has finite gradients; `is_defined` says where. Under a mask, a patch is flat to rounding: with a contrast of less than a
thousandth of its brightness above the image's usual one. The scores of patches that hold a pixel that is not finite are
not finite either; all others are what they were.

In float32 every score is within 2e-6 of the exact one, in units of

    match                          ‖p‖ ‖f‖ / n
    cosine, sharpened_cosine       1, times the exponent
    zncc                           ‖p - b‖ / ‖p - p̄‖, with a mask its square
    squared_difference             ‖p - b‖² + ‖f - b‖²
    normalized_squared_difference  ‖p‖ / ‖f‖ + ‖f‖ / ‖p‖

where b is the image's usual brightness, the median of its rows' means. Fourier transforms, method "fft", round to the
brightest pixels instead: for ‖p‖ and ‖p - b‖ read √n times the largest |p| and |p - b| near by, so that the cosine of a
patch k times fainter is k times less exact, or with a mask k² times, and one that is flat under the mask alone may have
a zncc of some 1e-5. Scores of 16 bits are rounded to them at the end.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Num

from . import _patch_statistics
from ._typing import Padding
from ._validation import as_floats


def match(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    *,
    mask: Num[Array, "h w *c"] | None = None,
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
      mask: which pixels of the feature count, in the shape of the feature, or (h, w) for all channels alike: bools and
        integers (0 or not), or floats as weights m, which enter squared: Σ m² p f / Σ m².
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
    inputs = _patch_statistics.prepare(image, feature, mask, stride, padding, fill, method, precision)
    return _patch_statistics.match(inputs)[0].astype(inputs.dtype)


def cosine(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    *,
    mask: Num[Array, "h w *c"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """The cosine of the angle between a feature and every patch: how alike they are, whatever their brightness scale.

        out[y, x] = Σ m² p f / sqrt(Σ m² p² Σ m² f²),  m = 1 without a mask

    In [-1, 1], and 0 where patch or feature is all zero. Within 2e-6 of the exact value in float32, but see the room's
    note on Fourier transforms. Arguments and errors are those of `match`; `precision` is the highest unless told
    otherwise.

    Source: TM_CCORR_NORMED of OpenCV's matchTemplate.

    >>> import numpy as np
    >>> np.asarray(cosine(np.array([[3.0, 4.0, 0.0]]), np.array([[30.0, 40.0]])).round(2)).round(2)
    array([[1. , 0.6]], dtype=float32)
    """
    inputs = _patch_statistics.prepare(image, feature, mask, stride, padding, fill, method, precision)
    return _patch_statistics.cosine(inputs)[0].astype(inputs.dtype)


def zncc(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    *,
    mask: Num[Array, "h w *c"] | None = None,
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
    inputs = _patch_statistics.prepare(image, feature, mask, stride, padding, fill, method, precision)
    return _patch_statistics.zncc(inputs)[0].astype(inputs.dtype)


def squared_difference(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    *,
    mask: Num[Array, "h w *c"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """The sum of squared differences between a feature and every patch: 0 is a perfect match.

        out[y, x] = Σ m² (p - f)²,  m = 1 without a mask

    Never negative; the error is about 1e-6 of the sum of the squared contrasts of patch and feature, to the image's
    usual brightness. Arguments and errors are those of `match`; `precision` is the highest unless told otherwise.

    Source: TM_SQDIFF of OpenCV's matchTemplate.

    >>> import jax.numpy as jnp
    >>> squared_difference(jnp.array([[1.0, 2.0, 4.0]]), jnp.array([[1.0, 2.0]]))
    Array([[0., 5.]], dtype=float32)
    """
    inputs = _patch_statistics.prepare(image, feature, mask, stride, padding, fill, method, precision)
    return _patch_statistics.squared_difference(inputs)[0].astype(inputs.dtype)


def normalized_squared_difference(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    *,
    mask: Num[Array, "h w *c"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """The squared difference in units of both norms: 0 is a perfect match.

        out[y, x] = Σ m² (p - f)² / sqrt(Σ m² p² Σ m² f²) = ‖p‖ / ‖f‖ + ‖f‖ / ‖p‖ - 2 cosine

    Never negative; 0 too where patch or feature is all zero, so ask `is_defined` before taking the least. Arguments and
    errors are those of `match`; `precision` is the highest unless told otherwise.

    Source: TM_SQDIFF_NORMED of OpenCV's matchTemplate.

    >>> import numpy as np
    >>> np.asarray(normalized_squared_difference(np.array([[3.0, 4.0, 0.0]]), np.array([[3.0, 4.0]]))).round(2)
    array([[0.  , 0.85]], dtype=float32)
    """
    inputs = _patch_statistics.prepare(image, feature, mask, stride, padding, fill, method, precision)
    return _patch_statistics.normalized_squared_difference(inputs)[0].astype(inputs.dtype)


def sharpened_cosine(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    *,
    p: float | Float[Array, ""] = 2.0,
    q: float | Float[Array, ""] = 1e-3,
    mask: Num[Array, "h w *c"] | None = None,
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
    inputs = _patch_statistics.prepare(image, feature, mask, stride, padding, fill, method, precision)
    (p, q), wide = as_floats(p=p, q=q), inputs.image.dtype
    for name, value in (("p", p), ("q", q)):
        if value.shape:
            raise ValueError(f"{name}: expected one number, got shape {value.shape}; use jax.vmap for several")
    p, q = p.astype(wide), q.astype(wide)
    cos, ok, patch_norm, _ = _patch_statistics.cosine(inputs)
    there = ok & (cos != 0)
    shrunk = jnp.where(there, jnp.abs(cos) * patch_norm / jnp.where(there, patch_norm + q, 1), 1)
    return jnp.where(there, jnp.sign(cos) * shrunk**p, jnp.where(jnp.isnan(cos), cos, 0)).astype(inputs.dtype)


def is_defined(
    image: Num[Array, "H W *C"],
    feature: Num[Array, "h w *C"],
    score: Callable[..., Array] = zncc,
    *,
    mask: Num[Array, "h w *c"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
) -> Bool[Array, "H2 W2"]:
    """Where a score of this room compares something: neither patch nor feature is flat, zero, all masked or not finite.

    Elsewhere the score is 0 by decree, or not finite. Arguments and errors are those of `match`; `score` is one of the
    functions of this room, else a ValueError.

    >>> import jax.numpy as jnp
    >>> is_defined(jnp.array([[0.0, 0.0, 1.0]]), jnp.array([[1.0, 2.0]]), cosine)
    Array([[False,  True]], dtype=bool)
    """
    if score not in PARTS:
        names = ", ".join(each.__name__ for each in PARTS)
        raise ValueError(f"score: expected one of {names}, got {getattr(score, '__name__', score)!r}")
    value, ok, *_ = PARTS[score](
        _patch_statistics.prepare(image, feature, mask, stride, padding, fill, "auto", "highest")
    )
    return ok & jnp.isfinite(value)


PARTS = {
    match: _patch_statistics.match,
    cosine: _patch_statistics.cosine,
    zncc: _patch_statistics.zncc,
    squared_difference: _patch_statistics.squared_difference,
    normalized_squared_difference: _patch_statistics.normalized_squared_difference,
    sharpened_cosine: _patch_statistics.cosine,
}
