"""The candidates of `find`: templates of one shape, their poses, and the suppression of overlapping matches."""

import collections
import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Shaped

from ._matches import Matches
from ._non_max_suppression import non_max_suppression
from ._peaks import top_local_maxima
from ._pose_maxima import PoseMaxima
from ._poses import Pose, make_pose
from ._rectangles import make_rectangles
from ._validation import as_floats, broadcast_mask, check_shape

# Local maxima of each feature that take part in non-maximum suppression.
CANDIDATES_PER_MATCH = 32
MIN_CANDIDATES = 4096
Template = Shaped[ArrayLike, "..."]  # a feature, or its mask


class TemplateGroup(NamedTuple):
    """Features of one shape, and their indices among all features."""

    indices: list[int]
    templates: Array
    """(K, h, w, *C)."""
    masks: Array | None
    """Weights of their pixels, of the same shape."""


def group_by_shape(
    features: Template | Sequence[Template], mask: Template | Sequence[Template | None] | None, rank: int
) -> list[TemplateGroup]:
    """Checks the features and masks of `find`, and stacks those of one shape and dtype."""
    masks: list[Template | None]
    if not isinstance(features, list | tuple) and jnp.ndim(cast(ArrayLike, features)) == rank:
        templates = [cast(Template, features)]
        masks = [cast(Template | None, mask)]
    else:  # a sequence, or a bank: an array that holds one feature after another
        templates = list(cast(Sequence[Template], features))
        masks = [None] * len(templates) if mask is None else list(cast(Sequence[Template | None], mask))
    if len(templates) == 0 or len(masks) != len(templates):
        raise ValueError(
            "features: expected at least one feature and one mask per feature, "
            f"got {len(templates)} features and {len(masks)} masks"
        )
    groups = collections.defaultdict(list)
    for index, (feature, weights) in enumerate(zip(templates, masks, strict=True)):
        (template,) = as_floats(features=feature)
        check_shape("features", template, "h w C" if rank == 3 else "h w")
        template_mask = None if weights is None else broadcast_mask(weights, template.shape)
        mask_dtype = None if template_mask is None else template_mask.dtype
        groups[template.shape, template.dtype, mask_dtype].append((index, template, template_mask))
    return [_stack_group(members) for members in groups.values()]


def _stack_group(members: list[tuple[int, Array, Array | None]]) -> TemplateGroup:
    indices, templates, masks = zip(*members, strict=True)
    return TemplateGroup(list(indices), jnp.stack(templates), None if masks[0] is None else jnp.stack(masks))


def fitting_poses(
    template_size: Sequence[int], image_size: Sequence[int], scales: Sequence[float], angles: Sequence[float]
) -> list[Pose]:
    """All poses whose boxes fit into the image; those of one scale are consecutive."""
    poses = [make_pose(template_size, scale, angle) for scale, angle in itertools.product(scales, angles)]
    return [pose for pose in poses if pose.box[0] <= image_size[0] and pose.box[1] <= image_size[1]]


def top_candidates(
    maxima: PoseMaxima, feature_indices: Sequence[int], poses: Sequence[Pose], top_k: int, subpixel: bool
) -> Matches:
    """The highest local maxima of each feature, as matches before non-maximum suppression."""
    count = max(MIN_CANDIDATES, CANDIDATES_PER_MATCH * top_k)
    of_feature = functools.partial(_feature_candidates, poses=poses, count=count, subpixel=subpixel)
    candidates = jax.vmap(of_feature)(maxima, jnp.array(feature_indices, jnp.int32))
    return Matches(*(field.ravel() for field in candidates))


def _feature_candidates(
    maxima: PoseMaxima, feature_index: Array, *, poses: Sequence[Pose], count: int, subpixel: bool
) -> Matches:
    """The `count` highest local maxima of one feature's maps (H, W)."""
    dtype = maxima.score.dtype
    index, score = top_local_maxima(maxima.score, (1, 1), count)
    pose_index, dy, dx = (field.ravel()[index] for field in (maxima.pose, maxima.dy, maxima.dx))
    boxes = np.array([pose.box for pose in poses])
    height, width = jnp.array(boxes, dtype)[pose_index].T
    sizes = np.array([pose.size for pose in poses])
    template_height, template_width = jnp.array(sizes, dtype)[pose_index].T
    row, column = jnp.divmod(index, maxima.score.shape[1])
    y = row.astype(dtype) - (height - 1) // 2
    x = column.astype(dtype) - (width - 1) // 2
    return Matches(
        y=y + dy if subpixel else y,
        x=x + dx if subpixel else x,
        score=score,
        feature=jnp.full_like(index, feature_index),
        scale=jnp.array([pose.scale for pose in poses], dtype)[pose_index],
        angle=jnp.array([pose.angle for pose in poses], dtype)[pose_index],
        height=height,
        width=width,
        valid=score > -jnp.inf,
        template_height=template_height,
        template_width=template_width,
        found=jnp.zeros_like(index),
    )


def suppress_overlaps(
    candidates: Sequence[Matches], min_score: Array, max_overlap: float, top_k: int, per_feature: bool = False
) -> Matches:
    """The best `top_k` candidates of at least `min_score` after non-maximum suppression."""
    merged = Matches(*(jnp.concatenate(fields) for fields in zip(*candidates, strict=True)))
    center = merged.center
    boxes = make_rectangles(center[:, 0], center[:, 1], merged.template_height, merged.template_width, merged.angle)
    scores = jnp.where(merged.score >= min_score.astype(merged.score.dtype), merged.score, -jnp.inf)
    classes = merged.feature if per_feature else None
    kept, found = non_max_suppression(boxes, scores, max_overlap=max_overlap, top_k=top_k, classes=classes)
    matches = Matches(*(jnp.where(kept >= 0, field[kept], jnp.zeros_like(field[kept])) for field in merged))
    return matches._replace(feature=jnp.where(matches.valid, matches.feature, -1), found=found)
