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
from ._pose_refinement import Poses, StepRules, TemplateLevel, make_template_level, refine_poses, with_gradients
from ._pose_scores import rank_of
from ._programs import map_steps
from ._pyramid import image_pyramid
from ._range_plan import RangePlan
from ._range_pyramids import fill_gaps, template_pyramid, without_unit
from ._search_options import MatchOptions
from ._top_candidates import is_allowed, lies_inside, top_candidates
from ._typing import Pair
from .matching import cosine, normalized_squared_difference, zncc

# Pixels of the template that are compared on a level, at most.
MAX_PIXELS = 2**15
# Gauss-Newton steps on the top level, and on the others.
TOP_STEPS = 6
STEPS = 4
# Pixels of the image that a match may reach over the border.
TOLERANCE = 0.5
# Candidates closer than this are one, in pixels of their level, at the center and at the rim.
DUPLICATE_PIXELS = 1.5
# Levels, counted from the image, whose mean score is that of a match. Templates without them are scored on the image.
SCORED_LEVELS = (1, 2)


class CandidateCount(NamedTuple):
    """How many candidates are kept: at least, and for each match."""

    least: int
    per_match: int

    def of(self, top_k: int) -> int:
        """The number of candidates for `top_k` matches."""
        return max(self.least, self.per_match * top_k)


# Scores that do not change when the image, or the template, is multiplied by a number.
SCORES_WITHOUT_UNITS = (zncc, cosine, normalized_squared_difference)
TOP_CANDIDATES = CandidateCount(128, 8)
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
    grid: Pair
    """Rows and columns of the template's pixels."""
    factor: float
    """How many times smaller than the image the level is."""


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
    if options.score in SCORES_WITHOUT_UNITS:
        image = without_unit(image)
        templates = jax.vmap(without_unit)(templates)
    levels = image_pyramid(fill_gaps(image), plan.pyramid)
    top_image = levels[-1]
    levels[0] = image
    allowed_top = None
    if allowed is not None:
        allowed_top = image_pyramid(allowed[..., None].astype(jnp.float32), plan.pyramid)[-1][..., 0] > 0

    def of_template(template: Array, mask: Array | None) -> RangeCandidates:
        templates, weights = template_pyramid(template, mask, plan)
        frozen = _make_levels(*lax.stop_gradient((levels, templates, weights)), plan)
        top_mask = None if mask is None else weights[-1]
        top = lax.stop_gradient((top_image.astype(template.dtype), templates[-1]))
        poses, ranks = top_candidates(*top, top_mask, allowed_top, plan, options)
        poses, is_kept = _descend(poses, ranks, frozen, plan, options)
        levels_with_gradients = _make_levels(levels, templates, weights, plan)
        return _score_matches(poses, is_kept, levels_with_gradients, allowed, plan, options)

    if masks is None:
        return map_steps(lambda template: of_template(template, None), templates)
    return map_steps(lambda pair: of_template(*pair), (templates, masks))


def _make_levels(
    images: Sequence[Array], templates: Sequence[Array], weights: Sequence[Array], plan: RangePlan
) -> list[_Level]:
    levels = []
    for image, template, weight, factor in zip(images, templates, weights, plan.pyramid.factors, strict=True):
        step = max(1, math.ceil(math.sqrt(template.shape[0] * template.shape[1] / MAX_PIXELS)))
        template_level = make_template_level(template, weight, plan.center(factor), plan.freedom, step)
        grid = -(-template.shape[0] // step), -(-template.shape[1] // step)
        levels.append(_Level(image, template_level, grid, factor))
    return levels


# Refinement.


def _descend(
    poses: Poses, ranks: Array, levels: Sequence[_Level], plan: RangePlan, options: MatchOptions
) -> tuple[Poses, Bool[Array, " n"]]:
    """Refines candidates of the top level on all levels down to the image, and keeps the best on each.

    The second result says which of the poses are candidates.
    """
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
    return poses, total_rank > -jnp.inf


def _take(poses: Poses, index: Array) -> Poses:
    return Poses(*(field[index] for field in poses))


def _zoom(poses: Poses, ratio: float) -> Poses:
    return poses._replace(y=poses.y * ratio, x=poses.x * ratio)


def _refine(
    level: _Level, start: Poses, plan: RangePlan, options: MatchOptions, steps: int
) -> tuple[Poses, Float[Array, " n"]]:
    """The best of each pose and of the poses after some steps, and its rank."""

    def rank_patch(patch: Array, is_inside: Array) -> Array:
        score = _patch_score(patch, is_inside, level, options)
        return jnp.where(jnp.isnan(score), -jnp.inf, rank_of(score, options.ranking))

    return refine_poses(level.image, start, level.template, rank_patch, _step_rules(plan, options), steps)


def _step_rules(plan: RangePlan, options: MatchOptions) -> StepRules:
    return StepRules(plan.freedom, plan.limits, options.min_visible < 1)


def _patch_score(patch: Array, is_inside: Array, level: _Level, options: MatchOptions) -> Array:
    values = level.template.values
    weights = level.template.weights
    if options.min_visible < 1:
        weights = jnp.where(is_inside[:, None], weights, 0)
    aligned = ALIGNED_SCORES.get(options.score)
    if aligned is not None:
        return aligned(patch, values, weights)
    image, feature, mask = (pixels.reshape(*level.grid, -1) for pixels in (patch, values, weights))
    return options.score(image, feature, mask=mask)[0, 0]


def _scores(level: _Level, poses: Poses, options: MatchOptions) -> Array:
    """The score of every pose on a level."""
    return jax.vmap(lambda pose: _patch_score(*level.template.sample(level.image, pose), level, options))(poses)


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
    poses: Poses,
    is_kept: Array,
    levels: Sequence[_Level],
    allowed: Array | None,
    plan: RangePlan,
    options: MatchOptions,
) -> RangeCandidates:
    """Poses with their gradients, and their scores."""
    poses = with_gradients(levels[0].image, lax.stop_gradient(poses), levels[0].template, _step_rules(plan, options))
    scored = [levels[i] for i in SCORED_LEVELS if i < len(levels)] or [levels[0]]
    score = jnp.stack([_scores(level, _zoom(poses, 1 / level.factor), options) for level in scored]).mean(axis=0)
    is_match = is_kept & _is_visible(poses, levels[0], plan, options)
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
        _, is_inside = level.template.sample(level.image, pose)
        return jnp.where(is_inside, squares, 0).sum() / squares.sum()

    return jax.vmap(visible_fraction)(poses) >= options.min_visible
