"""Groups of features that `find` searches coarse to fine, and their candidates as matches."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped

from ._coarse_to_fine import RangeCandidates, range_candidates
from ._dtypes import accumulation_dtype
from ._feature_groups import Features, as_bank, join_features
from ._matches import Matches
from ._range_plan import Range, RangePlan, plan_ranges
from ._search_inputs import Stack
from ._search_options import MatchOptions
from ._template_texture import measure_texture
from ._typing import Pair
from .matching import squared_difference


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


def make_range_groups(
    stacks: Sequence[Stack], image_size: Pair, ranges: Ranges
) -> tuple[tuple[Features, ...], tuple[tuple[RangePlan, ...], ...]]:
    """Groups of features of one shape, and the plans of each; none if no feature fits anywhere."""
    groups = []
    plans = []
    for members in _group_by_shape(stacks):
        shape = members[0].shape
        textures = list(map(measure_texture, members))
        group_plans = plan_ranges(
            (shape[0], shape[1]),
            image_size,
            angles=ranges.angles,
            scales=ranges.scales,
            angle_range=ranges.angle_range,
            scale_range=ranges.scale_range,
            omitted_levels=max(texture.omitted_levels for texture in textures),
            has_texture_in_disk=all(texture.is_in_disk for texture in textures),
        )
        if group_plans:
            groups.append(join_features(members, shape[:2]))
            plans.append(tuple(group_plans))
    return tuple(groups), tuple(plans)


def _group_by_shape(stacks: Sequence[Stack]) -> list[list[Stack]]:
    """Features of one shape, one dtype and one kind of mask."""
    shapes: dict[object, list[Stack]] = {}
    for stack in stacks:
        shapes.setdefault((stack.shape, stack.kind), []).append(stack)
    return list(shapes.values())


def range_group_candidates(
    image: Shaped[Array, "H W *C"],
    group: Features,
    plans: Sequence[RangePlan],
    options: MatchOptions,
    allowed: Bool[Array, "H W"] | None,
) -> list[Matches]:
    """The refined candidates of a group, as matches before non-maximum suppression."""
    channels = math.prod(image.shape[2:])
    templates, masks = as_bank(group, image.shape[2:])
    templates = templates.astype(accumulation_dtype(templates.dtype))
    templates = templates.reshape(*templates.shape[:3], channels)
    if masks is not None:
        masks = masks.astype(templates.dtype).reshape(templates.shape)
    pixels = image.reshape(*image.shape[:2], channels)
    found = []
    for plan in plans:
        candidates = range_candidates(pixels, templates, masks, allowed, plan, options)
        found.append(_as_matches(candidates, group, templates, masks, plan, options))
    return found


def _as_matches(
    candidates: RangeCandidates,
    group: Features,
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
