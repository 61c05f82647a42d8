"""Where templates have texture: on which levels of a pyramid, and in which of their pixels.

Only values that are known are looked at: under `jax.jit` templates count as having texture everywhere.
"""

from typing import NamedTuple

import numpy as np

from ._pyramid import plan_pyramid
from ._range_plan import TOP_SIDE
from ._search_inputs import Stack
from ._validation import has_values

# The contrast of a template on the top level of its pyramid, as a fraction of its contrast: where texture vanishes,
# there is nothing to compare.
MIN_CONTRAST_FRACTION = 1 / 64
# The sum of squared contrasts in the inscribed disk, as a fraction of that in the whole template.
MIN_DISK_FRACTION = 0.1


class Texture(NamedTuple):
    """Where all templates of a stack show enough of themselves."""

    omitted_levels: int
    """Levels to leave out at the top of the pyramid, because the texture of some template vanishes there."""
    is_in_disk: bool
    """Whether the inscribed disk, on the top level that is left, shows enough of each template."""


def measure_texture(stack: Stack) -> Texture:
    """Where the templates have texture: everywhere if their values are not known."""
    if not has_values(stack.templates):
        return Texture(omitted_levels=0, is_in_disk=True)
    levels = [_without_masked_pixels(stack)]
    for _ in range(plan_pyramid(min(stack.shape[:2]), TOP_SIDE).halvings):
        levels.append(_halve(levels[-1]))
    contrasts = np.array([level.std(axis=(1, 2)).max(axis=1) for level in levels])
    is_enough = (contrasts >= MIN_CONTRAST_FRACTION * contrasts[0]).all(axis=1)
    top = int(np.flatnonzero(is_enough).max(initial=0))
    return Texture(omitted_levels=len(levels) - 1 - top, is_in_disk=_is_in_disk(levels[top]))


def _halve(templates: np.ndarray) -> np.ndarray:
    """The means of squares of 2 x 2 pixels."""
    rows, columns = (side // 2 * 2 for side in templates.shape[1:3])
    pairs = templates[:, 0:rows:2] + templates[:, 1:rows:2]
    return (pairs[:, :, 0:columns:2] + pairs[:, :, 1:columns:2]) / 4


def _is_in_disk(templates: np.ndarray) -> bool:
    down, right = (np.arange(side) - (side - 1) / 2 for side in templates.shape[1:3])
    disk = down[:, None] ** 2 + right**2 <= (min(templates.shape[1:3]) / 2) ** 2
    pixels = templates.reshape(len(templates), -1, templates.shape[3])
    inner = pixels[:, disk.ravel()]
    energy, inner_energy = (values.var(axis=1).sum(axis=-1) * values.shape[1] for values in (pixels, inner))
    return bool((inner_energy >= MIN_DISK_FRACTION * energy).all())


def _without_masked_pixels(stack: Stack) -> np.ndarray:
    """Templates (K, h, w, C) with the mean of the pixels that count in place of the others."""
    templates = np.asarray(stack.templates, np.float32).reshape(len(stack.indices), *stack.shape[:2], -1)
    largest = float(np.abs(templates).max())
    templates = templates / largest if 0 < largest < np.inf else templates  # so that squares stay in range
    if stack.masks is None or not has_values(stack.masks):
        return templates
    counts = np.asarray(stack.masks).reshape(len(stack.indices), *stack.shape[:2], -1) != 0
    counts = np.broadcast_to(counts, templates.shape)
    total = np.maximum(counts.sum(axis=(1, 2, 3), keepdims=True), 1)
    mean = np.where(counts, templates, 0).sum(axis=(1, 2, 3), keepdims=True) / total
    return np.where(counts, templates, mean)
