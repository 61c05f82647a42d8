"""Search of a template at all angles under one disk, so that the statistics of a patch do not depend on the angle."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from ._correlate import correlate_image
from ._padding import NO_PADDING
from ._peaks import top_local_maxima
from ._pose_refinement import Poses, sample_patch
from ._programs import map_steps

# Consecutive angles of which only the best is kept at a pixel.
ANGLES_PER_MAP = 16
# Scores that are computed at a time, unless one map has more.
CHUNK_ELEMENTS = 2**24
# Rounding of a side.
ROUNDING = 1e-6
# Rounding of an energy, in units of the last place of the sum of squares that it comes from.
ROUNDING_ULPS = 64


class DiskSearch(NamedTuple):
    """The static part of a search under disks. It is hashable, an argument of a compiled program."""

    center: tuple[float, float]
    """Row and column of the template's center, which are half of its size less one."""
    angles: tuple[float, ...]
    """Radians, counterclockwise."""
    log_scales: tuple[float, ...]
    """Logarithms of the template's scales."""
    candidates: int
    """Local maxima to keep of each map, the best of some consecutive angles at every pixel."""
    is_signed: bool
    """Whether the photographic negative does not match."""
    tolerance: float
    """Pixels that the template may reach over the border."""

    @property
    def radii(self) -> list[int]:
        """The radius of the largest disk of an odd diameter in the template at each scale."""
        side = 2 * min(self.center) + 1
        return [max(0, (int(side * math.exp(log_scale) + ROUNDING) - 1) // 2) for log_scale in self.log_scales]

    @property
    def border(self) -> int:
        """Pixels from the image's border to the nearest center of a disk."""
        return min(self.radii)


class _Disk(NamedTuple):
    """Disks of several scales have arrays of one size, so that they share a program."""

    weights: Array
    log_scale: Array
    down: Array
    right: Array


def disk_candidates(
    image: Float[Array, "H W C"],
    template: Float[Array, "h w C"],
    allowed: Bool[Array, "H W"] | None,
    search: DiskSearch,
) -> tuple[Poses, Float[Array, " n"]]:
    """The poses at which the zero-mean normalized cross-correlation under a disk is a high local maximum.

    The disk is the largest of an odd diameter inside of the scaled template.

    Args:
      image: a picture of finite pixels.
      template: a template.
      allowed: where its center may lie; None: everywhere.
      search: the poses to compare.

    Returns:
      Poses of whole pixels, and their scores, -inf after the last one.
    """
    largest = max(search.radii)
    border = search.border
    margin = largest - border
    image = image - image.mean(axis=(0, 1), keepdims=True)
    padded = jnp.pad(image, [(margin, margin), (margin, margin), (0, 0)], mode="edge")
    down, right = (offsets.astype(np.float32) for offsets in np.mgrid[-largest : largest + 1, -largest : largest + 1])
    disks = np.stack([down**2 + right**2 <= (radius + 0.5) ** 2 for radius in search.radii])
    angle_maps = _split_angles(search.angles, image.shape[0] * image.shape[1])
    if allowed is not None:
        allowed = allowed[border : image.shape[0] - border, border : image.shape[1] - border]

    def of_scale(step: tuple[Array, Array]) -> tuple[Poses, Array]:
        weights, log_scale = step
        disk = _Disk(weights, log_scale, jnp.asarray(down, template.dtype), jnp.asarray(right, template.dtype))
        return _scale_candidates(padded, template, allowed, disk, jnp.asarray(angle_maps, template.dtype), search)

    steps = jnp.asarray(disks, template.dtype), jnp.asarray(search.log_scales, template.dtype)
    poses, ranks = map_steps(of_scale, steps)
    poses = poses._replace(y=poses.y + border, x=poses.x + border)
    return jax.tree.map(jnp.ravel, (poses, ranks))


def _split_angles(angles: Sequence[float], pixels: int) -> np.ndarray:
    """Angles (chunks, maps, angles): maps of consecutive angles, those of a chunk at the same time."""
    maps = -(-len(angles) // ANGLES_PER_MAP)
    chunks = -(-maps // max(1, CHUNK_ELEMENTS // (ANGLES_PER_MAP * max(1, pixels))))
    maps = chunks * -(-maps // chunks)
    parts = np.array_split(np.arange(len(angles)), maps)
    longest = max(map(len, parts))
    index = np.array([np.pad(part, (0, longest - len(part)), mode="edge") for part in parts])
    return np.array(angles)[index].reshape(chunks, maps // chunks, longest)


def _scale_candidates(
    image: Array, template: Array, allowed: Array | None, disk: _Disk, angles: Array, search: DiskSearch
) -> tuple[Poses, Array]:
    """Candidates of one scale, with rows and columns of the map of scores."""
    inverse_norm = _inverse_norm(image, disk.weights)

    def of_chunk(angles: Array) -> tuple[Poses, Array]:
        bank = jax.vmap(lambda angle: _turned_kernel(template, angle, disk, search.center))(angles.ravel())
        dots = _correlate(image, jnp.moveaxis(bank, 0, -1))
        dots = dots if search.is_signed else jnp.abs(dots)
        best = dots.reshape(*inverse_norm.shape, *angles.shape).max(axis=-1) * inverse_norm[..., None]

        def of_map(best: Array, angles: Array) -> tuple[Array, Array]:
            is_inside = _lies_inside(best.shape, angles, disk.log_scale, search)
            is_allowed = is_inside if allowed is None else is_inside & allowed
            return top_local_maxima(best, (1, 1), search.candidates, is_allowed)

        index, rank = jax.vmap(of_map, in_axes=(-1, 0))(best, angles)
        row, column = jnp.divmod(index, inverse_norm.shape[1])
        scores = dots[row, column].reshape(*row.shape, *angles.shape)  # of the angles of all maps
        of_own_map = jax.vmap(lambda scores, number: scores[:, number])(scores, jnp.arange(len(angles)))
        angle = jnp.take_along_axis(angles, of_own_map.argmax(axis=-1), axis=1)
        y, x = (pixels.astype(angles.dtype) for pixels in (row, column))
        return Poses(y, x, angle, jnp.full_like(y, disk.log_scale)), rank

    return map_steps(of_chunk, angles)


def _turned_kernel(template: Array, angle: Array, disk: _Disk, center: tuple[float, float]) -> Array:
    """The template as it is seen at an angle, under the disk: with mean 0 and norm 1, or 0 if it is flat."""
    pose = Poses(jnp.asarray(center[0]), jnp.asarray(center[1]), -angle, -disk.log_scale)
    pixels, _ = sample_patch(template, pose, disk.down.ravel(), disk.right.ravel(), template.dtype)
    weights = disk.weights[..., None]
    kernel = pixels.reshape(*disk.weights.shape, -1) * weights
    squares = (kernel**2).sum()
    kernel = (kernel - kernel.sum(axis=(0, 1), keepdims=True) / weights.sum()) * weights
    energy = (kernel**2).sum()
    is_flat = energy <= ROUNDING_ULPS * jnp.finfo(energy.dtype).eps * squares
    return jnp.where(is_flat, 0, kernel / jnp.sqrt(jnp.where(is_flat, 1, energy)))


def _lies_inside(size: tuple[int, ...], angles: Array, log_scale: Array, search: DiskSearch) -> Array:
    """Whether the template lies inside of the image at some of the angles, of the pixels around which the disk does."""
    cos = jnp.abs(jnp.cos(angles))
    sin = jnp.abs(jnp.sin(angles))
    down, right = search.center
    halves = (cos * down + sin * right).min(), (sin * down + cos * right).min()

    def lies_along(side: int, half: Array) -> Array:
        before = jnp.arange(side, dtype=angles.dtype) + search.border
        after = before[::-1]
        return jnp.minimum(before, after) >= half * jnp.exp(log_scale) - search.tolerance

    rows, columns = (lies_along(side, half) for side, half in zip(size, halves, strict=True))
    return rows[:, None] & columns[None, :]


def _correlate(image: Array, kernels: Array) -> Array:
    return correlate_image(
        image, kernels, stride=(1, 1), padding=NO_PADDING, method="conv", precision=lax.Precision.HIGHEST
    )


def _inverse_norm(image: Array, weights: Array) -> Array:
    """1 / sqrt(Σ (p - p̄)²) of every patch under the disk, with a mean for each channel; 0 for flat patches."""
    disk = weights[..., None, None]

    def moments(channel: Array) -> tuple[Array, Array]:
        sums = _correlate(channel[..., None], disk)[..., 0]
        squares = _correlate((channel**2)[..., None], disk)[..., 0]
        return squares - sums**2 / weights.sum(), squares

    energies, squares = jax.vmap(moments, in_axes=-1)(image)
    energy = energies.sum(axis=0)
    is_flat = energy <= ROUNDING_ULPS * jnp.finfo(energy.dtype).eps * squares.sum(axis=0)
    return jnp.where(is_flat, 0, 1 / jnp.sqrt(jnp.where(is_flat, 1, energy)))
