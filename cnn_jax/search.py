"""Template search: the best matches of features in an image, at many scales and angles.

    matches = find(image, template, angles=jnp.linspace(0, 6, 24).tolist(), min_score=0.7)
    matches.y[matches.valid], matches.x[matches.valid]

Results have a fixed length, so that `find` and `peaks` run under `jax.jit` and `jax.vmap`.
"""

import collections
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Shaped

from ._non_max_suppression import Boxes, non_max_suppression
from ._peaks import Peaks, peaks, top_local_maxima
from ._pose_maxima import PoseMaxima, best_poses
from ._poses import Pose, make_pose
from ._typing import Scalar, Score
from ._validation import as_floats, as_scalar, broadcast_mask, check_int, check_shape
from .matching import normalized_squared_difference, squared_difference, zncc

__all__ = ["Matches", "Peaks", "find", "peaks"]

# Local maxima of each feature that take part in non-maximum suppression.
CANDIDATES_PER_MATCH = 32
MIN_CANDIDATES = 4096


class Matches(NamedTuple):
    """Features found in an image, the best first.

    `y`, `x` are the row and the column of the top left pixel of an upright box of `height` by `width` pixels around the
    feature, scaled and rotated. The box's center is at (y + (height - 1) / 2, x + (width - 1) / 2). `feature` is the
    index of the feature. Where `valid` is false there are no more matches: `feature` is -1, all other fields are 0.
    """

    y: Float[Array, " k"]
    x: Float[Array, " k"]
    score: Float[Array, " k"]
    feature: Int[Array, " k"]
    scale: Float[Array, " k"]
    angle: Float[Array, " k"]
    height: Float[Array, " k"]
    width: Float[Array, " k"]
    valid: Bool[Array, " k"]


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
    subpixel: bool = True,
) -> Matches:
    """Finds features in an image at all given scales and angles: the best matches after non-maximum suppression.

    Each feature is scaled and rotated (bilinearly, smoothed before it shrinks) and scored at every position, under a
    mask if rotation leaves corners empty. Only the best pose per feature and pixel is kept. The best local maximum is
    a match, maxima whose boxes overlap it too much are dropped, and this repeats.

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
      max_overlap: how much the boxes of two matches may overlap, intersection over union, 0 to 1.
      subpixel: whether to place matches between pixels, by a quadratic fit as in `peaks`.

    Returns:
      `Matches`, arrays of length `top_k`. A match lies wholly inside the image.

    Raises:
      ValueError: wrong ranks, channels or masks, empty arrays, features that fit nowhere, no scale or angle, a scale
        not above 0, `max_overlap` outside [0, 1], `top_k` below 1, a squared difference as score, or a score that skips
        positions.
      TypeError: arrays that are not real numbers, scales or angles that are not Python numbers, a score that is not
        callable.

    Notes:
      Memory: about four maps of the image's size per feature, and the rotated features. It does not grow with the
      number of poses. Two poses of one feature around the same pixel cannot both be found. The 4096 highest local
      maxima of each feature, or 32 `top_k` if these are more, take part in the suppression.

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
    return suppress_overlaps(candidates, threshold, max_overlap, top_k)


def _check_max_overlap(max_overlap: float) -> None:
    if not 0 <= max_overlap <= 1:
        raise ValueError(f"max_overlap: expected 0 to 1, got {max_overlap!r}")


def _check_score(score: Any) -> None:
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


class TemplateGroup(NamedTuple):
    """Features of one shape, and their indices among all features."""

    indices: list[int]
    templates: Array
    """(K, h, w, *C)."""
    masks: Array | None
    """Weights of their pixels, of the same shape."""


def group_by_shape(features: Any, mask: Any, rank: int) -> list[TemplateGroup]:
    """Checks the features and masks of `find`, and stacks those of one shape and dtype."""
    if not isinstance(features, list | tuple):
        is_single = jnp.ndim(features) == rank
        features = [features] if is_single else list(features)
        mask = [mask] if is_single and mask is not None else mask
    masks = [None] * len(features) if mask is None else list(mask)
    if len(features) == 0 or len(masks) != len(features):
        raise ValueError(
            "features: expected at least one feature and one mask per feature, "
            f"got {len(features)} features and {len(masks)} masks"
        )
    groups = collections.defaultdict(list)
    for index, (feature, weights) in enumerate(zip(features, masks, strict=True)):
        (template,) = as_floats(features=feature)
        check_shape("features", template, "h w C" if rank == 3 else "h w")
        template_mask = None if weights is None else broadcast_mask(weights, template.shape)
        mask_dtype = None if template_mask is None else template_mask.dtype
        groups[template.shape, template.dtype, mask_dtype].append((index, template, template_mask))
    return [_stack_group(members) for members in groups.values()]


def _stack_group(members: list[tuple[int, Array, Array | None]]) -> TemplateGroup:
    indices, templates, masks = zip(*members, strict=True)
    return TemplateGroup(list(indices), jnp.stack(templates), None if masks[0] is None else jnp.stack(masks))


def fitting_poses(
    template_size: Sequence[int], image_size: Sequence[int], scales: Sequence[float], angles: Sequence[float]
) -> list[Pose]:
    """All poses whose boxes fit into the image; those of one scale are consecutive."""
    poses = [make_pose(template_size, scale, angle) for scale, angle in itertools.product(scales, angles)]
    return [pose for pose in poses if pose.box[0] <= image_size[0] and pose.box[1] <= image_size[1]]


def top_candidates(
    maxima: PoseMaxima, feature_indices: Sequence[int], poses: Sequence[Pose], top_k: int, subpixel: bool
) -> Matches:
    """The highest local maxima of each feature, as matches before non-maximum suppression."""
    count = max(MIN_CANDIDATES, CANDIDATES_PER_MATCH * top_k)
    of_feature = functools.partial(_feature_candidates, poses=poses, count=count, subpixel=subpixel)
    candidates = jax.vmap(of_feature)(maxima, jnp.array(feature_indices, jnp.int32))
    return Matches(*(field.ravel() for field in candidates))


def _feature_candidates(
    maxima: PoseMaxima, feature_index: Array, *, poses: Sequence[Pose], count: int, subpixel: bool
) -> Matches:
    """The `count` highest local maxima of one feature's maps (H, W)."""
    dtype = maxima.score.dtype
    index, score = top_local_maxima(maxima.score, (1, 1), count)
    pose_index, dy, dx = (field.ravel()[index] for field in (maxima.pose, maxima.dy, maxima.dx))
    boxes = np.array([pose.box for pose in poses])
    height, width = jnp.array(boxes, dtype)[pose_index].T
    row, column = jnp.divmod(index, maxima.score.shape[1])
    y = row.astype(dtype) - (height - 1) // 2
    x = column.astype(dtype) - (width - 1) // 2
    return Matches(
        y=y + dy if subpixel else y,
        x=x + dx if subpixel else x,
        score=score,
        feature=jnp.full_like(index, feature_index),
        scale=jnp.array([pose.scale for pose in poses], dtype)[pose_index],
        angle=jnp.array([pose.angle for pose in poses], dtype)[pose_index],
        height=height,
        width=width,
        valid=score > -jnp.inf,
    )


def suppress_overlaps(candidates: Sequence[Matches], min_score: Array, max_overlap: float, top_k: int) -> Matches:
    """The best `top_k` candidates of at least `min_score` after non-maximum suppression."""
    merged = Matches(*(jnp.concatenate(fields) for fields in zip(*candidates, strict=True)))
    boxes = Boxes(merged.y, merged.x, merged.height, merged.width)
    scores = jnp.where(merged.score >= min_score.astype(merged.score.dtype), merged.score, -jnp.inf)
    match_indices = non_max_suppression(boxes, scores, max_overlap=max_overlap, top_k=top_k)
    best = [field[match_indices] for field in merged]
    matches = Matches(*(jnp.where(match_indices >= 0, field, jnp.zeros_like(field)) for field in best))
    return matches._replace(feature=jnp.where(matches.valid, matches.feature, -1))
