"""Non-maximum suppression (NMS) of overlapping rectangles."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ._rectangles import Rectangles, intersection_area
from ._typing import Scalar

# Kept rectangles that are counted, at most; `Matches` says this number.
MAX_COUNT = 1000


class Kept(NamedTuple):
    """Rectangles that non-maximum suppression keeps."""

    indices: Int[Array, " top_k"]
    """The best first, and -1 after the last one."""
    found: Int[Array, ""]
    """How many there are without `top_k`: at most `MAX_COUNT`, or `top_k` if this is more."""


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
      One pass over the n rectangles for every kept one, also for those that are only counted.
    """
    boxes, scores, max_overlap = lax.stop_gradient((boxes, scores, max_overlap))
    area = boxes.height * boxes.width

    def is_left(state: tuple[Array, Array, Kept]) -> Array:
        scores, best, kept = state
        return (scores[best] > -jnp.inf) & (kept.found < max(MAX_COUNT, top_k))

    def keep_best(state: tuple[Array, Array, Kept]) -> tuple[Array, Array, Kept]:
        scores, best, kept = state
        intersection = intersection_area(Rectangles(*(field[best] for field in boxes)), boxes)
        is_dropped = intersection > max_overlap * (area + area[best] - intersection)
        if classes is not None:
            is_dropped &= classes == classes[best]
        remaining = jnp.where(is_dropped, -jnp.inf, scores).at[best].set(-jnp.inf)
        indices = kept.indices.at[kept.found].set(best, mode="drop")
        return remaining, _index_of_best(remaining), Kept(indices, kept.found + 1)

    none_kept = Kept(jnp.full_like(scores, -1, jnp.int32, (top_k,)), jnp.zeros_like(scores, jnp.int32, ()))
    _, _, kept = lax.while_loop(is_left, keep_best, (scores, _index_of_best(scores), none_kept))
    return kept


def _index_of_best(scores: Array) -> Array:
    return lax.argmax(scores, 0, jnp.int32)
