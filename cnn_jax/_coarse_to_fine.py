"""Search of a template at any angle and scale of a range, coarse to fine over a pyramid.

The top level of the pyramid, on which the template is about 16 pixels wide, is searched in all poses. The best
candidates are refined on each level, from the top down, and fewer of them are kept on each.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Shaped

from ._aligned_scores import ALIGNED_SCORES
from ._disk_search import disk_candidates
from ._pose_maxima import Bank, Ranking, Scoring, pose_candidates, rank_of
from ._pose_refinement import (
    Freedom,
    Limits,
    Poses,
    TemplateLevel,
    make_template_level,
    refine_poses,
    sample_patch,
)
from ._poses import plan_poses
from ._pyramid import PyramidPlan, image_pyramid, masked_pyramid, plan_pyramid
from ._typing import Pair, Score
from .matching import zncc

# Pixels of the template's shorter side on the top level, if it has at least as many.
TOP_SIDE = 16
# Pixels that the template's rim moves between two angles, or two scales, of the top level.
STEP_PIXELS = 1.0
# A template whose sides differ more is not compared under a disk.
MIN_DISK_ASPECT = 0.5
# Largest ratio of two scales that one size of the template is compared at.
MAX_SCALE_RATIO = 2.05
# Scales that differ less from the middle of a range are taken for it, so that the template need not be scaled.
SCALE_TOLERANCE = 0.1
# Pixels of the template that are compared on a level, at most.
MAX_PIXELS = 2**15
# Candidates on the top level, on the levels between, and on the last one: at least, and for each match.
MIN_TOP_CANDIDATES = 64
MIN_CANDIDATES = 24
MIN_LAST_CANDIDATES = 16
TOP_CANDIDATES_PER_MATCH = 8
CANDIDATES_PER_MATCH = 4
LAST_CANDIDATES_PER_MATCH = 3
# Gauss-Newton steps on the top level, and on the others.
TOP_STEPS = 6
STEPS = 4
# Pixels of the top level that a candidate's rectangle may reach over the border, before it is refined.
TOP_TOLERANCE = 2.0
# Pixels of the image that a match may reach over the border.
TOLERANCE = 0.5
# Candidates closer than this, in pixels of their level at the center and at the rim, are one.
DUPLICATE_PIXELS = 1.5


class RangePlan(NamedTuple):
    """The static part of a search of templates of one size. It is hashable, an argument of a compiled program."""

    base_scale: float
    """The scale that the template is brought to first. Logarithms of scales are relative to it."""
    size: Pair
    """Rows and columns of the template at the base scale."""
    pyramid: PyramidPlan
    angles: tuple[float, ...]
    """Angles that are compared on the top level."""
    log_scales: tuple[float, ...]
    freedom: Freedom
    limits: Limits


class SearchOptions(NamedTuple):
    """How matches are scored. It is hashable, an argument of a compiled program."""

    score: Score
    ranking: Ranking
    top_k: int
    min_visible: float


class RangeCandidates(NamedTuple):
    """Refined poses of templates. Where `rank` is -inf there are no more of them."""

    poses: Poses
    score: Float[Array, "..."]
    rank: Float[Array, "..."]
    """The larger, the better: the mean of the scores on all levels."""


def plan_ranges(
    template_size: Pair,
    angles: Sequence[float],
    scales: Sequence[float],
    angle_range: tuple[float, float] | None,
    scale_range: tuple[float, float] | None,
    levels_left_out: int = 0,
) -> list[RangePlan]:
    """Plans of a search, one for each part of the scales whose ratio is small enough for one size of the template.

    Args:
      template_size: rows and columns.
      angles, scales: compared without a range, and not refined.
      angle_range, scale_range: the least and the largest, or None.
      levels_left_out: levels of the pyramid to leave out at the top, because the template's texture vanishes there.
    """
    low, high = scale_range or (min(scales), max(scales))
    parts = max(1, math.ceil(math.log(high / low) / math.log(MAX_SCALE_RATIO) - 1e-9))
    edges = np.geomspace(low, high, parts + 1)
    plans = []
    for i, (least, largest) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        is_last = i + 1 == parts
        chosen = [scale for scale in scales if least <= scale and (scale < largest or is_last)]
        if scale_range is None and not chosen:
            continue
        base = math.sqrt(least * largest) if scale_range else math.sqrt(min(chosen) * max(chosen))
        base = 1.0 if abs(math.log(base)) < SCALE_TOLERANCE else base
        size = max(1, round(template_size[0] * base)), max(1, round(template_size[1] * base))
        pyramid = plan_pyramid(min(size), TOP_SIDE * 2**levels_left_out)
        top_size = max(size) / pyramid.factors[-1]
        log_range = (math.log(least / base), math.log(largest / base))
        plans.append(
            RangePlan(
                base_scale=base,
                size=size,
                pyramid=pyramid,
                angles=_angle_steps(angle_range, top_size) if angle_range else tuple(angles),
                log_scales=_scale_steps(log_range, top_size)
                if scale_range
                else tuple(math.log(scale / base) for scale in chosen),
                freedom=Freedom(angle_range is not None, scale_range is not None and least < largest),
                limits=Limits(_angle_limits(angle_range), log_range),
            )
        )
    return plans


def _is_full_turn(angle_range: tuple[float, float]) -> bool:
    return angle_range[1] - angle_range[0] > 2 * math.pi - 1e-6


def _angle_limits(angle_range: tuple[float, float] | None) -> tuple[float, float]:
    if angle_range is None or _is_full_turn(angle_range):
        return -math.inf, math.inf
    return angle_range


def _angle_steps(angle_range: tuple[float, float], size: float) -> tuple[float, ...]:
    """Angles in a range whose steps move the rim of a template of this size by `STEP_PIXELS`."""
    low, high = angle_range
    steps = math.ceil((min(high - low, 2 * math.pi)) / math.atan(2 * STEP_PIXELS / size) - 1e-9)
    if _is_full_turn(angle_range):
        return tuple((low + 2 * math.pi * np.arange(steps) / steps).tolist())
    return tuple(np.linspace(low, high, steps + 1).tolist())


def _scale_steps(log_range: tuple[float, float], size: float) -> tuple[float, ...]:
    low, high = log_range
    return tuple(np.linspace(low, high, math.ceil((high - low) * size / (2 * STEP_PIXELS) - 1e-9) + 1).tolist())


def range_candidates(
    image: Shaped[Array, "H W C"],
    templates: Float[Array, "K h w C"],
    masks: Float[Array, "K h w C"] | None,
    allowed: Bool[Array, "H W"] | None,
    plan: RangePlan,
    options: SearchOptions,
) -> RangeCandidates:
    """Refined poses of K templates of one size, (K, n), in pixels of the image. `allowed`: where centers may lie."""
    levels = image_pyramid(_fill_gaps(image), plan.pyramid)
    levels[0] = image
    allowed_top = None
    if allowed is not None:
        allowed_top = image_pyramid(allowed[..., None].astype(jnp.float32), plan.pyramid)[-1][..., 0] > 0

    def of_template(template: Array, mask: Array | None) -> RangeCandidates:
        return _template_candidates(levels, template, mask, allowed, allowed_top, plan, options)

    if len(templates) == 1:
        single = of_template(templates[0], None if masks is None else masks[0])
        return jax.tree.map(lambda field: field[None], single)
    if masks is None:
        return lax.map(lambda template: of_template(template, None), templates)
    return lax.map(lambda pair: of_template(*pair), (templates, masks))


def _fill_gaps(image: Array) -> Array:
    """The image with the mean of its finite pixels in place of the others, so that these do not spread."""
    if not jnp.issubdtype(image.dtype, jnp.floating):
        return image
    is_finite = jnp.isfinite(image)
    count = jnp.maximum(is_finite.sum(), 1)
    mean = jnp.where(is_finite, image, 0).sum(dtype=jnp.float32) / count
    return jnp.where(is_finite, image, mean.astype(image.dtype))


def _template_candidates(
    levels: Sequence[Array],
    template: Array,
    mask: Array | None,
    allowed: Array | None,
    allowed_top: Array | None,
    plan: RangePlan,
    options: SearchOptions,
) -> RangeCandidates:
    """The candidates of one template, n of them."""
    template = _scale_about_center(template, plan)
    weights = jnp.ones_like(template) if mask is None else _scale_about_center(mask.astype(template.dtype), plan)
    if mask is None:
        values = image_pyramid(template, plan.pyramid)
        level_weights = [jnp.ones_like(level) for level in values]
    else:
        values, level_weights = masked_pyramid(template, weights, plan.pyramid)
        level_weights = [jnp.where(weight >= 0.5 * weights.max(), weight, 0) for weight in level_weights]
    factors = plan.pyramid.factors
    frozen_levels, frozen_values = lax.stop_gradient((list(levels), values))
    poses, ranks = _top_candidates(
        frozen_levels[-1].astype(template.dtype), frozen_values[-1], None if mask is None else level_weights[-1],
        allowed_top, plan, options,
    )
    candidates = _keep_best(RangeCandidates(poses, ranks, ranks), _count(MIN_TOP_CANDIDATES, TOP_CANDIDATES_PER_MATCH, options))
    previous = factors[-1]
    total = jnp.zeros_like(candidates.rank)
    for number, index in enumerate(reversed(range(len(factors)))):
        factor = factors[index]
        level = _make_level(frozen_values[index], level_weights[index], plan, factor)
        start = _zoom(candidates.poses, previous / factor)
        candidates = _refine(frozen_levels[index], start, level, plan, options, TOP_STEPS if number == 0 else STEPS)
        total = total + candidates.rank
        ranks = jnp.where(_is_duplicate(candidates, level), -jnp.inf, total / (number + 1))
        if index:
            is_next_last = index == 1
            count = (
                _count(MIN_LAST_CANDIDATES, LAST_CANDIDATES_PER_MATCH, options)
                if is_next_last
                else _count(MIN_CANDIDATES, CANDIDATES_PER_MATCH, options)
            )
            ranks, order = lax.top_k(ranks, min(count, len(ranks)))
            total = total[order]
            candidates = RangeCandidates(*jax.tree.map(lambda field: field[order], (candidates.poses, candidates.score)), ranks)
        previous = factor
    level = _make_level(values[0], level_weights[0], plan, 1.0)
    last = _refine(levels[0], lax.stop_gradient(candidates.poses), level, plan, options, 1)
    is_inside = _lies_inside(last.poses, plan, levels[0].shape[:2], options.min_visible, level, levels[0])
    if allowed is not None:
        is_inside &= _is_allowed(last.poses, allowed)
    return last._replace(rank=jnp.where(is_inside & jnp.isfinite(last.rank), lax.stop_gradient(ranks), -jnp.inf))


def _count(least: int, per_match: int, options: SearchOptions) -> int:
    return max(least, per_match * options.top_k)


def _keep_best(candidates: RangeCandidates, count: int) -> RangeCandidates:
    _, order = lax.top_k(candidates.rank, min(count, len(candidates.rank)))
    return jax.tree.map(lambda field: field[order], candidates)


def _zoom(poses: Poses, ratio: float) -> Poses:
    return poses._replace(y=poses.y * ratio, x=poses.x * ratio)


def _scale_about_center(template: Array, plan: RangePlan) -> Array:
    """The template at the base scale, smoothed before it shrinks."""
    if plan.base_scale == 1:
        return template
    shift = [(new - plan.base_scale * old) / 2 for new, old in zip(plan.size, template.shape[:2], strict=True)]
    scale = jnp.full(2, plan.base_scale, jnp.float32)
    shape = (*plan.size, template.shape[2])
    return jax.image.scale_and_translate(template, shape, (0, 1), scale, jnp.array(shift), "linear", antialias=True)


def _make_level(values: Array, weights: Array, plan: RangePlan, factor: float) -> TemplateLevel:
    step = max(1, math.ceil(math.sqrt(values.shape[0] * values.shape[1] / MAX_PIXELS)))
    return make_template_level(values, weights, _center(plan, factor), plan.freedom, step)


def _center(plan: RangePlan, factor: float) -> tuple[float, float]:
    """Row and column of the template's center on a level."""
    return (plan.size[0] - 1) / 2 / factor, (plan.size[1] - 1) / 2 / factor


def _top_candidates(
    image: Array,
    template: Array,
    mask: Array | None,
    allowed: Array | None,
    plan: RangePlan,
    options: SearchOptions,
) -> tuple[Poses, Array]:
    """Poses at which the score on the top level is a high local maximum."""
    count = max(ANGLES_CANDIDATES, 2 * options.top_k)
    is_square = min(plan.size) >= MIN_DISK_ASPECT * max(plan.size)
    if options.score is zncc and mask is None and options.min_visible == 1 and is_square and len(plan.angles) > 1:
        found = [
            disk_candidates(
                image, template, _center(plan, plan.pyramid.factors[-1]), plan.angles, log_scale, count,
                is_signed=options.ranking == "highest",
            )
            for log_scale in plan.log_scales
        ]
        poses = jax.tree.map(lambda *fields: jnp.concatenate(fields), *(poses for poses, _ in found))
        ranks = jnp.concatenate([ranks for _, ranks in found])
    else:
        poses, ranks = _box_candidates(image, template, mask, plan, options, count)
    if options.min_visible == 1:
        reach = _half_box(poses, plan, plan.pyramid.factors[-1])
        fits = True
        for center, half, size in zip((poses.y, poses.x), reach, image.shape[:2], strict=True):
            fits &= (center - half >= -TOP_TOLERANCE) & (center + half <= size - 1 + TOP_TOLERANCE)
        ranks = jnp.where(fits, ranks, -jnp.inf)
    if allowed is not None:
        ranks = jnp.where(_is_allowed(poses, allowed), ranks, -jnp.inf)
    return poses, ranks


ANGLES_CANDIDATES = 16


def _box_candidates(
    image: Array, template: Array, mask: Array | None, plan: RangePlan, options: SearchOptions, count: int
) -> tuple[Poses, Array]:
    """Candidates of the exhaustive search of the top level, with any score and mask."""
    size = template.shape[:2]
    scales = [math.exp(log_scale) for log_scale in plan.log_scales]
    table, canvases = plan_poses(np.array([size]), image.shape[:2], scales, plan.angles)
    if not canvases:
        raise ValueError(f"features: expected one that fits into the image at some scale, got size {plan.size}")
    bank = Bank(template[None], None if mask is None else mask[None], jnp.asarray([size]))
    scoring = Scoring(options.score, options.ranking, count * len(scales) * 4, min(16, len(plan.angles)))
    found = jax.tree.map(lambda field: field[0], pose_candidates(image, bank, table, canvases, scoring))
    box = jnp.asarray(table.box)[found.pose]
    dtype = template.dtype
    y = found.row - (box[:, 0] - 1) // 2 + (box[:, 0] - 1).astype(dtype) / 2
    x = found.column - (box[:, 1] - 1) // 2 + (box[:, 1] - 1).astype(dtype) / 2
    log_scale = jnp.log(jnp.asarray(table.scale, dtype))[found.pose]
    return Poses(y, x, jnp.asarray(table.angle, dtype)[found.pose], log_scale), found.rank


def _half_box(poses: Poses, plan: RangePlan, factor: float) -> tuple[Array, Array]:
    """Rows and columns from the center to the outermost pixels' centers of an upright box around each pose."""
    scale = jnp.exp(poses.log_scale)
    cos = jnp.abs(jnp.cos(poses.angle)) * scale
    sin = jnp.abs(jnp.sin(poses.angle)) * scale
    height, width = ((side - 1) / 2 / factor for side in plan.size)
    return cos * height + sin * width, sin * height + cos * width


def _is_allowed(poses: Poses, allowed: Array) -> Array:
    rows, columns = allowed.shape
    row = jnp.clip(jnp.round(poses.y), 0, rows - 1).astype(jnp.int32)
    column = jnp.clip(jnp.round(poses.x), 0, columns - 1).astype(jnp.int32)
    return allowed[row, column]


def _refine(
    image: Array, start: Poses, level: TemplateLevel, plan: RangePlan, options: SearchOptions, steps: int
) -> RangeCandidates:
    """The better of each pose and the pose after some steps, by the score of the level."""
    refined = refine_poses(
        image, start, level, steps=steps, freedom=plan.freedom, limits=plan.limits, is_partial=options.min_visible < 1
    )
    score_poses = jax.vmap(lambda pose: _pose_score(image, pose, level, options))
    scores = score_poses(start), score_poses(refined)
    ranks = tuple(_rank(score, options.ranking) for score in scores)
    is_better = ranks[1] > ranks[0]
    before = RangeCandidates(start, scores[0], ranks[0])
    after = RangeCandidates(refined, scores[1], ranks[1])
    return jax.tree.map(lambda new, old: jnp.where(is_better, new, old), after, before)


def _rank(score: Array, ranking: Ranking) -> Array:
    return jnp.where(jnp.isnan(score), -jnp.inf, rank_of(score, ranking))


def _pose_score(image: Array, pose: Poses, level: TemplateLevel, options: SearchOptions) -> Array:
    patch, is_inside = sample_patch(image, pose, level)
    weights = level.weights
    if options.min_visible < 1:
        weights = jnp.where(is_inside[:, None], weights, 0)
    aligned = ALIGNED_SCORES.get(options.score)
    if aligned is not None:
        return aligned(patch, level.values, weights)
    # As an image of one column, for a score that only knows images.
    return options.score(patch[:, None], level.values[:, None], mask=weights[:, None])[0, 0]


def _is_duplicate(candidates: RangeCandidates, level: TemplateLevel) -> Array:
    """Whether a better candidate has nearly the same pose."""
    poses = candidates.poses

    def distance(field: Array) -> Array:
        return jnp.abs(field[:, None] - field[None, :])

    turn = distance(poses.angle) % (2 * math.pi)
    turn = jnp.minimum(turn, 2 * math.pi - turn)
    is_near = (
        (distance(poses.y) < DUPLICATE_PIXELS)
        & (distance(poses.x) < DUPLICATE_PIXELS)
        & (turn * level.reach < DUPLICATE_PIXELS)
        & (distance(poses.log_scale) * level.reach < DUPLICATE_PIXELS)
    )
    rank = candidates.rank
    order = jnp.arange(len(rank))
    is_better = (rank[None] > rank[:, None]) | ((rank[None] == rank[:, None]) & (order[None] < order[:, None]))
    return (is_near & is_better).any(axis=1)


def _lies_inside(
    poses: Poses, plan: RangePlan, size: Pair, min_visible: float, level: TemplateLevel, image: Array
) -> Array:
    """Whether enough of the template lies inside the image."""
    if min_visible == 1:
        is_inside = jnp.ones(poses.y.shape, bool)
        for center, half, side in zip((poses.y, poses.x), _half_box(poses, plan, 1.0), size, strict=True):
            is_inside &= (center - half >= -TOLERANCE) & (center + half <= side - 1 + TOLERANCE)
        return is_inside

    def visible(pose: Poses) -> Array:
        _, is_inside = sample_patch(image, pose, level)
        squares = (level.weights**2).sum(axis=1)
        return jnp.where(is_inside, squares, 0).sum() / squares.sum()

    return jax.vmap(visible)(poses) >= min_visible
