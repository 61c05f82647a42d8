"""Poses of a template: the scales and angles at which `search` compares it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.image import scale_and_translate
from jaxtyping import Array

from ._typing import Pair
from .warping import resample

# Upper limit of a scaled side before rounding to an int: larger than any image.
LARGEST_SIDE_PIXELS = 2**31
# Decimals that grid coordinates are rounded to, so that multiples of 90 degrees hit pixels exactly.
GRID_DECIMALS = 6


class Pose(NamedTuple):
    """A scale and an angle of a template."""

    scale: float
    angle: float
    """Radians, counterclockwise."""
    size: Pair
    """Rows and columns of the scaled template."""
    box: Pair
    """Rows and columns of the upright box around the template, scaled and rotated."""


class RotationGrid(NamedTuple):
    """For every pixel of a canvas, its coordinates in a scaled template, and whether it lies inside."""

    rows: np.ndarray
    columns: np.ndarray
    inside: np.ndarray


def make_pose(template_size: Sequence[int], scale: float, angle: float) -> Pose:
    """The pose of a template of these rows and columns."""
    height, width = (max(1, round(min(side * scale, LARGEST_SIDE_PIXELS))) for side in template_size)
    cos = abs(math.cos(angle))
    sin = abs(math.sin(angle))
    box = max(1, round(height * cos + width * sin)), max(1, round(height * sin + width * cos))
    return Pose(scale, angle, (height, width), box)


def rotate_templates(
    templates: Array, masks: Array | None, poses: Sequence[Pose], canvas_size: Pair
) -> tuple[Array, Array | None]:
    """Rotates templates by the angles of P poses of one scale, bilinearly.

    Args:
      templates: (K, h, w, *C).
      masks: weights of their pixels, of the same shape, or None.
      poses: all of one scale.
      canvas_size: rows and columns of the results; no pose's box may be larger.

    Returns:
      Rotated templates (P, K, *canvas_size, *C), and their masks: (P, K, *canvas_size, *C) if `masks` are given, else
      (P, *canvas_size, *C) for all templates alike, or None if the templates fill the canvas at all angles.
    """
    grids = [rotation_grid(pose, canvas_size) for pose in poses]
    rows, columns, inside = (np.stack(arrays) for arrays in zip(*grids, strict=True))
    inside = inside.reshape(*inside.shape, *[1] * (templates.ndim - 3))

    def rotate(images: Array) -> Array:
        scaled = jax.vmap(lambda image: _scale_template(image, poses[0]))(images)
        return jax.vmap(lambda r, c: jax.vmap(lambda image: resample(image, r, c))(scaled))(rows, columns)

    if masks is None:
        shared_mask = jnp.broadcast_to(inside, (*inside.shape[:3], *templates.shape[3:]))
        return rotate(templates), None if inside.all() else shared_mask
    is_counted = masks.astype(bool)
    coverage = rotate(is_counted.astype(templates.dtype))
    rotated = rotate(jnp.where(is_counted, templates, 0)) / jnp.maximum(coverage, 0.5)
    is_covered = (coverage >= 0.5) & inside[:, None]
    if not jnp.issubdtype(masks.dtype, jnp.floating):
        return rotated, is_covered
    return rotated, jnp.where(is_covered, rotate(masks), 0)


def rotation_grid(pose: Pose, canvas_size: Pair) -> RotationGrid:
    """The coordinates to sample a scaled template at, so that the middle pixels of its box and the canvas coincide."""
    center = [(n - 1) // 2 - (side - 1) // 2 + (side - 1) / 2 for n, side in zip(canvas_size, pose.box, strict=True)]
    down, right = np.indices(canvas_size) - np.reshape(center, (2, 1, 1))
    cos = math.cos(pose.angle)
    sin = math.sin(pose.angle)
    height, width = pose.size
    rows = np.round(cos * down + sin * right + (height - 1) / 2, GRID_DECIMALS)
    columns = np.round(cos * right - sin * down + (width - 1) / 2, GRID_DECIMALS)
    inside_rows = (rows >= -0.5) & (rows <= height - 0.5)
    inside_columns = (columns >= -0.5) & (columns <= width - 0.5)
    return RotationGrid(
        np.clip(rows, 0, height - 1).astype(np.float32),
        np.clip(columns, 0, width - 1).astype(np.float32),
        inside_rows & inside_columns,
    )


def _scale_template(template: Array, pose: Pose) -> Array:
    """The template scaled about its center onto the pose's size, smoothed before it shrinks."""
    if pose.scale == 1:
        return template
    scale = jnp.full(2, pose.scale, jnp.float32)
    shift = [(new - pose.scale * old) / 2 for new, old in zip(pose.size, template.shape[:2], strict=True)]
    shape = (*pose.size, *template.shape[2:])
    return scale_and_translate(template, shape, (0, 1), scale, jnp.array(shift), "linear", antialias=True)
