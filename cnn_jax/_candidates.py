"""The candidates of `find`: groups of features that share programs, their local maxima, and their suppression."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped

from ._feature_groups import Features, as_bank, join_features
from ._matches import Matches
from ._non_max_suppression import non_max_suppression
from ._pose_maxima import MAX_CANDIDATES, Candidates, pose_candidates
from ._pose_scores import Bank, Scoring, rank_of
from ._poses import MIN_FILLED_FRACTION, Canvas, PoseTable, plan_poses
from ._rectangles import make_rectangles
from ._search_inputs import Stack
from ._search_options import MatchOptions, without_undefined

# Local maxima of each feature that take part in non-maximum suppression: as many as fit into `MAX_CANDIDATES` of all
# features, and enough for all matches, if these are not too many of all features.
MAX_CANDIDATES_PER_FEATURE = 2**12
CANDIDATES_PER_MATCH = 32
MAX_CANDIDATES_FOR_MATCHES = 2**18
# Shapes of features that have a program each. More are drawn on shared canvases.
MAX_SEPARATE_SHAPES = 2


class Group(NamedTuple):
    """Features of similar shape, in arrays of one shape: the data of a compiled search."""

    features: Features
    sizes: np.ndarray
    """Rows and columns of each feature, (K, 2)."""
    table: PoseTable


def make_groups(
    stacks: Sequence[Stack], image_size: Sequence[int], scales: Sequence[float], angles: Sequence[float]
) -> tuple[tuple[Group, ...], tuple[tuple[Canvas, ...], ...]]:
    """Groups features and plans their poses: groups, and the canvases of each; none if no feature fits anywhere."""
    groups = []
    canvases = []
    for members in _group_by_kind(stacks):
        for similar in _group_by_size(members):
            group, group_canvases = _make_group(similar, image_size, scales, angles)
            if group_canvases:
                groups.append(group)
                canvases.append(group_canvases)
    return tuple(groups), tuple(canvases)


def _group_by_kind(stacks: Sequence[Stack]) -> list[list[Stack]]:
    """Features of one dtype and one kind of mask."""
    kinds: dict[object, list[Stack]] = {}
    for stack in stacks:
        kinds.setdefault(stack.kind, []).append(stack)
    return list(kinds.values())


def _group_by_size(stacks: Sequence[Stack]) -> list[list[Stack]]:
    """Features of one shape, or of sides that differ at most by `MIN_FILLED_FRACTION` if there are many shapes."""
    by_shape: dict[tuple[int, ...], list[Stack]] = {}
    for stack in sorted(stacks, key=lambda stack: stack.shape[:2], reverse=True):
        by_shape.setdefault(stack.shape, []).append(stack)
    if len(by_shape) <= MAX_SEPARATE_SHAPES:
        return list(by_shape.values())
    groups: list[list[Stack]] = []
    for members in by_shape.values():
        for group in groups:
            sides = np.array([stack.shape[:2] for stack in [*group, members[0]]])
            if (sides.min(axis=0) >= MIN_FILLED_FRACTION * sides.max(axis=0)).all():
                group.extend(members)
                break
        else:
            groups.append(list(members))
    return groups


def _make_group(
    stacks: Sequence[Stack], image_size: Sequence[int], scales: Sequence[float], angles: Sequence[float]
) -> tuple[Group, tuple[Canvas, ...]]:
    sizes = np.array([stack.shape[:2] for stack in stacks for _ in stack.indices])
    frame = tuple(sizes.max(axis=0).tolist())
    table, canvases = plan_poses(sizes, image_size, scales, angles)
    return Group(join_features(stacks, frame), sizes, table), canvases


def group_candidates(
    image: Shaped[Array, "H W *C"],
    group: Group,
    canvases: tuple[Canvas, ...],
    options: MatchOptions,
    feature_count: int,
    allowed: Bool[Array, "H W"] | None,
    valid: Bool[Array, "H W"] | None,
) -> Matches:
    """The highest local maxima of each feature of a group, as matches before non-maximum suppression."""
    templates, masks = as_bank(group.features, image.shape[2:])
    bank = Bank(templates, masks, jnp.asarray(group.sizes))
    scoring = Scoring(
        score=options.score if options.min_visible < 1 else without_undefined(options.score),
        ranking=options.ranking,
        candidates=_candidate_count(feature_count, options.top_k),
        min_visible=options.min_visible,
    )
    candidates = pose_candidates(image, bank, group.table, canvases, scoring, allowed, valid)
    return _as_matches(candidates, group, options.subpixel)


def _candidate_count(feature_count: int, top_k: int) -> int:
    """Candidates of each feature."""
    for_matches = min(CANDIDATES_PER_MATCH * top_k, max(1, MAX_CANDIDATES_FOR_MATCHES // feature_count))
    return max(for_matches, min(MAX_CANDIDATES_PER_FEATURE, MAX_CANDIDATES // feature_count))


def _as_matches(candidates: Candidates, group: Group, subpixel: bool) -> Matches:
    """Candidates as matches, flat. `valid` says which are there."""
    dtype = candidates.rank.dtype
    table = group.table
    pose = candidates.pose
    numbers = jnp.broadcast_to(jnp.arange(len(pose), dtype=pose.dtype)[:, None], pose.shape)
    at = (numbers, pose) if table.size.ndim == 3 else pose
    height, width = jnp.moveaxis(jnp.asarray(table.box, pose.dtype)[at], -1, 0)
    template_height, template_width = jnp.moveaxis(jnp.asarray(table.size)[at], -1, 0)
    y = (candidates.row - (height - 1) // 2).astype(dtype)
    x = (candidates.column - (width - 1) // 2).astype(dtype)
    matches = Matches(
        y=y + candidates.dy if subpixel else y,
        x=x + candidates.dx if subpixel else x,
        score=candidates.score,
        feature=jnp.broadcast_to(jnp.asarray(group.features.indices, jnp.int32)[:, None], pose.shape),
        scale=jnp.asarray(table.scale, dtype)[pose],
        angle=jnp.asarray(table.angle, dtype)[pose],
        height=height.astype(dtype),
        width=width.astype(dtype),
        valid=candidates.rank > -jnp.inf,
        template_height=template_height.astype(dtype),
        template_width=template_width.astype(dtype),
        found=jnp.zeros_like(pose),
    )
    return Matches(*(field.ravel() for field in matches))


def suppress_overlaps(
    candidates: Sequence[Matches],
    least_rank: Array,
    max_overlap: Array | float,
    options: MatchOptions,
) -> Matches:
    """The best `top_k` candidates of at least some rank after non-maximum suppression."""
    merged = Matches(*(jnp.concatenate(fields) for fields in zip(*candidates, strict=True)))
    center = merged.center
    boxes = make_rectangles(center[:, 0], center[:, 1], merged.template_height, merged.template_width, merged.angle)
    ranks = rank_of(merged.score, options.ranking)
    is_candidate = merged.valid & (ranks >= least_rank.astype(ranks.dtype))
    ranks = jnp.where(is_candidate, ranks, -jnp.inf)
    classes = merged.feature if options.per_feature else None
    kept, found = non_max_suppression(boxes, ranks, max_overlap=max_overlap, top_k=options.top_k, classes=classes)
    matches = Matches(*(jnp.where(kept >= 0, field[kept], jnp.zeros_like(field[kept])) for field in merged))
    return matches._replace(feature=jnp.where(matches.valid, matches.feature, -1), found=found)
