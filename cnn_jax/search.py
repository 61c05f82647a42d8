"""Template search: the best matches of features in an image, at many scales and angles.

    matches = find(image, template, angles=jnp.linspace(0, 6, 24).tolist(), min_score=0.7)
    matches.y[matches.valid], matches.x[matches.valid]

Results have a fixed length, so that `find` and `peaks` run under `jax.jit` and `jax.vmap`.
"""

import math
from collections.abc import Sequence

from jaxtyping import ArrayLike, Shaped

from ._candidates import fitting_poses, group_by_shape, suppress_overlaps, top_candidates
from ._matches import Matches
from ._non_max_suppression import Kept, non_max_suppression
from ._peaks import Peaks, peaks
from ._pose_maxima import best_poses
from ._rectangles import Rectangles
from ._typing import Scalar, Score
from ._validation import as_floats, as_scalar, check_bool, check_int, check_shape
from .matching import normalized_squared_difference, squared_difference, zncc

__all__ = ["Kept", "Matches", "Peaks", "Rectangles", "find", "non_max_suppression", "peaks"]


def find(
    image: Shaped[ArrayLike, "H W *C"],
    features: Shaped[ArrayLike, "..."] | Sequence[Shaped[ArrayLike, "..."]],
    *,
    score: Score = zncc,
    mask: Shaped[ArrayLike, "..."] | Sequence[Shaped[ArrayLike, "..."] | None] | None = None,
    scales: Sequence[float] = (1.0,),
    angles: Sequence[float] = (0.0,),
    top_k: int = 10,
    min_score: Scalar = 0.5,
    max_overlap: float = 0.25,
    per_feature: bool = False,
    subpixel: bool = True,
) -> Matches:
    """Finds features in an image at all given scales and angles: the best matches after non-maximum suppression.

    Each feature is scaled and rotated (bilinearly, smoothed before it shrinks) and scored at every position, under a
    mask if rotation leaves corners empty. Only the best pose per feature and pixel is kept. The best local maximum is
    a match, maxima whose rectangles overlap it too much are dropped, and this repeats.

    Args:
      image: (H, W) or (H, W, C).
      features: one feature (h, w) or (h, w, C), a bank (K, ...), or a sequence of features of different sizes.
      score: `zncc`, `cosine`, `match`, or another function `score(image, feature, mask=...)` that grows with the match.
      mask: weights of the features' pixels as in `match`, one mask for each feature.
      scales, angles: factors, and radians counterclockwise as in `affine_matrix`; all combinations are compared. Python
        numbers, because they decide shapes. Poses in which a feature does not fit into the image are skipped. If one
        angle of a scale needs a mask, all angles of that scale are compared under masks.
      top_k: the number of matches to return.
      min_score: the lowest score of a match.
      max_overlap: how much the rotated rectangles of two matches may overlap, intersection over union, 0 to 1.
      per_feature: whether only matches of the same feature drop each other. By default all do.
      subpixel: whether to place matches between pixels, by a quadratic fit as in `peaks`.

    Returns:
      `Matches`: arrays of length `top_k`, and `found`, the number of matches without `top_k`. A match lies wholly
      inside the image.

    Raises:
      ValueError: wrong ranks, channels or masks, empty arrays, features that fit nowhere, no scale or angle, a scale
        not above 0, `max_overlap` outside [0, 1], `top_k` below 1, a squared difference as score, or a score that skips
        positions.
      TypeError: arrays that are not real numbers, scales or angles that are not Python numbers, a score that is not
        callable, `per_feature` that is not a bool.

    Notes:
      Memory: about four maps of the image's size per feature, and the rotated features. It does not grow with the
      number of poses. Two poses of one feature around the same pixel cannot both be found. The 4096 highest local
      maxima of each feature, or 32 `top_k` if these are more, take part in the suppression.

    >>> import jax.numpy as jnp
    >>> hook = jnp.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    >>> image = jnp.zeros((20, 30)).at[5:8, 10:14].set(hook).at[12:16, 21:24].set(jnp.rot90(hook))
    >>> matches = find(image, hook, angles=(0, jnp.pi / 2), top_k=3, min_score=0.9, subpixel=False)
    >>> matches.y, matches.x
    (Array([ 5., 12.,  0.], dtype=float32), Array([10., 21.,  0.], dtype=float32))
    """
    (pixels,) = as_floats(image=image)
    check_shape("image", pixels, "H W", "H W C")
    top_k = check_int("top_k", top_k)
    threshold = as_scalar("min_score", min_score)
    _check_max_overlap(max_overlap)
    per_feature = check_bool("per_feature", per_feature)
    _check_score(score)
    scales = _check_numbers("scales", scales)
    angles = _check_numbers("angles", angles)
    if min(scales) <= 0:
        raise ValueError(f"scales: expected numbers above 0, got {scales!r}")

    candidates = []
    for group in group_by_shape(features, mask, pixels.ndim):
        poses = fitting_poses(group.templates.shape[1:3], pixels.shape[:2], scales, angles)
        if poses:
            maxima = best_poses(pixels, group.templates, group.masks, poses, score)
            candidates.append(top_candidates(maxima, group.indices, poses, top_k, subpixel))
    if not candidates:
        raise ValueError(f"features: expected one that fits into the image {pixels.shape[:2]} at some scale and angle")
    return suppress_overlaps(candidates, threshold, max_overlap, top_k, per_feature)


def _check_max_overlap(max_overlap: float) -> None:
    if not 0 <= max_overlap <= 1:
        raise ValueError(f"max_overlap: expected 0 to 1, got {max_overlap!r}")


def _check_score(score: object) -> None:
    if not callable(score):
        raise TypeError(f"score: expected a function such as zncc, got {score!r}")
    for difference in (squared_difference, normalized_squared_difference):
        if score is difference:
            raise ValueError(f"score: expected one that grows with the match, got {difference.__name__}; negate it")


def _check_numbers(name: str, values: Sequence[float]) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except TypeError as error:  # also JAX's, for traced arrays
        raise TypeError(f"{name}: expected a sequence of Python numbers, got {values!r}") from error
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name}: expected at least one number, all finite, got {values!r}")
    return numbers
