"""Score maps of the best pose: templates scored in every pose, the best kept at every pixel."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ._dtypes import accumulation_dtype
from ._peaks import subpixel_offset
from ._poses import Pose, rotate_templates
from ._typing import Score


class PoseMaxima(NamedTuple):
    """For every template and pixel, the best of all poses centered at the pixel: maps (K, H, W)."""

    score: Array
    pose: Array
    """Index of the pose."""
    dy: Array
    """Subpixel offset of the pose's score map, rows."""
    dx: Array


def best_poses(image: Array, templates: Array, masks: Array | None, poses: Sequence[Pose], score: Score) -> PoseMaxima:
    """Scores templates (K, h, w, *C), with masks of that shape, in all poses and keeps the best at every pixel.

    A scan takes one pose at a time, so that the memory does not grow with their number. Poses of one scale are
    consecutive.
    """
    shape = len(templates), *image.shape[:2]
    dtype = accumulation_dtype(image.dtype)
    zeros = jnp.zeros(shape, dtype)
    maxima = PoseMaxima(jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, jnp.int32), zeros, zeros)
    for _, numbered_poses in itertools.groupby(enumerate(poses), lambda numbered: numbered[1].scale):
        pose_indices, scale_poses = zip(*numbered_poses, strict=True)
        boxes = np.array([pose.box for pose in scale_poses])
        canvas_size = int(boxes[:, 0].max()), int(boxes[:, 1].max())
        rotated, rotated_masks = rotate_templates(templates, masks, scale_poses, canvas_size)
        # Padded so that score maps have the image's size, with a pixel for the center of each box.
        margins = [((side - 1) // 2, side // 2) for side in canvas_size] + [(0, 0)] * (image.ndim - 2)
        score_in_image = functools.partial(_masked_score, score, jnp.pad(image, margins, mode="edge"))
        bank_score = jax.vmap(score_in_image, (0, None if masks is None else 0))
        steps = rotated, rotated_masks, jnp.array(boxes), jnp.array(pose_indices, jnp.int32)
        maxima, _ = lax.scan(functools.partial(keep_best_pose, bank_score), maxima, steps)
    return maxima


def _masked_score(score: Score, image: Array, feature: Array, mask: Array | None) -> Array:
    return score(image, feature, mask=mask)


def keep_best_pose(
    bank_score: Callable[[Array, Array | None], Array],
    maxima: PoseMaxima,
    step: tuple[Array, Array | None, Array, Array],
) -> tuple[PoseMaxima, None]:
    """Scores one more pose, (templates, masks, box, pose index), and keeps it where it is better: a step of a scan."""
    templates, masks, box, pose_index = step
    scores = bank_score(templates, masks).astype(maxima.score.dtype)
    if scores.shape != maxima.score.shape:
        raise ValueError(f"score: expected maps of all positions {maxima.score.shape[1:]}, got {scores.shape[1:]}")
    inside_rows, inside_columns = (
        (jnp.arange(n) >= (side - 1) // 2) & (jnp.arange(n) < n - side // 2)
        for n, side in zip(scores.shape[1:], box, strict=True)
    )
    box_fits = inside_rows[:, None] & inside_columns[None, :]
    scores = jnp.where(box_fits[None] & ~jnp.isnan(scores), scores, -jnp.inf)
    dy, dx = jax.vmap(subpixel_offset)(scores)
    candidate = PoseMaxima(scores, jnp.full(scores.shape, pose_index), dy, dx)
    is_better = scores > maxima.score
    return jax.tree.map(lambda new, old: jnp.where(is_better, new, old), candidate, maxima), None
