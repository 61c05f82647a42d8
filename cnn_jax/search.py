"""Template search: the best matches of features in an image, at many scales and angles.

    matches = find(image, template, angles=jnp.linspace(0, 6, 24).tolist(), min_score=0.7)
    matches.y[matches.valid], matches.x[matches.valid]

Results have a fixed length, so that `find` and `peaks` run under `jax.jit` and `jax.vmap`.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Shaped

from ._candidates import Group, MatchOptions, group_candidates, make_groups, suppress_overlaps
from ._matches import Matches
from ._peaks import Peaks, peaks
from ._poses import Canvas
from ._region import Rectangle, Region, allowed_pixels, check_region, cut_out, searched_part
from ._search_inputs import Stack, as_image, as_stacks, shapes_text
from ._search_options import (
    check_max_overlap,
    check_min_visible,
    check_numbers,
    check_ranking,
    check_scales,
    check_threshold,
    without_undefined,
)
from ._typing import Pair, Scalar, Score
from ._validation import as_floats, check_bool, check_int
from .matching import zncc

__all__ = ["Matches", "Peaks", "find", "peaks"]


def find(
    image: Shaped[ArrayLike, "H W *C"],
    features: Shaped[ArrayLike, "..."] | Sequence[Shaped[ArrayLike, "..."]],
    *,
    score: Score = zncc,
    mask: Shaped[ArrayLike, "..."] | Sequence[Shaped[ArrayLike, "..."] | None] | None = None,
    scales: Sequence[float] = (1.0,),
    angles: Sequence[float] = (0.0,),
    top_k: int = 10,
    min_score: Scalar | None = None,
    max_score: Scalar | None = None,
    max_overlap: float = 0.25,
    per_feature: bool = False,
    subpixel: bool = True,
    polarity: str = "same",
    region: Sequence[int] | Bool[ArrayLike, "H W"] | None = None,
    min_visible: float = 1.0,
) -> Matches:
    """Finds features in an image at all given scales and angles: the best matches after non-maximum suppression.

    Each feature is scaled and rotated (bilinearly, smoothed before it shrinks) and scored at every position, under a
    mask if rotation leaves corners empty. Only the best pose per feature and pixel is kept. The best local maximum is
    a match, maxima whose boxes overlap it too much are dropped, and this repeats.

    Args:
      image: (H, W) or (H, W, C).
      features: one feature (h, w) or (h, w, C), a bank (K, ...), or a list of features of different sizes.
      score: `zncc`, `cosine`, `match`, or another function `score(image, feature, mask=...)` that grows with the match,
        or `squared_difference` or `normalized_squared_difference`. It is compiled once for every function object, so a
        new `lambda` or `functools.partial` for every call is compiled for every call.
      mask: weights of the features' pixels as in `match`, one mask for each feature.
      scales, angles: factors, and radians counterclockwise as in `affine_matrix`; all combinations are compared. Python
        numbers, because they decide shapes. Poses in which a feature does not fit into the image are skipped.
      top_k: the number of matches to return.
      min_score: the lowest score of a match, 0.5 by default.
      max_score: the highest score of a match, for the two squared differences, which need it instead of `min_score`.
        The best match has the smallest score.
      max_overlap: how much the boxes of two matches may overlap, intersection over union, 0 to 1. Boxes are turned by
        the angles of their matches.
      per_feature: whether only matches of the same feature are dropped for their overlap.
      subpixel: whether to place matches between pixels, by a quadratic fit as in `peaks`.
      polarity: "same", or "either" to find photographic negatives too: matches are ranked and compared with `min_score`
        by the magnitude of the score. The score of a negative is negative. Only for `match`, `cosine`, `zncc` and
        `sharpened_cosine`.
      region: where the centers of matches may lie: (top, left, height, width) in whole pixels, Python ints, or a mask
        (H, W) of bools. The center is a box's middle pixel, the first of two if a side is even. Only the pixels that
        matter to a rectangle are searched.
      min_visible: the smallest part of a feature's weight that lies inside the image, above 0, at most 1. Below 1,
        objects that the border cuts are compared by their visible part, and boxes may reach over the border. Only for
        scores of `cnn_jax.matching`; `sharpened_cosine` itself, with its default exponent.

    Returns:
      `Matches`: arrays of length `top_k`, and `found`, the number of matches without `top_k`. A match lies wholly
      inside the image, if `min_visible` is 1.

    Raises:
      ValueError: wrong ranks, channels or masks, a color feature for a gray image or the reverse, an alpha channel,
        empty arrays, a feature with NaN or infinity that is not masked out (not seen under `jax.jit`: such a feature
        is found nowhere), features that fit nowhere, no scale or angle, a scale not above 0, `max_overlap` outside
        [0, 1], `min_visible` outside (0, 1], `top_k` below 1, a missing or superfluous `max_score`, a polarity or
        visible part that the score does not have, a region outside of the image or without pixels, or a score that
        skips positions.
      TypeError: arrays that are not real numbers, lists of numbers or names of files instead of arrays, scales or
        angles that are not Python numbers, a score that is not callable.

    Notes:
      Cost: one score map for each feature and pose. Up to two scales without rotation take the time of as many calls of
      the score. Rotated features, and more scales, are compared under masks: two to three times slower, and as exact as
      scores with a mask. Scales within a factor of four of each other are one program. Another image, other features of
      the same shapes, and other angles whose boxes have the same sizes use the same program.

      Memory: less than 0.1 GB for images of up to 2 megapixels, about twenty maps of the image's size for larger ones.
      It grows neither with the number of features nor with that of poses.

      Two poses of one feature around the same pixel cannot both be found. The 4096 highest local maxima of each
      feature take part in the suppression; fewer if there are more than eight features, but at least 32 `top_k`.

    >>> import jax.numpy as jnp
    >>> hook = jnp.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    >>> image = jnp.zeros((20, 30)).at[5:8, 10:14].set(hook).at[12:16, 21:24].set(jnp.rot90(hook))
    >>> matches = find(image, hook, angles=(0, jnp.pi / 2), top_k=3, min_score=0.9, subpixel=False)
    >>> matches.y, matches.x
    (Array([ 5., 12.,  0.], dtype=float32), Array([10., 21.,  0.], dtype=float32))
    """
    pixels = as_image(image)
    image_size = pixels.shape[0], pixels.shape[1]
    stacks = as_stacks(features, mask, pixels.shape)
    top_k = check_int("top_k", top_k)
    check_max_overlap(max_overlap)
    per_feature = check_bool("per_feature", per_feature)
    subpixel = check_bool("subpixel", subpixel)
    ranking = check_ranking(score, polarity)
    threshold = check_threshold(ranking, min_score, max_score)
    scales = check_scales(scales)
    angles = check_numbers("angles", angles)
    searched = check_region(region, image_size)
    min_visible = check_min_visible(min_visible, score)

    options = MatchOptions(
        score=score if min_visible < 1 else without_undefined(score),
        ranking=ranking,
        top_k=top_k,
        subpixel=subpixel,
        per_feature=per_feature,
        min_visible=min_visible,
    )
    plan = _plan(searched, image_size, stacks, scales, angles, min_visible)
    if not plan.canvases:
        raise ValueError(
            f"features: expected one that fits into the image of shape {pixels.shape} at some scale and angle"
            f"{'' if region is None else ' and has its center in the region'}, got {shapes_text(stacks)}"
        )
    return _search(pixels, plan.groups, plan.part, threshold, max_overlap, *plan[2:], options)


class _Plan(NamedTuple):
    """An exhaustive search: its data, and what its program is compiled for."""

    groups: tuple[Group, ...]
    part: Region | None
    """The part of the image to search, or None for all of it."""
    canvases: tuple[tuple[Canvas, ...], ...]
    """The canvases of each group."""
    size: Pair
    """Rows and columns of the part."""
    margin: Pair
    """How far boxes may reach over the border."""


def _plan(
    region: Rectangle | Bool[np.ndarray | Array, "H W"] | None,
    image_size: Pair,
    stacks: Sequence[Stack],
    scales: Sequence[float],
    angles: Sequence[float],
    min_visible: float,
) -> _Plan:
    groups, canvases = make_groups(stacks, image_size, scales, angles)
    if not groups or (region is None and min_visible == 1):
        return _Plan(groups, None, canvases, image_size, (0, 0))
    rows, columns = (max(canvas.size[axis] for group in canvases for canvas in group) for axis in (0, 1))
    margin = (rows - 1, columns - 1) if min_visible < 1 else (0, 0)
    part, size = searched_part(region, image_size, (rows, columns), margin)
    if min_visible == 1 and size != image_size:
        groups, canvases = make_groups(stacks, size, scales, angles)
    return _Plan(groups, part, canvases, size, margin)


@functools.partial(jax.jit, static_argnames=("canvases", "size", "margin", "options"))
def _search(
    image: Array,
    groups: tuple[Group, ...],
    part: Region | None,
    threshold: Array,
    max_overlap: Array | float,
    canvases: tuple[tuple[Canvas, ...], ...],
    size: Pair,
    margin: Pair,
    options: MatchOptions,
) -> Matches:
    """The compiled part of `find`."""
    (pixels,) = as_floats(image=image)
    allowed = None
    valid = None
    if part is not None:
        allowed = allowed_pixels(part, size, margin)
        valid = cut_out(jnp.ones(pixels.shape[:2], bool), part, size, margin) if options.min_visible < 1 else None
        pixels = cut_out(pixels, part, size, margin)
    count = sum(len(group.indices) for group in groups)
    candidates = [
        group_candidates(pixels, group, group_canvases, options, count, allowed, valid)
        for group, group_canvases in zip(groups, canvases, strict=True)
    ]
    least_rank = -threshold if options.ranking == "lowest" else threshold
    matches = suppress_overlaps(candidates, least_rank, max_overlap, options)
    if part is None:
        return matches
    top, left = part.origin.astype(matches.y.dtype)
    return matches._replace(
        y=jnp.where(matches.valid, matches.y + top, 0), x=jnp.where(matches.valid, matches.x + left, 0)
    )
