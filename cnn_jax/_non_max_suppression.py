"""Non-maximum suppression (NMS) of overlapping rectangles."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ._rectangles import Rectangles, intersection_area
from ._typing import Scalar

# Kept rectangles that are counted, at most; `Matches` says this number.
MAX_FOUND = 1000
# Rectangles compared at once: more are faster where all have a finite score, fewer are faster where few have.
TILE = 1024


class Kept(NamedTuple):
    """Rectangles that non-maximum suppression keeps."""

    indices: Int[Array, " top_k"]
    """The best first, and -1 after the last one."""
    found: Int[Array, ""]
    """How many there are without `top_k`: at most `MAX_FOUND`, or `top_k` if this is more."""


class _Best(NamedTuple):
    """The best candidate: its score and its position among all tiles."""

    score: Array
    position: Array


class _Candidates(NamedTuple):
    """Rectangles in tiles (T, m), those of finite score first, in their order."""

    indices: Array
    """Among the rectangles given."""
    score: Array
    boxes: Rectangles
    classes: Array | None
    tiles_in_use: Array
    """How many tiles hold a finite score."""


def non_max_suppression(
    boxes: Rectangles,
    scores: Float[Array, " n"],
    *,
    max_overlap: Scalar,
    top_k: int,
    classes: Int[Array, " n"] | None = None,
) -> Kept:
    """Non-maximum suppression: keeps the best rectangle, drops those that overlap it, and repeats.

    Args:
      boxes: n rectangles.
      scores: their scores; rectangles of score -inf are never kept. Of equal scores the first is the best.
      max_overlap: a rectangle is dropped if its overlap with a kept one, intersection over union, is larger.
      top_k: the number of indices to return.
      classes: a rectangle is dropped only by those of its class. None if all have one class.

    Returns:
      `Kept`. It has no gradient.

    Notes:
      One pass over the rectangles of finite score for every kept one, also for those that are only counted.
    """
    boxes, scores, max_overlap = lax.stop_gradient((boxes, scores, max_overlap))
    candidates = _to_tiles(boxes, scores, classes)

    def is_left(state: tuple[_Best, Array, Kept]) -> Array:
        best, _, kept = state
        return (best.score > -jnp.inf) & (kept.found < max(MAX_FOUND, top_k))

    def keep_best(state: tuple[_Best, Array, Kept]) -> tuple[_Best, Array, Kept]:
        best, scores, kept = state
        indices = kept.indices.at[kept.found].set(candidates.indices.ravel()[best.position], mode="drop")
        best, scores = _drop_overlaps(candidates._replace(score=scores), best.position, max_overlap)
        return best, scores, Kept(indices, kept.found + 1)

    none_kept = Kept(jnp.full_like(scores, -1, jnp.int32, (top_k,)), jnp.zeros_like(scores, jnp.int32, ()))
    first = lax.argmax(candidates.score.ravel(), 0, jnp.int32)
    state = _Best(candidates.score.ravel()[first], first), candidates.score, none_kept
    _, _, kept = lax.while_loop(is_left, keep_best, state)
    return kept


def _to_tiles(boxes: Rectangles, scores: Array, classes: Array | None) -> _Candidates:
    """Moves the rectangles of finite score to the front, so that loops over tiles end early."""
    count = len(scores)
    tile = min(count, TILE)
    tiles = -(-count // tile)
    is_candidate = scores > -jnp.inf
    (order,) = jnp.nonzero(is_candidate, size=tiles * tile, fill_value=count)
    order = order.reshape(tiles, tile)
    return _Candidates(
        indices=order.astype(jnp.int32),
        score=scores.at[order].get(mode="fill", fill_value=-jnp.inf),
        boxes=Rectangles(*(field.at[order].get(mode="clip") for field in boxes)),
        classes=None if classes is None else classes.at[order].get(mode="clip"),
        tiles_in_use=-(-is_candidate.sum(dtype=jnp.int32) // tile),
    )


def _drop_overlaps(candidates: _Candidates, position: Array, max_overlap: Scalar) -> tuple[_Best, Array]:
    """The scores without a kept rectangle and those that overlap it, and the best of them."""
    tile = candidates.score.shape[1]
    one = Rectangles(*(field.ravel()[position] for field in candidates.boxes))
    one_class = None if candidates.classes is None else candidates.classes.ravel()[position]

    def drop_in_tile(i: Array, state: tuple[_Best, Array]) -> tuple[_Best, Array]:
        best, scores = state
        boxes = Rectangles(*(field[i] for field in candidates.boxes))
        intersection = intersection_area(one, boxes)
        union = one.height * one.width + boxes.height * boxes.width - intersection
        is_dropped = intersection > max_overlap * union
        if candidates.classes is not None:
            is_dropped &= candidates.classes[i] == one_class
        is_dropped |= i * tile + jnp.arange(tile, dtype=i.dtype) == position
        remaining = jnp.where(is_dropped, -jnp.inf, scores[i])
        first = lax.argmax(remaining, 0, jnp.int32)
        is_better = remaining[first] > best.score
        score = jnp.where(is_better, remaining[first], best.score)
        return _Best(score, jnp.where(is_better, i * tile + first, best.position)), scores.at[i].set(remaining)

    none = _Best(jnp.full_like(one.y, -jnp.inf, candidates.score.dtype), jnp.zeros_like(position))
    return lax.fori_loop(0, candidates.tiles_in_use, drop_in_tile, (none, candidates.score))
