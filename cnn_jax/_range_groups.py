"""Groups of features that `find` searches coarse to fine, and their candidates as matches."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped

from ._coarse_to_fine import RangeCandidates, range_candidates
from ._matches import Matches
from ._range_plan import Range, RangePlan, plan_ranges
from ._search_inputs import Stack, has_values
from ._search_options import MatchOptions
from ._typing import AnyArray, Pair
from ._validation import as_floats
from .matching import squared_difference

# The contrast of a template on the top level of its pyramid, as a fraction of its contrast: where texture vanishes,
# there is nothing to compare.
MIN_CONTRAST_FRACTION = 1 / 64


class Ranges(NamedTuple):
    """The scales and angles that a search compares: lists, or ranges in their place."""

    scales: Sequence[float]
    angles: Sequence[float]
    scale_range: Range | None
    angle_range: Range | None

    @property
    def are_lists(self) -> bool:
        """Whether no range is given."""
        return self.scale_range is None and self.angle_range is None


class RangeGroup(NamedTuple):
    """Features of one shape: the data of a compiled search."""

    indices: np.ndarray
    """Their indices among all features."""
    templates: AnyArray
    """(K, h, w, *C), or (h, w, *C) for one feature."""
    masks: AnyArray | None
    """Weights of their pixels, with or without the axis of channels."""


def make_range_groups(
    stacks: Sequence[Stack], image_size: Pair, ranges: Ranges
) -> tuple[tuple[RangeGroup, ...], tuple[tuple[RangePlan, ...], ...]]:
    """Groups of features of one shape, and the plans of each; none if no feature fits anywhere."""
    groups = []
    plans = []
    for members in _group_by_shape(stacks):
        shape = members[0].shape
        group_plans = plan_ranges(
            (shape[0], shape[1]),
            image_size,
            angles=ranges.angles,
            scales=ranges.scales,
            angle_range=ranges.angle_range,
            scale_range=ranges.scale_range,
            omitted_levels=_omitted_levels(members),
        )
        if group_plans:
            groups.append(_join(members))
            plans.append(tuple(group_plans))
    return tuple(groups), tuple(plans)


def _group_by_shape(stacks: Sequence[Stack]) -> list[list[Stack]]:
    """Features of one shape, one dtype and one kind of mask."""
    shapes: dict[object, list[Stack]] = {}
    for stack in stacks:
        shapes.setdefault((stack.shape, stack.kind), []).append(stack)
    return list(shapes.values())


def _join(stacks: Sequence[Stack]) -> RangeGroup:
    if len(stacks) == 1:
        return RangeGroup(np.array(stacks[0].indices), stacks[0].templates, stacks[0].masks)
    masks = [stack.masks for stack in stacks if stack.masks is not None]
    return RangeGroup(
        indices=np.concatenate([stack.indices for stack in stacks]),
        templates=jnp.stack([stack.templates for stack in stacks]),
        masks=jnp.stack(masks) if masks else None,
    )


def _omitted_levels(stacks: Sequence[Stack]) -> int:
    """Levels to leave out at the top, because the texture of some template vanishes there.

    Only templates whose values are known are looked at: under `jax.jit` no level is left out.
    """
    if not all(has_values(stack.templates) for stack in stacks):
        return 0
    omitted = 0
    for stack in stacks:
        templates = _without_masked_pixels(stack)
        (plan, *_) = plan_ranges(
            (stack.shape[0], stack.shape[1]),
            (stack.shape[0], stack.shape[1]),
            angles=(0.0,),
            scales=(1.0,),
            angle_range=None,
            scale_range=None,
        )
        halvings = plan.pyramid.halvings
        contrasts = np.array([_block_contrast(templates, 2**level) for level in range(halvings + 1)])
        is_enough = contrasts >= MIN_CONTRAST_FRACTION * contrasts[0]
        omitted = max(omitted, halvings - int(np.flatnonzero(is_enough.all(axis=1)).max(initial=0)))
    return omitted


def _without_masked_pixels(stack: Stack) -> np.ndarray:
    """Templates (K, h, w, C) with the mean of the pixels that count in place of the others."""
    templates = np.asarray(stack.templates, np.float32).reshape(len(stack.indices), *stack.shape[:2], -1)
    if stack.masks is None or not has_values(stack.masks):
        return templates
    counts = np.asarray(stack.masks).reshape(len(stack.indices), *stack.shape[:2], -1) != 0
    counts = np.broadcast_to(counts, templates.shape)
    total = np.maximum(counts.sum(axis=(1, 2, 3), keepdims=True), 1)
    mean = np.where(counts, templates, 0).sum(axis=(1, 2, 3), keepdims=True) / total
    return np.where(counts, templates, mean)


def _block_contrast(templates: np.ndarray, side: int) -> np.ndarray:
    """Standard deviations of the means of square blocks, of templates (K, h, w, C)."""
    count, height, width, channels = templates.shape
    rows = height // side
    columns = width // side
    blocks = templates[:, : rows * side, : columns * side].reshape(count, rows, side, columns, side, channels)
    return blocks.mean(axis=(2, 4)).std(axis=(1, 2)).max(axis=1)


def range_group_candidates(
    image: Shaped[Array, "H W *C"],
    group: RangeGroup,
    plans: Sequence[RangePlan],
    options: MatchOptions,
    allowed: Bool[Array, "H W"] | None,
) -> list[Matches]:
    """The refined candidates of a group, as matches before non-maximum suppression."""
    channels = math.prod(image.shape[2:])
    (templates,) = as_floats(features=group.templates)
    templates = templates.astype(jnp.promote_types(templates.dtype, jnp.float32))
    shape = plans[0].template_size
    templates = templates.reshape(len(group.indices), *shape, channels)
    masks = None
    if group.masks is not None:
        weights = jnp.asarray(group.masks)
        if not jnp.issubdtype(weights.dtype, jnp.floating):
            weights = weights.astype(bool)
        weights = weights.astype(templates.dtype).reshape(len(group.indices), *shape, -1)
        masks = jnp.broadcast_to(weights, templates.shape)
    pixels = image.reshape(*image.shape[:2], channels)
    found = []
    for plan in plans:
        candidates = range_candidates(pixels, templates, masks, allowed, plan, options)
        found.append(_as_matches(candidates, group, templates, masks, plan, options))
    return found


def _as_matches(
    candidates: RangeCandidates,
    group: RangeGroup,
    templates: Array,
    masks: Array | None,
    plan: RangePlan,
    options: MatchOptions,
) -> Matches:
    """Candidates as matches, flat. `valid` says which are there."""
    poses = candidates.poses
    scale = plan.base_scale * jnp.exp(poses.log_scale)
    height, width = (side * scale for side in plan.template_size)
    cos = jnp.abs(jnp.cos(poses.angle))
    sin = jnp.abs(jnp.sin(poses.angle))
    box_height = cos * height + sin * width
    box_width = sin * height + cos * width
    angle = poses.angle
    if plan.turn_start is not None:
        angle = plan.turn_start + (angle - plan.turn_start) % (2 * math.pi)
    valid = candidates.rank > -jnp.inf
    score = candidates.score
    if options.score is squared_difference:  # a mean until here
        score = score * scale**2 * _squared_weights(masks, templates)[:, None]
    y = poses.y - (box_height - 1) / 2
    x = poses.x - (box_width - 1) / 2
    matches = Matches(
        y=y if options.subpixel else jnp.round(y),
        x=x if options.subpixel else jnp.round(x),
        score=score,
        feature=jnp.broadcast_to(jnp.asarray(group.indices, jnp.int32)[:, None], score.shape),
        scale=scale,
        angle=angle,
        height=box_height,
        width=box_width,
        valid=valid,
        template_height=height,
        template_width=width,
        found=jnp.zeros_like(score, jnp.int32),
    )
    return Matches(*(jnp.where(valid, field, jnp.zeros_like(field)).ravel() for field in matches))


def _squared_weights(masks: Array | None, templates: Array) -> Array:
    """Σ m² of each template."""
    if masks is None:
        return jnp.full(len(templates), math.prod(templates.shape[1:]), templates.dtype)
    return (masks**2).sum(axis=(1, 2, 3))
