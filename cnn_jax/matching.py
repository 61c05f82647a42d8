"""Scores: how well every patch of an image matches a feature.

For a patch p and a feature f of n numbers, with sums over the pixels of all channels and a mean for each channel:

    match                          Σpf / n                                      the article
    cosine                         Σpf / (‖p‖ ‖f‖)                              OpenCV's TM_CCORR_NORMED
    zncc                           Σ(p - p̄)(f - f̄) / (‖p - p̄‖ ‖f - f̄‖)          OpenCV's TM_CCOEFF_NORMED
    squared_difference             Σ(p - f)²                                    OpenCV's TM_SQDIFF
    normalized_squared_difference  Σ(p - f)² / (‖p‖ ‖f‖)                        OpenCV's TM_SQDIFF_NORMED
    sharpened_cosine               sgn(c) |c|^p with c = Σpf / ((‖p‖ + q) ‖f‖)  Rohrer

Every score takes one image and one feature. `jax.vmap` over features computes the statistics of the image once.

Notes:
  Degenerate patches and features score exactly 0, with finite gradients. They are of one color (for zncc), all zero
  (for scores with norms) or fully masked. `is_defined` says where they are. Under a mask a patch is constant too if its
  contrast is below a thousandth of the difference between its brightness and the image's typical brightness.

  Pixels that are not finite affect only the patches that contain them. The scores of those are not finite.

  Accuracy. In float32 every score is within 2e-6 of the exact one, in units of

      match                          ‖p‖ ‖f‖ / n
      cosine, sharpened_cosine       1, times the exponent
      zncc                           ‖p - b‖ / ‖p - p̄‖, its square with a mask
      squared_difference             ‖p - b‖² + ‖f - b‖²
      normalized_squared_difference  ‖p‖ / ‖f‖ + ‖f‖ / ‖p‖

  where b is the typical brightness of each channel of the image, the median of its rows' means. 16-bit scores are
  computed in float32 and rounded once, at the end.

  Accuracy of method="fft". Fourier transforms round to the brightest pixels nearby: replace ‖p‖ and ‖p - b‖ by √n times
  the largest |p| and |p - b| around the patch. So the cosine of a patch that is k times fainter than its surroundings
  is k times less exact, k² times with a mask. A patch that is constant only under the mask may have a zncc of about
  1e-5 instead of 0.
"""

from collections.abc import Callable, Sequence

from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped

from . import _score_formulas
from ._score_formulas import Formula, compute_score, find_defined
from ._score_inputs import check_score_arguments
from ._typing import Padding, Scalar, Score
from ._validation import check_scalar

__all__ = [
    "Score",
    "cosine",
    "is_defined",
    "match",
    "normalized_squared_difference",
    "sharpened_cosine",
    "squared_difference",
    "zncc",
]


def match(
    image: Shaped[ArrayLike, "H W *C"],
    feature: Shaped[ArrayLike, "h w *C"],
    *,
    mask: Shaped[ArrayLike, "h w *c"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """Mean product of a feature and every patch of an image.

        out[y, x] = 1/n sum over i, j, c of image[stride y + i, stride x + j, c] feature[i, j, c],  n = h w C

    For pixels in [-1, 1] (white 1, black -1) the score lies in [-1, 1]. If all pixels are ±1, a perfect match scores 1
    and the photographic negative -1.

    Args:
      image: (H, W) or (H, W, C). Integers and bools become float32; float16 and bfloat16 accumulate in float32.
      feature: (h, w) or (h, w, C), with the channels of the image. `jax.vmap` over features gives a bank of maps,
        `jax.vmap` over images a batch, both together one dense convolution.
      mask: weights m of the feature's pixels, in the shape of the feature, or (h, w) for all channels alike. Bools and
        integers are 0 or 1. Weights enter squared: Σ m² p f / Σ m².
      stride: step between patches, an int or (rows, columns).
      padding: "VALID", "SAME", "CEIL" or ((top, bottom), (left, right)).
      fill: the value of padded pixels: a number (0 matches nothing), "edge" for the nearest pixel, or "reflect".
      method: as in `conv`.
      precision: as in `conv`. The default keeps products in full float32; TPUs would otherwise use bfloat16, and GPUs
        TF32.

    Returns:
      The match map, (H', W').

    Raises:
      ValueError: wrong ranks, channels or mask shapes, an empty array, a feature larger than the image, an unknown
        padding, fill or method, weights that are negative or not finite (not seen under `jax.jit`).
      TypeError: arrays that are not real numbers or are NumPy's masked arrays, options that are not ints.

    Source: Rohrer, "How Convolutional Neural Networks Work" (2016),
    https://brohrer.github.io/how_convolutional_neural_networks_work.html

    >>> import jax.numpy as jnp
    >>> diagonal = jnp.array([[1, -1], [-1, 1]])
    >>> match(jnp.array([[1, -1, 1], [-1, 1, -1]]), diagonal)
    Array([[ 1., -1.]], dtype=float32)
    """
    arguments = check_score_arguments(image, feature, mask, stride, padding, fill, method, precision)
    return compute_score(_score_formulas.match, *arguments)


def cosine(
    image: Shaped[ArrayLike, "H W *C"],
    feature: Shaped[ArrayLike, "h w *C"],
    *,
    mask: Shaped[ArrayLike, "h w *c"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """Cosine of the angle between a feature and every patch; invariant to scaling of either.

        out[y, x] = Σ m² p f / sqrt(Σ m² p² Σ m² f²),  m = 1 without a mask

    The score lies in [-1, 1] and is 0 where the patch or the feature is all zero. Arguments and errors are those of
    `match`.

    Source: TM_CCORR_NORMED of OpenCV's matchTemplate, https://docs.opencv.org/4.x/df/dfb/group__imgproc__object.html

    >>> import numpy as np
    >>> np.asarray(cosine(np.array([[3.0, 4.0, 0.0]]), np.array([[30.0, 40.0]])).round(2)).round(2)
    array([[1. , 0.6]], dtype=float32)
    """
    arguments = check_score_arguments(image, feature, mask, stride, padding, fill, method, precision)
    return compute_score(_score_formulas.cosine, *arguments)


def zncc(
    image: Shaped[ArrayLike, "H W *C"],
    feature: Shaped[ArrayLike, "h w *C"],
    *,
    mask: Shaped[ArrayLike, "h w *c"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """Zero-mean normalized cross-correlation; invariant to brightness and contrast of patch and feature.

        out[y, x] = Σ m² (p - p̄)(f - f̄) / sqrt(Σ m² (p - p̄)² Σ m² (f - f̄)²),  p̄ = Σ m p / Σ m,  m = 1 without a mask

    Each channel has its own means p̄ and f̄, so that a tint changes no score. The score lies in [-1, 1] and is 0 where
    the patch or the feature is of one color. Arguments and errors are those of `match`.

    Notes:
      In float32 the error is about 1e-6. It is at most 1e-5 on an image some of whose channels are a thousand times
      brighter than its contrast, and 1e-4 next to a step of that size. With a mask it is 1e-7 times the step squared.

    Source: Lewis, "Fast Normalized Cross-Correlation" (1995), http://scribblethink.org/Work/nvisionInterface/nip.html;
    TM_CCOEFF_NORMED of OpenCV's matchTemplate, https://docs.opencv.org/4.x/df/dfb/group__imgproc__object.html

    >>> import numpy as np
    >>> np.asarray(zncc(np.array([[246.0, 245.0, 246.0, 246.0]]), np.array([[1.0, 0.0]]))).round(2)
    array([[ 1., -1.,  0.]], dtype=float32)
    """
    arguments = check_score_arguments(image, feature, mask, stride, padding, fill, method, precision)
    return compute_score(_score_formulas.zncc, *arguments)


def squared_difference(
    image: Shaped[ArrayLike, "H W *C"],
    feature: Shaped[ArrayLike, "h w *C"],
    *,
    mask: Shaped[ArrayLike, "h w *c"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """Sum of squared differences between a feature and every patch; 0 is a perfect match.

        out[y, x] = Σ m² (p - f)²,  m = 1 without a mask

    The score is never negative. Arguments and errors are those of `match`.

    Source: TM_SQDIFF of OpenCV's matchTemplate, https://docs.opencv.org/4.x/df/dfb/group__imgproc__object.html

    >>> import jax.numpy as jnp
    >>> squared_difference(jnp.array([[1.0, 2.0, 4.0]]), jnp.array([[1.0, 2.0]]))
    Array([[0., 5.]], dtype=float32)
    """
    arguments = check_score_arguments(image, feature, mask, stride, padding, fill, method, precision)
    return compute_score(_score_formulas.squared_difference, *arguments)


def normalized_squared_difference(
    image: Shaped[ArrayLike, "H W *C"],
    feature: Shaped[ArrayLike, "h w *C"],
    *,
    mask: Shaped[ArrayLike, "h w *c"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """Sum of squared differences over the norms of patch and feature; 0 is a perfect match.

        out[y, x] = Σ m² (p - f)² / sqrt(Σ m² p² Σ m² f²) = ‖p‖ / ‖f‖ + ‖f‖ / ‖p‖ - 2 cosine

    The score is never negative. It is also 0 where the patch or the feature is all zero: mask with `is_defined` before
    searching for the minimum. Arguments and errors are those of `match`.

    Source: TM_SQDIFF_NORMED of OpenCV's matchTemplate, https://docs.opencv.org/4.x/df/dfb/group__imgproc__object.html

    >>> import numpy as np
    >>> np.asarray(normalized_squared_difference(np.array([[3.0, 4.0, 0.0]]), np.array([[3.0, 4.0]]))).round(2)
    array([[0.  , 0.85]], dtype=float32)
    """
    arguments = check_score_arguments(image, feature, mask, stride, padding, fill, method, precision)
    return compute_score(_score_formulas.normalized_squared_difference, *arguments)


def sharpened_cosine(
    image: Shaped[ArrayLike, "H W *C"],
    feature: Shaped[ArrayLike, "h w *C"],
    *,
    p: Scalar = 2.0,
    q: Scalar = 1e-3,
    mask: Shaped[ArrayLike, "h w *c"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
    method: str = "auto",
    precision: lax.PrecisionLike = "highest",
) -> Float[Array, "H2 W2"]:
    """Sharpened cosine similarity: a signed power of the cosine, reduced where the patch is faint.

        out[y, x] = sgn(c) |c|^p,  c = Σ m² p f / ((sqrt(Σ m² p²) + q) sqrt(Σ m² f²)),  m = 1 without a mask

    The score lies in [-1, 1] for q >= 0 and p > 0, and is 0 where the patch or the feature is all zero. Other arguments
    and errors are those of `match`.

    Args:
      p: the exponent; it can be learned.
      q: added to the patch's norm; it can be learned.

    Source: Rohrer, sharpened cosine similarity, https://github.com/brohrer/sharpened-cosine-similarity

    >>> import numpy as np
    >>> np.asarray(sharpened_cosine(np.array([[3.0, 4.0, 0.0]]), np.array([[3.0, 4.0]]), p=2, q=0).round(2)).round(2)
    array([[1.  , 0.36]], dtype=float32)
    """
    arguments = check_score_arguments(image, feature, mask, stride, padding, fill, method, precision)
    exponent = check_scalar("p", p)
    added_norm = check_scalar("q", q)
    return compute_score(_score_formulas.sharpened_cosine, *arguments, exponent, added_norm)


def is_defined(
    image: Shaped[ArrayLike, "H W *C"],
    feature: Shaped[ArrayLike, "h w *C"],
    score: Score = zncc,
    *,
    mask: Shaped[ArrayLike, "h w *c"] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    fill: float | str = 0.0,
) -> Bool[Array, "H2 W2"]:
    """Whether a score of this module is defined at every position.

    A score is undefined where the patch or the feature is degenerate (see the notes of this module) or has a pixel
    that is not finite. Degenerate scores are 0 by convention. Arguments and errors are those of `match`.

    Args:
      score: one of this module's scores; any other function raises a ValueError.

    >>> import jax.numpy as jnp
    >>> is_defined(jnp.array([[0.0, 0.0, 1.0]]), jnp.array([[1.0, 2.0]]), cosine)
    Array([[False,  True]], dtype=bool)
    """
    if score not in _FORMULAS:
        names = ", ".join(function.__name__ for function in _FORMULAS)
        raise ValueError(f"score: expected one of {names}, got {getattr(score, '__name__', score)!r}")
    arguments = check_score_arguments(image, feature, mask, stride, padding, fill, "auto", "highest")
    return find_defined(_FORMULAS[score], *arguments)


_FORMULAS: dict[Callable[..., Array], Formula] = {
    match: _score_formulas.match,
    cosine: _score_formulas.cosine,
    zncc: _score_formulas.zncc,
    squared_difference: _score_formulas.squared_difference,
    normalized_squared_difference: _score_formulas.normalized_squared_difference,
    sharpened_cosine: _score_formulas.cosine,  # defined where the cosine is
}
