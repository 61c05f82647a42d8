"""Non-maximum suppression (NMS) of overlapping boxes."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ._typing import Scalar


class Boxes(NamedTuple):
    """Upright boxes, in pixels."""

    top: Float[Array, " n"]
    left: Float[Array, " n"]
    height: Float[Array, " n"]
    width: Float[Array, " n"]


def non_max_suppression(
    boxes: Boxes, scores: Float[Array, " n"], *, max_overlap: Scalar, top_k: int
) -> Int[Array, " top_k"]:
    """Non-maximum suppression: keeps the best box, drops those that overlap it, and repeats.

    Args:
      boxes: n boxes.
      scores: their scores; boxes of score -inf are never kept.
      max_overlap: a box is dropped if its overlap with a kept box, intersection over union, is larger.
      top_k: the number of rounds.

    Returns:
      Indices of the kept boxes, the best first, and -1 after the last one.
    """
    bottom = boxes.top + boxes.height
    right = boxes.left + boxes.width
    area = boxes.height * boxes.width

    def keep_best(scores: Array, _: None) -> tuple[Array, Array]:
        best = scores.argmax()
        rows = jnp.minimum(bottom, bottom[best]) - jnp.maximum(boxes.top, boxes.top[best])
        columns = jnp.minimum(right, right[best]) - jnp.maximum(boxes.left, boxes.left[best])
        intersection = jnp.maximum(rows, 0) * jnp.maximum(columns, 0)
        union = area + area[best] - intersection
        kept = jnp.where(scores[best] > -jnp.inf, best, -1)
        remaining = jnp.where(intersection > max_overlap * union, -jnp.inf, scores)
        return remaining.at[best].set(-jnp.inf), kept

    _, kept = lax.scan(keep_best, scores, None, top_k)
    return kept
