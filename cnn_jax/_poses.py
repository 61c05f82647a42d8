"""Poses of templates: the scales and angles at which `search` compares them, as arrays.

Poses of several scales share a canvas, which is a little larger than some of them, so that they share one program.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from ._typing import Pair
from .warping import resample

# Upper limit of a scaled side in pixels before rounding to an int: larger than any image.
LARGEST_SIDE = 2**30
# Decimals of cosines and sines, so that multiples of 90 degrees hit pixels exactly.
COSINE_DECIMALS = 12
# The least side of a box on a canvas, as a fraction of the canvas. A canvas costs more to compile than to leave empty.
MIN_FILLED_FRACTION = 0.25
# Scales without a mask that have a canvas each. More are compared under masks, on shared canvases.
MAX_SEPARATE_SCALES = 2


class PoseTable(NamedTuple):
    """P poses of K templates. Poses of one canvas are consecutive, and so are poses of one scale."""

    scale: Float[np.ndarray | Array, " P"]
    angle: Float[np.ndarray | Array, " P"]
    """Radians, counterclockwise."""
    cos: Float[np.ndarray | Array, " P"]
    sin: Float[np.ndarray | Array, " P"]
    size: Int[np.ndarray | Array, "K P 2"] | Int[np.ndarray | Array, "P 2"]
    """Rows and columns of the scaled templates; (P, 2) if all templates have one size."""
    box: Int[np.ndarray | Array, "K P 2"] | Int[np.ndarray | Array, "P 2"]
    """Rows and columns of the upright boxes around the templates, scaled and rotated."""


class Canvas(NamedTuple):
    """The arrays on which some consecutive poses are drawn. It is hashable, an argument of a compiled program."""

    size: Pair
    """Rows and columns."""
    smallest_box: Pair
    """The least rows and the least columns of a box."""
    scaled_size: Pair
    """The most rows and the most columns of a scaled template."""
    scale_starts: tuple[int, ...]
    """The first pose of each scale."""
    stop: int
    """The pose after the last one."""
    is_scaled: bool
    """Whether a template is scaled."""
    is_filled: bool
    """Whether all templates fill the canvas in all poses, so that no mask is needed."""
    is_identity: bool
    """Whether the only pose leaves all templates as they are."""

    @property
    def poses(self) -> range:
        """Indices of the poses."""
        return range(self.scale_starts[0], self.stop)


def plan_poses(
    template_sizes: Int[np.ndarray, "K 2"], image_size: Sequence[int], scales: Sequence[float], angles: Sequence[float]
) -> tuple[PoseTable, tuple[Canvas, ...]]:
    """All poses in which some template fits into the image, and their canvases; none if no template fits."""
    sizes = template_sizes[:1] if (template_sizes == template_sizes[:1]).all() else template_sizes
    table = make_pose_table(sizes, scales, angles)
    table = _take_poses(table, np.flatnonzero(_fits(table, image_size).any(axis=0)))
    # Large scales first. Sorting is stable, so that poses of one scale stay in the order of their angles.
    order = np.argsort(-table.scale, kind="stable")
    table = _take_poses(table, order)
    canvases = _make_canvases(table, _fits(table, image_size))
    if len(sizes) == 1:
        table = table._replace(size=table.size[0], box=table.box[0])
    return table, canvases


def make_pose_table(
    template_sizes: Int[np.ndarray, "K 2"], scales: Sequence[float], angles: Sequence[float]
) -> PoseTable:
    """The poses of all combinations of scales and angles, one scale after the other."""
    unique_scales = list(dict.fromkeys(scales))
    scale = np.repeat(np.array(unique_scales, np.float64), len(angles))
    angle = np.tile(np.array(angles, np.float64), len(unique_scales))
    cos = np.round(np.cos(angle), COSINE_DECIMALS)
    sin = np.round(np.sin(angle), COSINE_DECIMALS)
    scaled = np.minimum(template_sizes[:, None] * scale[None, :, None], LARGEST_SIDE)
    size = np.maximum(1, np.rint(scaled))
    across = np.abs(cos)[None, :, None] * size + np.abs(sin)[None, :, None] * size[:, :, ::-1]
    box = np.maximum(1, np.rint(across))
    return PoseTable(scale, angle, cos, sin, size.astype(np.int64), box.astype(np.int64))


def _fits(table: PoseTable, image_size: Sequence[int]) -> np.ndarray:
    """Whether each template fits into the image in each pose, (K, P)."""
    return np.all(np.asarray(table.box) <= np.array(image_size)[None, None], axis=2)


def _take_poses(table: PoseTable, index: np.ndarray) -> PoseTable:
    return PoseTable(*(field[index] for field in table[:4]), *(field[:, index] for field in table[4:]))


def _make_canvases(table: PoseTable, fits: np.ndarray) -> tuple[Canvas, ...]:
    """Cuts the poses, sorted by scale, into those of one canvas each."""
    if len(table.scale) == 0:
        return ()
    starts = np.flatnonzero(np.diff(table.scale, prepend=np.nan) != 0).tolist()
    spans = list(zip(starts, [*starts[1:], len(table.scale)], strict=True))
    separate = [_make_canvas(table, fits, [start], stop) for start, stop in spans]
    if len(separate) <= MAX_SEPARATE_SCALES and all(canvas.is_filled for canvas in separate):
        return tuple(separate)
    canvases: list[Canvas] = []
    first = 0
    for i, canvas in enumerate(separate):
        largest = separate[first].size
        is_last = i + 1 == len(separate)
        next_size = (0, 0) if is_last else separate[i + 1].size
        if is_last or any(n < MIN_FILLED_FRACTION * m for n, m in zip(next_size, largest, strict=True)):
            canvases.append(_make_canvas(table, fits, starts[first : i + 1], canvas.stop))
            first = i + 1
    return tuple(canvases)


def _make_canvas(table: PoseTable, fits: np.ndarray, scale_starts: Sequence[int], stop: int) -> Canvas:
    poses = slice(scale_starts[0], stop)
    boxes = table.box[:, poses][fits[:, poses]]
    rows, columns = boxes.max(axis=0).tolist()
    smallest_rows, smallest_columns = boxes.min(axis=0).tolist()
    scaled_rows, scaled_columns = table.size[:, poses][fits[:, poses]].max(axis=0).tolist()
    is_quarter_turn = (table.cos[poses] == 0) | (table.sin[poses] == 0)
    is_filled = bool(fits[:, poses].all() and (boxes == boxes[:1]).all() and is_quarter_turn.all())
    is_scaled = bool((table.scale[poses] != 1).any())
    is_single = stop - scale_starts[0] == 1
    return Canvas(
        size=(rows, columns),
        smallest_box=(smallest_rows, smallest_columns),
        scaled_size=(scaled_rows, scaled_columns),
        scale_starts=tuple(scale_starts),
        stop=stop,
        is_scaled=is_scaled,
        is_filled=is_filled,
        is_identity=is_single and is_filled and not is_scaled and bool(table.cos[poses.start] == 1),
    )


def scale_templates(
    templates: Shaped[Array, "K h w *C"], template_sizes: Int[Array, "K 2"], table: PoseTable, canvas: Canvas
) -> Shaped[Array, "S K h2 w2 *C"]:
    """Templates scaled about their centers by every scale of a canvas, smoothed before they shrink.

    A template may be smaller than its array. Both have the top left pixel in common, also in the result.
    """
    starts = np.array(canvas.scale_starts)

    def scaled(template: Array, old_size: Array, scale: Array, new_size: Array) -> Array:
        rows, columns = (
            _scaling_weights(template.shape[axis], canvas.scaled_size[axis], old_size[axis], new_size[axis], scale)
            for axis in (0, 1)
        )
        rows = rows.astype(template.dtype)
        columns = columns.astype(template.dtype)
        tall = jnp.einsum("yi,ij...->yj...", rows, template, precision="highest")
        return jnp.einsum("xj,yj...->yx...", columns, tall, precision="highest")

    of_bank = jax.vmap(scaled, (0, 0, None, 0 if table.size.ndim == 3 else None))
    new_sizes = jnp.take(jnp.asarray(table.size), starts, axis=-2)
    return jax.vmap(of_bank, (None, None, 0, -2))(templates, template_sizes, jnp.take(table.scale, starts), new_sizes)


def _scaling_weights(old_count: int, new_count: int, old_size: Array, new_size: Array, scale: Array) -> Array:
    """Weights (new_count, old_count) of linear interpolation about the center, widened where the scale is below 1."""
    old_size = old_size.astype(scale.dtype)
    new_size = new_size.astype(scale.dtype)
    new_pixels = jnp.arange(new_count, dtype=scale.dtype)
    centers = (new_pixels - (new_size - 1) / 2) / scale + (old_size - 1) / 2
    pixels = jnp.arange(old_count, dtype=scale.dtype)
    distance = jnp.abs(centers[:, None] - pixels[None, :]) / jnp.maximum(1 / scale, 1)
    weights = jnp.where(pixels[None, :] < old_size, jnp.maximum(1 - distance, 0), 0)
    total = weights.sum(axis=1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)


class ScaledTemplates(NamedTuple):
    """Templates at every scale of a canvas; pixels that are masked out are 0."""

    templates: Shaped[Array, "S K h w *C"]
    coverage: Shaped[Array, "S K h w *C"] | None
    """How much of a pixel is not masked out; None without masks."""
    weights: Shaped[Array, "S K h w *C"] | None
    """The masks; None without masks, and for masks of bools."""


def scale_with_masks(
    templates: Shaped[Array, "K h w *C"],
    masks: Shaped[Array, "K h w *C"] | None,
    template_sizes: Int[Array, "K 2"],
    table: PoseTable,
    canvas: Canvas,
) -> ScaledTemplates:
    """Templates and masks at every scale of a canvas."""

    def scaled(images: Array) -> Array:
        return scale_templates(images, template_sizes, table, canvas) if canvas.is_scaled else images[None]

    if masks is None:
        return ScaledTemplates(scaled(templates), None, None)
    is_counted = masks.astype(bool)
    return ScaledTemplates(
        templates=scaled(jnp.where(is_counted, templates, 0)),
        coverage=scaled(is_counted.astype(templates.dtype)),
        weights=scaled(masks) if jnp.issubdtype(masks.dtype, jnp.floating) else None,
    )


def draw_templates(
    scaled: ScaledTemplates, table: PoseTable, canvas: Canvas, pose: Int[Array, ""]
) -> tuple[Shaped[Array, "K h w *C"], Shaped[Array, "K h w *C"] | Shaped[Array, "h w *C"] | None]:
    """Templates in one pose on a canvas, interpolated bilinearly, and their masks.

    The middle pixels of a template's box and of the canvas coincide. The mask is one for all templates (h, w, *C) if
    they have one size and no masks, and None if they also fill the canvas.
    """
    scale_index = jnp.searchsorted(jnp.array(canvas.scale_starts, pose.dtype), pose, side="right") - 1
    of_scale = jax.tree.map(lambda images: images[scale_index], scaled)
    size = jnp.take(table.size, pose, axis=-2)
    box = jnp.take(table.box, pose, axis=-2)
    cos = table.cos[pose]
    sin = table.sin[pose]

    def draw(scaled: ScaledTemplates, size: Array, box: Array) -> tuple[Array, Array | None]:
        rows, columns, inside = rotation_grid(cos, sin, size, box, canvas.size)
        inside = inside.reshape(*inside.shape, *[1] * (scaled.templates.ndim - 2))
        drawn = resample(scaled.templates, rows, columns)
        if scaled.coverage is None:
            return drawn, jnp.broadcast_to(inside, drawn.shape)
        coverage = resample(scaled.coverage, rows, columns)
        is_covered = (coverage >= 0.5) & inside
        drawn = drawn / jnp.maximum(coverage, 0.5)
        if scaled.weights is None:
            return drawn, is_covered
        return drawn, jnp.where(is_covered, resample(scaled.weights, rows, columns), 0)

    size_axis = 0 if size.ndim == 2 else None
    mask_axis = None if size.ndim == 1 and scaled.coverage is None else 0
    templates, masks = jax.vmap(draw, (0, size_axis, size_axis), (0, mask_axis))(of_scale, size, box)
    return templates, None if canvas.is_filled and scaled.coverage is None else masks


def rotation_grid(
    cos: Array, sin: Array, size: Int[Array, "2"], box: Int[Array, "2"], canvas_size: Pair
) -> tuple[Float[Array, "h w"], Float[Array, "h w"], Bool[Array, "h w"]]:
    """For every pixel of a canvas, its row and column in a scaled template, and whether it lies inside."""
    down, right = (
        jnp.arange(n, dtype=cos.dtype) - ((n - 1) // 2 + (side - 1) / 2 - jnp.floor((side - 1) / 2))
        for n, side in zip(canvas_size, box.astype(cos.dtype), strict=True)
    )
    height, width = size.astype(cos.dtype)
    rows = cos * down[:, None] + sin * right[None, :] + (height - 1) / 2
    columns = cos * right[None, :] - sin * down[:, None] + (width - 1) / 2
    inside_rows = (rows >= -0.5) & (rows <= height - 0.5)
    inside_columns = (columns >= -0.5) & (columns <= width - 0.5)
    return jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1), inside_rows & inside_columns
