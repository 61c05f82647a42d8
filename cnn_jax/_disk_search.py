"""Search of a template at all angles under one disk, so that the statistics of a patch do not depend on the angle."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ._correlate import correlate_image
from ._padding import NO_PADDING
from ._peaks import top_local_maxima
from ._pose_refinement import Poses, TemplateLevel, sample_patch

# Consecutive angles of which only the best is kept at a pixel.
ANGLES_PER_MAP = 16
# Rounding of a patch's variance, in units of the last place of its mean square.
ROUNDING_ULPS = 64


def disk_candidates(
    image: Float[Array, "H W C"],
    template: Float[Array, "h w C"],
    center: tuple[float, float],
    angles: Sequence[float],
    log_scale: float,
    count: int,
    *,
    is_signed: bool,
) -> tuple[Poses, Float[Array, " n"]]:
    """The poses at which the zero-mean normalized cross-correlation under a disk is a high local maximum.

    The disk is the largest of an odd diameter inside of the scaled template.

    Args:
      image: a picture of finite pixels.
      template: a template.
      center: row and column of its center.
      angles: radians counterclockwise.
      log_scale: logarithm of the template's scale.
      count: local maxima to keep of each map, the best of `ANGLES_PER_MAP` angles at every pixel.
      is_signed: whether the photographic negative does not match.

    Returns:
      Poses of whole pixels, and their scores, -inf after the last one.
    """
    disk, down, right = _disk(min(template.shape[:2]) * np.exp(log_scale))
    weight = float(disk.sum())
    level = TemplateLevel(
        values=jnp.zeros((disk.size, template.shape[2]), template.dtype),
        weights=jnp.zeros(()),
        down=jnp.asarray(down),
        right=jnp.asarray(right),
        columns=jnp.zeros(()),
        norms=jnp.zeros(()),
        reach=jnp.zeros(()),
    )
    maps = -(-len(angles) // ANGLES_PER_MAP)
    split = np.array_split(np.arange(len(angles)), maps)
    padded = np.array([np.pad(part, (0, len(split[0]) - len(part)), mode="edge") for part in split])
    all_angles = jnp.asarray(np.array(angles)[padded.ravel()], template.dtype)

    def turned(angle: Array) -> Array:
        """The template as it is seen at an angle: sampled at the opposite one."""
        pose = Poses(jnp.asarray(center[0]), jnp.asarray(center[1]), -angle, jnp.asarray(-log_scale))
        patch, _ = sample_patch(template, pose, level)
        kernel = patch.reshape(*disk.shape, -1) * disk[..., None]
        kernel = (kernel - kernel.sum(axis=(0, 1), keepdims=True) / weight) * disk[..., None]
        energy = (kernel**2).sum()
        return jnp.where(energy > 0, kernel / jnp.sqrt(jnp.where(energy > 0, energy, 1)), 0)

    bank = jnp.moveaxis(jax.vmap(turned)(all_angles), 0, -1)
    image = image - image.mean(axis=(0, 1), keepdims=True)
    dots = _correlate(image, bank)
    inverse_norm = _inverse_norm(image, jnp.asarray(disk[..., None, None], image.dtype), weight)
    scores = jnp.moveaxis(dots, -1, 0).reshape(maps, -1, *inverse_norm.shape)
    ranks = scores if is_signed else jnp.abs(scores)

    def of_map(ranks: Array) -> tuple[Array, Array, Array]:
        index, rank = top_local_maxima(ranks.max(axis=0) * inverse_norm, (1, 1), count)
        row, column = jnp.divmod(index, inverse_norm.shape[1])
        return jnp.stack([row, column]), ranks[:, row, column].argmax(axis=0), rank

    pixels, number, rank = jax.vmap(of_map)(ranks)
    radius = disk.shape[0] // 2
    angle = jnp.take_along_axis(all_angles.reshape(maps, -1), number, axis=1).ravel()
    y, x = (pixels[:, axis].ravel().astype(template.dtype) + radius for axis in (0, 1))
    return Poses(y, x, angle, jnp.full_like(y, log_scale)), rank.ravel()


def _disk(diameter: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The largest disk of an odd diameter, and the rows and columns of its pixels from its center."""
    radius = max(0, (int(diameter + 1e-6) - 1) // 2)
    down, right = (offsets.astype(np.float32) for offsets in np.mgrid[-radius : radius + 1, -radius : radius + 1])
    disk = (down**2 + right**2 <= (radius + 0.5) ** 2).astype(np.float32)
    return disk, down.ravel(), right.ravel()


def _correlate(image: Array, kernels: Array) -> Array:
    return correlate_image(
        image, kernels, stride=(1, 1), padding=NO_PADDING, method="conv", precision=lax.Precision.HIGHEST
    )


def _inverse_norm(image: Array, disk: Array, weight: float) -> Array:
    """1 / sqrt(Σ (p - p̄)²) of every patch under the disk, with a mean for each channel; 0 for flat patches."""

    def moments(channel: Array) -> tuple[Array, Array]:
        sums = _correlate(channel[..., None], disk)[..., 0]
        squares = _correlate((channel**2)[..., None], disk)[..., 0]
        return squares - sums**2 / weight, squares

    energies, squares = jax.vmap(moments, in_axes=-1)(image)
    energy = energies.sum(axis=0)
    is_flat = energy <= ROUNDING_ULPS * jnp.finfo(energy.dtype).eps * squares.sum(axis=0)
    return jnp.where(is_flat, 0, 1 / jnp.sqrt(jnp.where(is_flat, 1, energy)))
