"""Search of templates at any angle and scale of a range, coarse to fine over a pyramid.

The top level of the pyramid, on which a template is about 16 pixels wide, is searched in all poses. The best candidates
are refined on every level, from the top down, and fewer of them are kept on each.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Shaped

from ._aligned_scores import ALIGNED_SCORES
from ._pose_refinement import Poses, TemplateLevel, make_template_level, refine_poses, sample_patch
from ._pose_scores import rank_of
from ._pyramid import image_pyramid, masked_pyramid
from ._range_plan import RangePlan
from ._search_options import MatchOptions
from ._top_candidates import is_allowed, lies_inside, top_candidates

# Pixels of the template that are compared on a level, at most.
MAX_PIXELS = 2**15
# Gauss-Newton steps on the top level, and on the others.
TOP_STEPS = 6
STEPS = 4
# Pixels of the image that a match may reach over the border.
TOLERANCE = 0.5
# Candidates closer than this are one, in pixels of their level, at the center and at the rim.
DUPLICATE_PIXELS = 1.5
# A pixel of a level counts if at least this fraction of the pixels below it does.
MIN_COVERAGE = 0.5
# Pixels at the border of a level of a template that the filter reaches over the border for.
BORDERS = (0, 1, 2)
# Levels, counted from the image, whose mean score is that of a match. Templates without them are scored on the image.
SCORED_LEVELS = (1, 2)


class CandidateCount(NamedTuple):
    """How many candidates are kept: at least, and for each match."""

    least: int
    per_match: int

    def of(self, top_k: int) -> int:
        """The number of candidates for `top_k` matches."""
        return max(self.least, self.per_match * top_k)


TOP_CANDIDATES = CandidateCount(64, 8)
CANDIDATES = CandidateCount(24, 4)
LAST_CANDIDATES = CandidateCount(16, 3)


class RangeCandidates(NamedTuple):
    """Refined poses of templates. Where `rank` is -inf there are no more of them."""

    poses: Poses
    score: Float[Array, "..."]
    rank: Float[Array, "..."]
    """The larger, the better. It has no gradient."""


class _Level(NamedTuple):
    """A level of the pyramid of the image, and that of the template's."""

    image: Array
    template: TemplateLevel
    factor: float


def range_candidates(
    image: Shaped[Array, "H W C"],
    templates: Float[Array, "K h w C"],
    masks: Float[Array, "K h w C"] | None,
    allowed: Bool[Array, "H W"] | None,
    plan: RangePlan,
    options: MatchOptions,
) -> RangeCandidates:
    """Refined poses of K templates of one size, n of each, in pixels of the image.

    Args:
      image: the image.
      templates: the templates, at scale 1.
      masks: weights of their pixels.
      allowed: where centers of matches may lie; None: everywhere.
      plan: the levels and poses to search.
      options: how matches are scored.
    """
    levels = image_pyramid(_fill_gaps(image), plan.pyramid)
    top_image = levels[-1]
    levels[0] = image
    allowed_top = None
    if allowed is not None:
        allowed_top = image_pyramid(allowed[..., None].astype(jnp.float32), plan.pyramid)[-1][..., 0] > 0

    def of_template(template: Array, mask: Array | None) -> RangeCandidates:
        templates, weights = _template_pyramid(template, mask, plan)
        frozen = _make_levels(*lax.stop_gradient((levels, templates, weights)), plan)
        top_mask = None if mask is None else weights[-1]
        top = lax.stop_gradient((top_image.astype(template.dtype), templates[-1]))
        poses, ranks = top_candidates(*top, top_mask, allowed_top, plan, options)
        poses = _descend(poses, ranks, frozen, plan, options)
        return _score_matches(poses, _make_levels(levels, templates, weights, plan), allowed, plan, options)

    if len(templates) == 1:
        single = of_template(templates[0], None if masks is None else masks[0])
        return jax.tree.map(lambda field: field[None], single)
    if masks is None:
        return lax.map(lambda template: of_template(template, None), templates)
    return lax.map(lambda pair: of_template(*pair), (templates, masks))


# Pyramids.


def _fill_gaps(image: Array) -> Array:
    """The image with the mean of its finite pixels in place of the others, so that these do not spread."""
    if not jnp.issubdtype(image.dtype, jnp.floating):
        return image
    is_finite = jnp.isfinite(image)
    count = jnp.maximum(is_finite.sum(dtype=jnp.float32), 1)
    mean = jnp.where(is_finite, image, 0).sum(dtype=jnp.float32) / count
    return jnp.where(is_finite, image, mean.astype(image.dtype))


def _template_pyramid(template: Array, mask: Array | None, plan: RangePlan) -> tuple[list[Array], list[Array]]:
    """The template at the base scale, and the weights of its pixels, on all levels."""
    if mask is None:
        templates = image_pyramid(_to_base_scale(template, plan), plan.pyramid)
        return templates, [_inner_weights(level, number) for number, level in enumerate(templates)]
    mask = mask.astype(template.dtype)
    coverage = _to_base_scale((mask != 0).astype(template.dtype), plan)
    pixels = _to_base_scale(jnp.where(mask != 0, template, 0), plan)
    pixels = pixels / jnp.where(coverage > 0, coverage, 1)
    weights = jnp.where(coverage >= MIN_COVERAGE, _to_base_scale(mask, plan), 0)
    return masked_pyramid(pixels, weights, plan.pyramid, MIN_COVERAGE)


def _inner_weights(level: Array, number: int) -> Array:
    """Weights 1, and 0 for border pixels: in the image, the filter mixes them with what is around the template."""
    border = min(BORDERS[min(number, len(BORDERS) - 1)], (min(level.shape[:2]) - 1) // 4)
    inner = jnp.ones((level.shape[0] - 2 * border, level.shape[1] - 2 * border, level.shape[2]), level.dtype)
    return jnp.pad(inner, [(border, border), (border, border), (0, 0)])


def _to_base_scale(template: Array, plan: RangePlan) -> Array:
    """The template scaled about its center, smoothed before it shrinks."""
    if plan.base_scale == 1:
        return template
    shift = [(new - plan.base_scale * old) / 2 for new, old in zip(plan.size, template.shape[:2], strict=True)]
    scale = jnp.full(2, plan.base_scale, jnp.float32)
    shape = (*plan.size, template.shape[2])
    return jax.image.scale_and_translate(template, shape, (0, 1), scale, jnp.array(shift), "linear", antialias=True)


def _make_levels(
    images: Sequence[Array], templates: Sequence[Array], weights: Sequence[Array], plan: RangePlan
) -> list[_Level]:
    levels = []
    for image, template, weight, factor in zip(images, templates, weights, plan.pyramid.factors, strict=True):
        step = max(1, math.ceil(math.sqrt(template.shape[0] * template.shape[1] / MAX_PIXELS)))
        levels.append(
            _Level(image, make_template_level(template, weight, plan.center(factor), plan.freedom, step), factor)
        )
    return levels


# Refinement.


def _descend(poses: Poses, ranks: Array, levels: Sequence[_Level], plan: RangePlan, options: MatchOptions) -> Poses:
    """Refines candidates of the top level on all levels down to the image, and keeps the best on each."""
    _, order = lax.top_k(ranks, min(TOP_CANDIDATES.of(options.top_k), len(ranks)))
    poses = _take(poses, order)
    total_rank = jnp.where(ranks[order] > -jnp.inf, 0, -jnp.inf)
    factor = levels[-1].factor
    for number, level in enumerate(reversed(levels)):
        steps = TOP_STEPS if number == 0 else STEPS
        poses, ranks = _refine(level, _zoom(poses, factor / level.factor), plan, options, steps)
        # The sum over all levels, as noise disturbs a single one. It stays -inf once a candidate is left out.
        total_rank = total_rank + ranks
        total_rank = jnp.where(_is_duplicate(poses, total_rank, level.template), -jnp.inf, total_rank)
        kept = {0: len(ranks), 1: LAST_CANDIDATES.of(options.top_k)}
        left = len(levels) - 1 - number
        count = min(kept.get(left, CANDIDATES.of(options.top_k)), len(ranks))
        total_rank, order = lax.top_k(total_rank, count)
        poses = _take(poses, order)
        factor = level.factor
    # Candidates that are left out get poses that fit nowhere.
    return poses._replace(y=jnp.where(total_rank > -jnp.inf, poses.y, -jnp.inf))


def _take(poses: Poses, index: Array) -> Poses:
    return Poses(*(field[index] for field in poses))


def _zoom(poses: Poses, ratio: float) -> Poses:
    return poses._replace(y=poses.y * ratio, x=poses.x * ratio)


def _refine(
    level: _Level, start: Poses, plan: RangePlan, options: MatchOptions, steps: int
) -> tuple[Poses, Float[Array, " n"]]:
    """The best of each pose and of the poses after some steps, and its rank."""

    def rank_patch(patch: Array, is_inside: Array) -> Array:
        score = _patch_score(patch, is_inside, level.template, options)
        return jnp.where(jnp.isnan(score), -jnp.inf, rank_of(score, options.ranking))

    return refine_poses(
        level.image,
        start,
        level.template,
        rank_patch,
        steps=steps,
        freedom=plan.freedom,
        limits=plan.limits,
        is_partial=options.min_visible < 1,
    )


def _patch_score(patch: Array, is_inside: Array, template: TemplateLevel, options: MatchOptions) -> Array:
    weights = template.weights
    if options.min_visible < 1:
        weights = jnp.where(is_inside[:, None], weights, 0)
    aligned = ALIGNED_SCORES.get(options.score)
    if aligned is not None:
        return aligned(patch, template.values, weights)
    # As images of one column, as other scores take images.
    return options.score(patch[:, None], template.values[:, None], mask=weights[:, None])[0, 0]


def _scores(level: _Level, poses: Poses, options: MatchOptions) -> Array:
    """The score of every pose on a level."""

    def score(pose: Poses) -> Array:
        return _patch_score(*sample_patch(level.image, pose, level.template), level.template, options)

    return jax.vmap(score)(poses)


def _is_duplicate(poses: Poses, ranks: Array, template: TemplateLevel) -> Array:
    """Whether a better candidate has nearly the same pose."""

    def distance(field: Array) -> Array:
        return jnp.abs(field[:, None] - field[None, :])

    turn = distance(poses.angle) % (2 * math.pi)
    turn = jnp.minimum(turn, 2 * math.pi - turn)
    is_near = (
        (distance(poses.y) < DUPLICATE_PIXELS)
        & (distance(poses.x) < DUPLICATE_PIXELS)
        & (turn * template.reach < DUPLICATE_PIXELS)
        & (distance(poses.log_scale) * template.reach < DUPLICATE_PIXELS)
    )
    number = jnp.arange(len(ranks))
    is_better = (ranks[None] > ranks[:, None]) | ((ranks[None] == ranks[:, None]) & (number[None] < number[:, None]))
    return (is_near & is_better).any(axis=1)


# Matches.


def _score_matches(
    poses: Poses, levels: Sequence[_Level], allowed: Array | None, plan: RangePlan, options: MatchOptions
) -> RangeCandidates:
    """One more step, through which gradients flow, and the scores of the resulting poses."""
    start = lax.stop_gradient(poses)
    poses, finest_rank = _refine(levels[0], start, plan, options, 1)
    scored = [levels[i] for i in SCORED_LEVELS if i < len(levels)] or [levels[0]]
    score = jnp.stack([_scores(level, _zoom(poses, 1 / level.factor), options) for level in scored]).mean(axis=0)
    # Pixels that are not finite are seen on the finest level only.
    is_match = jnp.isfinite(finest_rank) & _is_visible(poses, levels[0], plan, options)
    if allowed is not None:
        is_match &= is_allowed(poses, allowed)
    rank = jnp.where(is_match, rank_of(score, options.ranking), -jnp.inf)
    return RangeCandidates(poses, score, lax.stop_gradient(rank))


def _is_visible(poses: Poses, level: _Level, plan: RangePlan, options: MatchOptions) -> Array:
    """Whether enough of the template lies inside of the image."""
    if options.min_visible == 1:
        return lies_inside(poses, plan, 1.0, level.image.shape[:2], TOLERANCE)
    squares = (level.template.weights**2).sum(axis=1)

    def visible_fraction(pose: Poses) -> Array:
        _, is_inside = sample_patch(level.image, pose, level.template)
        return jnp.where(is_inside, squares, 0).sum() / squares.sum()

    return (jax.vmap(visible_fraction)(poses) >= options.min_visible) & (poses.y > -jnp.inf)
