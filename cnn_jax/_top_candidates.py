"""Candidates of a coarse-to-fine search: the best poses on the top level of the pyramid."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ._disk_search import ANGLES_PER_MAP, DiskSearch, disk_candidates
from ._pose_maxima import pose_candidates
from ._pose_refinement import Poses
from ._pose_scores import Bank, Scoring
from ._poses import plan_poses
from ._range_plan import RangePlan
from ._search_options import MatchOptions, without_undefined
from .matching import zncc

# Pixels of the top level that a candidate may reach over the border before it is refined.
TOP_TOLERANCE = 2.0
# The same for the visible part of a candidate, as a fraction of that of a match.
TOP_VISIBLE_FRACTION = 0.8
# Local maxima of each map of some poses, at least, and for each match.
MIN_CANDIDATES_PER_MAP = 32
CANDIDATES_PER_MATCH = 2


def top_candidates(
    image: Float[Array, "H W C"],
    template: Float[Array, "h w C"],
    mask: Float[Array, "h w C"] | None,
    allowed: Bool[Array, "H W"] | None,
    plan: RangePlan,
    options: MatchOptions,
) -> tuple[Poses, Float[Array, " n"]]:
    """Poses on the top level whose scores are high local maxima, and their ranks, -inf after the last one.

    Args:
      image: the image on the top level.
      template: the template on the top level.
      mask: weights of its pixels.
      allowed: where centers may lie.
      plan: the poses to compare.
      options: how poses are scored.
    """
    count = max(MIN_CANDIDATES_PER_MAP, CANDIDATES_PER_MATCH * options.top_k)
    has_all_pixels = mask is None and options.min_visible == 1
    if not (options.score is zncc and has_all_pixels and plan.has_disk and plan.freedom.angle):
        return _box_candidates(image, template, mask, allowed, plan, options)
    search = DiskSearch(
        center=plan.center(plan.pyramid.factors[-1]),
        angles=plan.angles,
        log_scales=plan.log_scales,
        candidates=count,
        is_signed=options.ranking == "highest",
        tolerance=TOP_TOLERANCE,
    )
    return disk_candidates(image, template, allowed, search)


def _box_candidates(
    image: Array,
    template: Array,
    mask: Array | None,
    allowed: Array | None,
    plan: RangePlan,
    options: MatchOptions,
) -> tuple[Poses, Array]:
    """Candidates of the exhaustive search, which takes any score and mask."""
    size = template.shape[:2]
    scales = [math.exp(log_scale) for log_scale in plan.log_scales]
    is_partial = options.min_visible < 1
    reach = math.ceil(math.hypot(*size) * max(scales)) if is_partial else math.ceil(TOP_TOLERANCE)
    valid = jnp.pad(jnp.ones(image.shape[:2], bool), reach) if is_partial else None
    image = jnp.pad(image, [(reach, reach), (reach, reach), (0, 0)], mode="edge")
    allowed = None if allowed is None else jnp.pad(allowed, reach, mode="edge")
    table, canvases = plan_poses(np.array([size]), image.shape[:2], scales, plan.angles)
    table = jax.tree.map(jnp.asarray, table)
    bank = Bank(template[None], None if mask is None else mask[None], jnp.asarray([size]))
    poses_per_map = min(ANGLES_PER_MAP, len(plan.angles))
    maps = -(-len(table.scale) // poses_per_map)
    scoring = Scoring(
        score=options.score if is_partial else without_undefined(options.score),
        ranking=options.ranking,
        candidates=maps * max(MIN_CANDIDATES_PER_MAP, CANDIDATES_PER_MATCH * options.top_k),
        poses_per_map=poses_per_map,
        min_visible=TOP_VISIBLE_FRACTION * options.min_visible,
    )
    found = pose_candidates(image, bank, table, canvases, scoring, allowed, valid)
    found = jax.tree.map(lambda field: field[0], found)
    dtype = template.dtype
    box = table.box.astype(found.row.dtype)[found.pose]
    y, x = (
        (pixel - (side - 1) // 2 - reach).astype(dtype) + (side - 1).astype(dtype) / 2
        for pixel, side in zip((found.row, found.column), box.T, strict=True)
    )
    angle = table.angle.astype(dtype)[found.pose]
    return Poses(y, x, angle, jnp.log(table.scale.astype(dtype))[found.pose]), found.rank


def lies_inside(poses: Poses, plan: RangePlan, factor: float, size: Sequence[int], tolerance: float) -> Array:
    """Whether all pixels of the template lie inside of an image, but for a tolerance."""
    scale = jnp.exp(poses.log_scale)
    cos = jnp.abs(jnp.cos(poses.angle)) * scale
    sin = jnp.abs(jnp.sin(poses.angle)) * scale
    down, right = plan.center(factor)
    rows = cos * down + sin * right
    columns = sin * down + cos * right
    fits = (poses.y >= rows - tolerance) & (poses.y <= size[0] - 1 - rows + tolerance)
    return fits & (poses.x >= columns - tolerance) & (poses.x <= size[1] - 1 - columns + tolerance)


def is_allowed(poses: Poses, allowed: Array) -> Array:
    """Whether the center of a pose lies where it may."""
    rows, columns = allowed.shape
    row = jnp.clip(jnp.round(poses.y), 0, rows - 1).astype(jnp.int32)
    column = jnp.clip(jnp.round(poses.x), 0, columns - 1).astype(jnp.int32)
    return allowed[row, column]
