"""The best poses: templates scored in every pose, and the local maxima of the scores.

A loop takes some templates and poses at a time, and keeps only their local maxima. So the memory does not grow with
their number, and what depends on the image alone is computed once for all of them.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from ._dtypes import accumulation_dtype
from ._mesh_axes import vary_like
from ._peaks import is_local_maximum, neighborhoods, subpixel_offset, top_local_maxima
from ._pose_scores import Bank, Scoring, pose_scores
from ._poses import Canvas, PoseTable
from ._programs import map_steps

# Elements of the score maps that are computed at a time, unless one map has more.
CHUNK_ELEMENTS = 2**21
# Score maps that are computed at a time, at most.
MAX_CHUNK_MAPS = 64
# Local maxima of all templates, or of all chunks of poses, that are kept.
MAX_CANDIDATES = 2**15


class Candidates(NamedTuple):
    """Local maxima of score maps, n of each template. Where `rank` is -inf there are no more of them."""

    rank: Float[Array, "K n"]
    """The score, its negative or its magnitude: the larger, the better."""
    score: Float[Array, "K n"]
    pose: Int[Array, "K n"]
    """Index of the pose."""
    row: Int[Array, "K n"]
    """The middle pixel of the pose's box."""
    column: Int[Array, "K n"]
    dy: Float[Array, "K n"]
    """Subpixel offset of the pose's score map, rows."""
    dx: Float[Array, "K n"]


class PoseMaxima(NamedTuple):
    """The best of some poses centered at a pixel, for all templates and pixels."""

    rank: Float[Array, "K H W"]
    pose: Int[Array, "K H W"]


def pose_candidates(
    image: Shaped[Array, "H W *C"],
    bank: Bank,
    table: PoseTable,
    canvases: Sequence[Canvas],
    scoring: Scoring,
    allowed: Bool[Array, "H W"] | None = None,
    valid: Bool[Array, "H W"] | None = None,
) -> Candidates:
    """Scores templates in all poses at all pixels, and keeps the highest local maxima of each template.

    A pose is scored where its box lies inside the image. NaN scores count as lower than all others.

    Args:
      image: the image.
      bank: the templates.
      table: their poses.
      canvases: how the poses are drawn, from `plan_poses`.
      scoring: the score and the number of local maxima.
      allowed: where local maxima are kept; others still are neighbors. None: everywhere.
      valid: which pixels of the image count, for scores of `_visible_scores`. None: all.

    Raises:
      ValueError: a score that skips positions.
    """
    table = PoseTable(*map(jnp.asarray, table))
    count = len(bank.templates)
    maps = max(1, min(MAX_CHUNK_MAPS, CHUNK_ELEMENTS // math.prod(image.shape[:2])))
    pose_count = len(table.scale)
    chunk = _even_share(count, max(1, maps // pose_count))
    chunks = -(-count // chunk)
    sizes_differ = table.size.ndim == 3

    def split(array: Array) -> Array:
        missing = [(0, chunks * chunk - count)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, missing).reshape(chunks, chunk, *array.shape[1:])

    def of_chunk(step: tuple[Bank, Array | None, Array | None]) -> Candidates:
        part, size, box = step
        part_table = table._replace(size=size, box=box) if sizes_differ else table
        return _bank_candidates(image, part, part_table, canvases, scoring, allowed, valid, max(1, maps // chunk))

    sizes_and_boxes = (split(jnp.asarray(table.size)), split(jnp.asarray(table.box))) if sizes_differ else (None, None)
    steps = jax.tree.map(split, bank), *sizes_and_boxes
    candidates = map_steps(of_chunk, steps)
    return jax.tree.map(lambda field: field.reshape(-1, field.shape[-1])[:count], candidates)


def _even_share(total: int, most: int) -> int:
    """The least share of which as many make up a total as of the largest possible share."""
    return -(-total // -(-total // most))


def _bank_candidates(
    image: Array,
    bank: Bank,
    table: PoseTable,
    canvases: Sequence[Canvas],
    scoring: Scoring,
    allowed: Array | None,
    valid: Array | None,
    maps: int,
) -> Candidates:
    """The candidates of templates that are scored at the same time, some poses at a time."""
    shape = len(bank.templates), *image.shape[:2]
    dtype = accumulation_dtype(image.dtype)
    none = PoseMaxima(jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, jnp.int32))
    maxima = vary_like(none, image, bank, table, allowed, valid)
    found = []
    for canvas in canvases:
        group = scoring.poses_per_map or 1
        chunk = group * _even_share(-(-len(canvas.poses) // group), max(1, maps // group))
        chunks = -(-len(canvas.poses) // chunk)
        numbers = canvas.poses.start + jnp.arange(chunks * chunk, dtype=jnp.int32)
        # The last pose is repeated, so that all chunks have one length.
        steps = jnp.minimum(numbers, canvas.stop - 1).reshape(chunks, chunk)
        step_count = max(1, min(scoring.candidates, 4 * MAX_CANDIDATES // (chunks * len(canvases))))
        score_poses = pose_scores(image, valid, bank, table, canvas, scoring)
        take_step = _pose_step(score_poses, scoring._replace(candidates=step_count), allowed)
        maxima, candidates = lax.scan(take_step, maxima, steps)
        found.append(jax.tree.map(lambda field: jnp.moveaxis(field, 0, 1).reshape(shape[0], -1), candidates))
    merged = Candidates(*(jnp.concatenate(fields, axis=1) for fields in zip(*found, strict=True)))
    if merged.rank.shape[1] == scoring.candidates:
        return merged  # of one step only
    if scoring.poses_per_map is None:
        merged = merged._replace(rank=_where_still_maximum(merged, maxima))
    return top_candidates(merged, scoring.candidates)


def _where_still_maximum(candidates: Candidates, maxima: PoseMaxima) -> Array:
    """The ranks of candidates, -inf for those that are no local maxima of all poses."""

    def ranks(candidates: Candidates, maxima: PoseMaxima) -> Array:
        is_maximum = is_local_maximum(maxima.rank, (1, 1))
        at = candidates.row, candidates.column
        is_best = is_maximum[at] & (maxima.pose[at] == candidates.pose)
        return jnp.where(is_best, candidates.rank, -jnp.inf)

    return jax.vmap(ranks)(candidates, maxima)


def top_candidates(candidates: Candidates, count: int) -> Candidates:
    """The `count` best candidates of each template; fewer if there are not so many."""
    count = min(count, candidates.rank.shape[1])
    _, index = lax.top_k(candidates.rank, count)
    return jax.tree.map(lambda field: jnp.take_along_axis(field, index, axis=1), candidates)


def _pose_step(
    score_poses: Callable[[Array], tuple[Array, Array]], scoring: Scoring, allowed: Array | None
) -> Callable[[PoseMaxima, Array], tuple[PoseMaxima, Candidates]]:
    """A step of a scan: scores some consecutive poses, keeps the best of all so far, and returns local maxima."""

    def step(maxima: PoseMaxima, poses: Array) -> tuple[PoseMaxima, Candidates]:
        scores, ranks = score_poses(poses)
        ranks = ranks.astype(maxima.rank.dtype)
        if scoring.poses_per_map is None:
            maxima, _ = lax.scan(keep_best_pose, maxima, (ranks, poses))
            groups = jax.tree.map(lambda field: field[None], maxima)
        else:
            groups = _best_of_groups(ranks, poses, scoring.poses_per_map)
        templates = jnp.arange(ranks.shape[1], dtype=jnp.int32)
        of_map = jax.vmap(
            jax.vmap(lambda best, k: _map_candidates(best, k, scores, ranks, poses[0], scoring, allowed)), (0, None)
        )
        candidates = of_map(groups, templates)
        return maxima, jax.tree.map(lambda field: jnp.moveaxis(field, 0, 1).reshape(len(templates), -1), candidates)

    return step


def _best_of_groups(ranks: Array, poses: Array, group: int) -> PoseMaxima:
    """The best of every `group` consecutive poses: maps (groups, K, H, W)."""
    none = PoseMaxima(jnp.full_like(ranks[0], -jnp.inf), jnp.zeros_like(ranks[0], jnp.int32))

    def best(ranks: Array, poses: Array) -> PoseMaxima:
        return lax.scan(keep_best_pose, none, (ranks, poses))[0]

    return jax.vmap(best)(ranks.reshape(-1, group, *ranks.shape[1:]), poses.reshape(-1, group))


def keep_best_pose(maxima: PoseMaxima, step: tuple[Array, Array]) -> tuple[PoseMaxima, None]:
    """Keeps one more pose, (ranks (K, H, W), index), where it is better: a step of a scan."""
    ranks, pose = step
    is_better = ranks > maxima.rank
    return PoseMaxima(jnp.where(is_better, ranks, maxima.rank), jnp.where(is_better, pose, maxima.pose)), None


def _map_candidates(
    best: PoseMaxima, k: Array, scores: Array, ranks: Array, first_pose: Array, scoring: Scoring, allowed: Array | None
) -> Candidates:
    """The highest local maxima of one template's map that belong to the poses of `ranks` (P, K, H, W)."""
    is_new = best.pose >= first_pose
    is_candidate = is_new if allowed is None else is_new & allowed
    index, rank = top_local_maxima(best.rank, (1, 1), scoring.candidates, is_candidate)
    row, column = jnp.divmod(index, best.rank.shape[1])
    pose = best.pose[row, column]
    number = jnp.maximum(pose - first_pose, 0)
    dy, dx = subpixel_offset(neighborhoods(ranks, (number, jnp.full_like(number, k), row, column)))
    score = {"highest": rank, "lowest": -rank}.get(scoring.ranking)
    if score is None:
        score = scores[number, k, row, column].astype(rank.dtype)
    return Candidates(rank, score, pose, row, column, dy, dx)
