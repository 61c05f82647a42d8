"""Template search: the best matches of features in an image, at any scale and angle.

    matches = find(image, template, angle_range=(-math.pi, math.pi))
    matches.center[matches.valid], matches.angle[matches.valid]

Results have a fixed length, so that `find` and `peaks` run under `jax.jit` and `jax.vmap`.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Shaped

from ._candidates import Group, group_candidates, make_groups, suppress_overlaps
from ._feature_groups import Features
from ._matches import Matches
from ._peaks import Peaks, peaks
from ._poses import Canvas, make_pose_table
from ._programs import compiled
from ._range_groups import Ranges, make_range_groups, range_group_candidates
from ._range_plan import RangePlan, angle_steps
from ._region import Rectangle, Region, allowed_pixels, check_region, cut_out, is_reachable, searched_part
from ._search_inputs import Stack, as_image, as_stacks, shapes_text
from ._search_options import (
    MatchOptions,
    check_angle_range,
    check_angles,
    check_least_scale,
    check_max_overlap,
    check_min_visible,
    check_ranking,
    check_scale_range,
    check_scales,
    check_worst_score,
    default_min_score,
)
from ._typing import Pair, Scalar, Score
from ._validation import as_floats, check_bool, check_int
from .matching import zncc

# Pixels by which a match of a range may seem to reach over the border of the image: its tolerance, and rounding.
RANGE_TOLERANCE = 2

__all__ = ["Matches", "Peaks", "default_min_score", "find", "peaks"]


def find(
    image: Shaped[ArrayLike, "H W *C"],
    features: Shaped[ArrayLike, "..."] | Sequence[Shaped[ArrayLike, "..."]],
    *,
    score: Score = zncc,
    mask: Shaped[ArrayLike, "..."] | Sequence[Shaped[ArrayLike, "..."] | None] | None = None,
    scales: Sequence[float] = (1.0,),
    angles: Sequence[float] = (0.0,),
    scale_range: Sequence[float] | None = None,
    angle_range: Sequence[float] | None = None,
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
    """Finds features in an image at given scales and angles, or in ranges of them.

    Lists are searched exhaustively. Each feature is scaled and rotated (bilinearly, smoothed before it shrinks) and
    scored at every position, under a mask if rotation leaves corners empty. Only the best pose per feature and pixel is
    kept. Local maxima are candidates.

    Ranges are searched coarse to fine over a pyramid. The top level, on which a feature is 16 to 17 pixels wide, is
    searched exhaustively, in steps that move the feature's rim by one pixel. Its best poses are refined on every level
    by Gauss-Newton steps of place, angle and scale, down to hundredths of a pixel and of a degree.

    The best candidate is a match, candidates whose rectangles overlap it too much are dropped, and this repeats.

    Args:
      image: (H, W) or (H, W, C).
      features: one feature (h, w) or (h, w, C), a bank (K, ...), or a list of features of different sizes.
      score: `zncc`, `cosine`, `match`, or another function `score(image, feature, mask=...)` that grows with the match,
        or `squared_difference` or `normalized_squared_difference`. It is compiled once for every function object, so a
        new `lambda` or `functools.partial` for every call is compiled for every call.
      mask: weights of the features' pixels as in `match`, one mask for each feature.
      scales, angles: factors, and radians counterclockwise as in `affine_matrix`; all combinations are compared. Python
        numbers, because they decide shapes. Poses in which a feature does not fit into the image are skipped.
      scale_range, angle_range: (least, largest), in place of the list. (-pi, pi) is every angle. A match slightly
        beyond an end is placed at the end.
      top_k: the number of matches to return.
      min_score: the lowest score of a match, by default 0.5. For `zncc` 0.88 with a range of angles, and 0.92 with one
        of scales: the best of so many poses scores higher by chance.
      max_score: the highest score of a match, for the two squared differences, which need it instead of `min_score`.
        The best match has the smallest score.
      max_overlap: how much the rectangles of two matches, turned by their angles, may overlap: intersection over union,
        0 to 1.
      per_feature: whether only matches of the same feature are dropped for their overlap.
      subpixel: whether to place matches between pixels: lists by a quadratic fit as in `peaks`.
      polarity: "same", or "either" to find photographic negatives too: matches are ranked and compared with `min_score`
        by the magnitude of the score. The score of a negative is negative. Only for `match`, `cosine`, `zncc` and
        `sharpened_cosine`.
      region: where the centers of matches may lie: (top, left, height, width) in whole pixels, Python ints, or a mask
        (H, W) of bools. The center is a box's middle pixel, the first of two if a side is even. Only the pixels that
        matter to a rectangle are searched.
      min_visible: the smallest part of a feature that must lie inside the image, above 0, at most 1. Below 1, features
        that the border cuts are found too, at their true centers. Only for scores of `matching`; about ten times the
        time.

    Returns:
      `Matches`, arrays of length `top_k`. With `min_visible=1` a match lies wholly inside the image. With a range,
      `score` is the mean of the scores on the two levels below full resolution, which noise disturbs less; on one, if a
      feature has only one such level. A feature of at most 17 pixels is scored at full resolution.

    Raises:
      ValueError: wrong ranks, channels or masks, a color feature for a gray image or the reverse, an alpha channel,
        empty arrays, no feature, another number of masks than of features, features that fit nowhere, or nowhere with
        their center in the region, no scale or angle, a scale at which nothing is left of any feature, angles above
        4 pi or ranges above 2 pi, which are degrees, a list and a range of the same, `max_overlap` outside [0, 1],
        `top_k` below 1, a missing or superfluous `max_score`, a threshold of NaN or that no score can reach, a polarity
        that the score does not have, a region outside of the image or without pixels, `min_visible` outside (0, 1] or
        for another score, or a score that is no map of all positions. Not seen under `jax.jit`: a feature with NaN or
        infinity that is not masked out, which is found nowhere; weights that are negative, not finite or all 0.
      TypeError: arrays that are not real numbers, NumPy's masked arrays, lists of numbers or names of files instead of
        arrays, scales or angles that are not Python numbers, a score that is not callable or takes no `mask`.

    Notes:
      Cost of lists: one score map for each feature and pose. Up to two scales without rotation take the time of as many
      calls of the score. Rotated features, and more scales, are compared under masks: two to three times slower, and as
      exact as scores with a mask. Another image, other features of the same shapes, and other angles whose boxes have
      the same sizes use the same program.

      Cost of ranges: a few percent of that. The top level shrinks as the feature grows, so large features are the
      fastest. `zncc` without a mask, of a feature at most twice as long as wide, is fastest: its top level is compared
      under a disk. A scale range is cut into parts whose ends differ by a factor of two; each has its own program. The
      first call compiles for four to five seconds.

      Memory of lists: less than 0.1 GB for images of up to 2 megapixels, about twenty maps of the image's size for
      larger ones. It grows neither with the number of features nor with that of poses. Memory of ranges: about thirty
      maps of the top level, so more than a gigabyte for features below 20 pixels in images of 12 megapixels.

      Limits of lists: two poses of one feature around the same pixel cannot both be found. The 4096 highest local
      maxima of each feature take part in the suppression; of more than eight features 32,768 together, or 32 `top_k` of
      each if these are at most 262,144 together.

      Limits of ranges: a feature narrower than 16 pixels has little to tell it from others, and is searched at full
      resolution, exhaustively in cost. So is, up to the levels that show it, a feature whose texture vanishes at low
      resolution. Under `jax.jit` a feature's values are not known, so that one whose texture vanishes, or lies outside
      of its inscribed disk, may be missed. Straight edges leave a place along the edge undecided. 3 `top_k` candidates
      of each feature, at least 16, take part in the suppression, so `found` counts no more than these. Refinement
      allows for one gain and an offset of each channel: a strong tint, another gain of each channel, costs
      accuracy and score.

      Gradients flow through scores, and through places, angles and scales of ranges by one Gauss-Newton step.

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
    scales = check_scales(scales)
    angles = check_angles(angles)
    ranges = Ranges(scales, angles, check_scale_range(scale_range, scales), check_angle_range(angle_range, angles))
    check_least_scale(scales, ranges.scale_range, [stack.shape for stack in stacks])
    ranking = check_ranking(score, polarity)
    default = default_min_score(score, scale_range=scale_range, angle_range=angle_range)
    threshold = check_worst_score(score, ranking, min_score, max_score, default)
    searched = check_region(region, image_size)
    min_visible = check_min_visible(min_visible, score)

    options = MatchOptions(score, ranking, top_k, subpixel, per_feature, min_visible)
    can_fit = searched is None or min_visible < 1 or _can_lie_in(searched, image_size, stacks, ranges)
    plan = _plan(searched, image_size, stacks, ranges, min_visible) if can_fit else None
    if plan is None or not plan.groups:
        raise ValueError(
            f"features: expected one that fits into the image of shape {pixels.shape} at some scale and angle"
            f"{'' if region is None else ' and has its center in the region'}, got {shapes_text(stacks)}"
        )
    return _search(pixels, plan.groups, plan.part, threshold, max_overlap, *plan[2:], options)


def _can_lie_in(
    region: Rectangle | Bool[np.ndarray | Array, "H W"], image_size: Pair, stacks: Sequence[Stack], ranges: Ranges
) -> bool:
    """Whether the center of a match can lie in a region: False only if it is sure that none can."""
    sizes = np.array(sorted({stack.shape[:2] for stack in stacks}))
    scales = ranges.scales if ranges.scale_range is None else ranges.scale_range[:1]
    angles = ranges.angles
    if ranges.angle_range is not None:
        angles = angle_steps(ranges.angle_range, float(sizes.max()))
    boxes = np.asarray(make_pose_table(sizes, scales, angles).box).reshape(-1, 2)
    return is_reachable(region, image_size, boxes, 0 if ranges.are_lists else RANGE_TOLERANCE)


class _Plan(NamedTuple):
    """A search: its data, and what its program is compiled for."""

    groups: tuple[Group | Features, ...]
    part: Region | None
    """The part of the image to search, or None for all of it."""
    poses: tuple[tuple[Canvas, ...] | tuple[RangePlan, ...], ...]
    """How the poses of each group are searched."""
    size: Pair
    """Rows and columns of the part."""
    margin: Pair
    """How far boxes may reach over the border."""


def _plan(
    region: Rectangle | Bool[np.ndarray | Array, "H W"] | None,
    image_size: Pair,
    stacks: Sequence[Stack],
    ranges: Ranges,
    min_visible: float,
) -> _Plan:
    if not ranges.are_lists:
        groups, plans = make_range_groups(stacks, image_size, ranges)
        if not groups or region is None:
            return _Plan(groups, None, plans, image_size, (0, 0))
        side = max(plan.searched_side for group in plans for plan in group)
        part, size = searched_part(region, image_size, (side, side), (0, 0))
        return _Plan(groups, part, plans, size, (0, 0))
    groups, canvases = make_groups(stacks, image_size, ranges.scales, ranges.angles)
    if not groups or (region is None and min_visible == 1):
        return _Plan(groups, None, canvases, image_size, (0, 0))
    rows, columns = (max(canvas.size[axis] for group in canvases for canvas in group) for axis in (0, 1))
    margin = (rows - 1, columns - 1) if min_visible < 1 else (0, 0)
    part, size = searched_part(region, image_size, (rows, columns), margin)
    if min_visible == 1 and size != image_size:
        groups, canvases = make_groups(stacks, size, ranges.scales, ranges.angles)
    return _Plan(groups, part, canvases, size, margin)


@compiled("poses", "size", "margin", "options")
def _search(
    image: Array,
    groups: tuple[Group | Features, ...],
    part: Region | None,
    threshold: Array | float,
    max_overlap: Array | float,
    poses: tuple[tuple[Canvas, ...] | tuple[RangePlan, ...], ...],
    size: Pair,
    margin: Pair,
    options: MatchOptions,
) -> Matches:
    """The compiled part of `find`."""
    allowed = None
    valid = None
    if part is not None:
        allowed = allowed_pixels(part, size, margin)
        valid = cut_out(jnp.ones(image.shape[:2], bool), part, size, margin) if options.min_visible < 1 else None
        image = cut_out(image, part, size, margin)
    count = sum(len(group.features.indices) for group in groups if isinstance(group, Group))
    candidates: list[Matches] = []
    for group, group_poses in zip(groups, poses, strict=True):
        if isinstance(group, Features):
            candidates += range_group_candidates(
                image, group, cast(tuple[RangePlan, ...], group_poses), options, allowed
            )
        else:
            (pixels,) = as_floats(image=image)
            canvases = cast(tuple[Canvas, ...], group_poses)
            candidates.append(group_candidates(pixels, group, canvases, options, count, allowed, valid))
    worst_score = jnp.asarray(threshold)
    least_rank = -worst_score if options.ranking == "lowest" else worst_score
    matches = suppress_overlaps(candidates, least_rank, max_overlap, options)
    if part is None:
        return matches
    top, left = part.origin.astype(matches.y.dtype)
    return matches._replace(
        y=jnp.where(matches.valid, matches.y + top, 0), x=jnp.where(matches.valid, matches.x + left, 0)
    )
