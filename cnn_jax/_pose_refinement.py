"""Refinement of poses: Gauss-Newton steps towards the place, the angle and the scale at which a template fits best."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

# Largest step of the template's center, and of its rim, in pixels of the level.
MAX_STEP_PIXELS = 1.5
# Relative rounding of a rank.
ROUNDING = 1e-4
# Added to the diagonal of normalized normal equations, so that directions without any contrast stay as they are.
RIDGE = 1e-6


class Poses(NamedTuple):
    """Poses of a template in an image."""

    y: Float[Array, "..."]
    """Row of the template's center."""
    x: Float[Array, "..."]
    angle: Float[Array, "..."]
    """Radians, counterclockwise."""
    log_scale: Float[Array, "..."]


class Freedom(NamedTuple):
    """Which parts of a pose may change, besides the place. It is hashable, an argument of a compiled program."""

    angle: bool
    scale: bool


class Limits(NamedTuple):
    """The angles and the logarithms of scales that poses may have."""

    angle: tuple[float, float]
    log_scale: tuple[float, float]


class StepRules(NamedTuple):
    """How poses move. It is hashable, an argument of a compiled program."""

    freedom: Freedom
    """Which parts of a pose change."""
    limits: Limits
    """Where they stay."""
    is_partial: bool
    """Whether pixels outside of the image do not count, instead of repeating its border."""


class TemplateLevel(NamedTuple):
    """A template at one level of a pyramid: n of its pixels, their offsets from its center, and a linear model.

    A patch of the image is `columns` times coefficients: of the template's derivatives along y, x, the angle and the
    logarithm of the scale (those that are free), of the template, and of one constant for each channel.
    """

    values: Float[Array, "n C"]
    weights: Float[Array, "n C"]
    down: Float[Array, " n"]
    right: Float[Array, " n"]
    columns: Float[Array, "n C k"]
    norms: Float[Array, " k"]
    """What the columns were divided by."""
    reach: Float[Array, ""]
    """Pixels from the center to the rim."""

    def sample(self, image: Shaped[Array, "H W C"], pose: Poses) -> tuple[Float[Array, "n C"], Bool[Array, " n"]]:
        """The image under the pixels in a pose, and which of them lie inside of it."""
        return sample_patch(image, pose, self.down, self.right, self.values.dtype)


def make_template_level(
    template: Float[Array, "h w C"],
    weights: Float[Array, "h w C"],
    center: tuple[float, float],
    freedom: Freedom,
    step: int,
) -> TemplateLevel:
    """A level of every `step`-th row and column of a template, whose center is at this row and column."""
    slope_y, slope_x = (
        _slope(template, weights != 0, axis)[::step, ::step].reshape(-1, template.shape[2]) for axis in (0, 1)
    )
    values = template[::step, ::step].reshape(-1, template.shape[2])
    weights = weights[::step, ::step].reshape(-1, template.shape[2])
    rows, columns = (
        step * jnp.arange(math.ceil(size / step), dtype=values.dtype) - middle
        for size, middle in zip(template.shape[:2], center, strict=True)
    )
    down, right = (offsets.reshape(-1) for offsets in jnp.meshgrid(rows, columns, indexing="ij"))
    moves = [slope_y, slope_x]
    if freedom.angle:
        moves.append(slope_x * down[:, None] - slope_y * right[:, None])
    if freedom.scale:
        moves.append(slope_y * down[:, None] + slope_x * right[:, None])
    constants = jnp.broadcast_to(jnp.eye(values.shape[1], dtype=values.dtype), (len(values), *[values.shape[1]] * 2))
    centered = values - _weighted_mean(values, weights)
    linear = jnp.concatenate([jnp.stack([*moves, centered], axis=-1), constants], axis=-1)
    linear = jnp.where(weights[..., None] != 0, linear, 0)
    squares = (weights[..., None] ** 2 * linear**2).sum(axis=(0, 1))
    norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 1)
    reach = jnp.hypot(jnp.abs(rows).max(), jnp.abs(columns).max())
    return TemplateLevel(values, weights, down, right, linear / norms[None, None], norms, reach)


def _weighted_mean(values: Array, weights: Array) -> Array:
    total = weights.sum(axis=0, keepdims=True)
    return jnp.where(weights != 0, weights * values, 0).sum(axis=0, keepdims=True) / jnp.where(total != 0, total, 1)


def _slope(image: Array, counts: Array, axis: int) -> Array:
    """Derivative along an axis, of a pixel's two neighbors, or of itself and the one that counts."""
    margin = [(0, 0)] * image.ndim
    margin[axis] = (1, 1)
    padded = jnp.pad(image, margin)
    counts_around = jnp.pad(counts, margin)
    size = image.shape[axis]

    def neighbor(start: int) -> tuple[Array, Array]:
        is_there = jax.lax.slice_in_dim(counts_around, start, start + size, axis=axis)
        return jnp.where(is_there, jax.lax.slice_in_dim(padded, start, start + size, axis=axis), image), is_there

    before, has_before = neighbor(0)
    after, has_after = neighbor(2)
    distance = has_before.astype(image.dtype) + has_after.astype(image.dtype)
    return (after - before) / jnp.maximum(distance, 1)


def sample_patch(
    image: Shaped[Array, "H W C"],
    pose: Poses,
    down: Float[Array, " n"],
    right: Float[Array, " n"],
    dtype: jnp.dtype,
) -> tuple[Float[Array, "n C"], Bool[Array, " n"]]:
    """The image under a template's pixels in a pose, interpolated bilinearly, and which pixels lie inside of it.

    Args:
      image: the image.
      pose: a pose.
      down, right: rows and columns of the template's pixels from its center.
      dtype: of the patch.
    """
    height, width, channels = image.shape
    scale = jnp.exp(pose.log_scale)
    cos = scale * jnp.cos(pose.angle)
    sin = scale * jnp.sin(pose.angle)
    y = pose.y + cos * down - sin * right
    x = pose.x + sin * down + cos * right
    is_inside = (y >= -0.5) & (y <= height - 0.5) & (x >= -0.5) & (x <= width - 0.5)
    y = jnp.clip(jnp.where(jnp.isnan(y), 0, y), 0, height - 1)
    x = jnp.clip(jnp.where(jnp.isnan(x), 0, x), 0, width - 1)
    row = jnp.minimum(jnp.floor(y), max(height - 2, 0))
    column = jnp.minimum(jnp.floor(x), max(width - 2, 0))
    next_row = width if height > 1 else 0
    next_column = 1 if width > 1 else 0
    pixels = image.reshape(height * width, channels)
    first = row.astype(jnp.int32) * width + column.astype(jnp.int32)

    def pixel(index: Array) -> Array:
        return pixels.at[index].get(mode="promise_in_bounds").astype(dtype)

    along_row = (x - column)[:, None]
    along_column = (y - row)[:, None]
    upper = pixel(first) * (1 - along_row) + pixel(first + next_column) * along_row
    lower = pixel(first + next_row) * (1 - along_row) + pixel(first + next_row + next_column) * along_row
    return upper * (1 - along_column) + lower * along_column, is_inside


def refine_poses(
    image: Shaped[Array, "H W C"],
    poses: Poses,
    level: TemplateLevel,
    rank_patch: Callable[[Array, Array], Array],
    rules: StepRules,
    steps: int,
) -> tuple[Poses, Float[Array, " N"]]:
    """Gauss-Newton steps of poses, in pixels of the level: for every pose the best on its way, and its rank.

    Args:
      image: a level of the image.
      poses: N poses.
      level: the same level of the template.
      rank_patch: the rank of a patch (n, C), of which some pixels (n,) lie inside the image; the larger, the better.
      rules: how poses move.
      steps: the number of steps.
    """
    move = _make_move(level, rules)

    def step(pose: Poses, best: Poses, best_rank: Array) -> tuple[Poses, Poses, Array]:
        patch, is_inside = level.sample(image, pose)
        rank = rank_patch(patch, is_inside).astype(best_rank.dtype)
        # Of two ranks that differ by rounding only, that of the later step belongs to the more exact pose.
        is_better = (rank >= best_rank - ROUNDING * jnp.abs(best_rank)) | (best_rank == -jnp.inf)
        best = jax.tree.map(lambda new, old: jnp.where(is_better, new, old), pose, best)
        return move(pose, patch, is_inside), best, jnp.where(is_better, rank, best_rank)

    all_steps = jax.vmap(step)
    start = poses, poses, jnp.full_like(poses.y, -jnp.inf)
    (_, best, ranks), _ = jax.lax.scan(lambda state, _: (all_steps(*state), None), start, None, steps + 1)
    return best, ranks


def with_gradients(image: Shaped[Array, "H W C"], poses: Poses, level: TemplateLevel, rules: StepRules) -> Poses:
    """The same poses, with the derivatives of one more step: those of the pose that fits best."""
    move = _make_move(level, rules)
    moved = jax.vmap(lambda pose: move(pose, *level.sample(image, pose)))(poses)
    return jax.tree.map(lambda field, new: field + (new - jax.lax.stop_gradient(new)), poses, moved)


def _make_move(level: TemplateLevel, rules: StepRules) -> Callable[[Poses, Array, Array], Poses]:
    """A Gauss-Newton step of a pose, from the patch that is seen in it and from which of its pixels are inside.

    A step fits the linear model to the patch by least squares, and moves the pose so that the derivatives' coefficients
    vanish. Changes of brightness and contrast are coefficients too, so they do not matter.

    Source: Baker and Matthews, "Lucas-Kanade 20 Years On: A Unifying Framework" (2004),
    https://doi.org/10.1023/B:VISI.0000011205.11775.fd, the inverse compositional algorithm.
    """
    weighted = level.weights[..., None] ** 2 * level.columns
    normal = _normal_matrix(level.columns, weighted)

    def move(pose: Poses, patch: Array, is_inside: Array) -> Poses:
        visible = jnp.where(is_inside[:, None, None], weighted, 0) if rules.is_partial else weighted
        matrix = _normal_matrix(level.columns, visible) if rules.is_partial else normal
        projection = jnp.einsum("nck,nc->k", visible, patch, precision="highest")
        coefficients = jnp.linalg.solve(matrix, projection) / level.norms
        return _moved(pose, coefficients, level, rules)

    return move


def _normal_matrix(columns: Array, weighted: Array) -> Array:
    matrix = jnp.einsum("nci,ncj->ij", columns, weighted, precision="highest")
    return matrix + RIDGE * jnp.eye(len(matrix), dtype=matrix.dtype)


def _moved(pose: Poses, coefficients: Array, level: TemplateLevel, rules: StepRules) -> Poses:
    """The pose, undone by the template's move that the coefficients say."""
    move_count = 2 + rules.freedom.angle + rules.freedom.scale
    gain = coefficients[move_count]
    moves = jnp.where(gain != 0, coefficients[:move_count] / jnp.where(gain != 0, gain, 1), 0)
    moves = jnp.where(jnp.isfinite(moves), moves, 0)
    largest = jnp.full_like(moves, MAX_STEP_PIXELS).at[2:].set(MAX_STEP_PIXELS / jnp.maximum(level.reach, 1))
    moves = jnp.clip(moves, -largest, largest)
    scale = jnp.exp(pose.log_scale)
    cos = scale * jnp.cos(pose.angle)
    sin = scale * jnp.sin(pose.angle)
    angle = pose.angle
    log_scale = pose.log_scale
    if rules.freedom.angle:
        angle = jnp.clip(angle - moves[2], *rules.limits.angle)
    if rules.freedom.scale:
        log_scale = jnp.clip(log_scale - moves[-1], *rules.limits.log_scale)
    return Poses(
        y=pose.y - cos * moves[0] + sin * moves[1],
        x=pose.x - sin * moves[0] - cos * moves[1],
        angle=angle,
        log_scale=log_scale,
    )
