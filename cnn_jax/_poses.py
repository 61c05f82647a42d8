"""Features scaled and turned: the poses in which `search` looks for them."""

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


class Pose(NamedTuple):
    """A scale and an angle, the size of the feature at that scale, and its upright box at that angle."""

    scale: float
    angle: float
    size: Pair
    box: Pair


def pose(size: Sequence[int], scale: float, angle: float) -> Pose:
    """The pose of a feature of this size; a scale too large for any image gives a box too large for any."""
    height, width = (max(1, round(min(n * scale, 2**31))) for n in size)
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    box = max(1, round(height * cos + width * sin)), max(1, round(height * sin + width * cos))
    return Pose(scale, angle, (height, width), box)


def turned(bank: Array, weights: Array | None, poses: Sequence[Pose], canvas: Pair) -> tuple[Array, Array | None]:
    """Features (P, K, *canvas, *C) at the angles of one scale, and which pixels count: (P, *canvas, *C) if for all
    features alike, (P, K, *canvas, *C) if they have masks, None if all pixels count."""
    *places, inside = (np.stack(each) for each in zip(*(_places(pose, canvas) for pose in poses), strict=True))
    inside = inside.reshape(*inside.shape, *[1] * (bank.ndim - 3))

    def warp(bank: Array) -> Array:
        scaled = jax.vmap(lambda feature: _scaled(feature, poses[0]))(bank)
        return jax.vmap(lambda r, c: jax.vmap(lambda feature: resample(feature, r, c))(scaled))(*places)

    if weights is None:
        mask = jnp.broadcast_to(inside, (*inside.shape[:3], *bank.shape[3:]))
        return warp(bank), None if inside.all() else mask
    counts = weights.astype(bool)
    share = warp(counts.astype(bank.dtype))
    features = warp(jnp.where(counts, bank, 0)) / jnp.maximum(share, 0.5)
    counts = (share >= 0.5) & inside[:, None]
    floats = jnp.issubdtype(weights.dtype, jnp.floating)
    return features, jnp.where(counts, warp(weights), 0) if floats else counts


def _scaled(feature: Array, posed: Pose) -> Array:
    """A feature scaled exactly, about its centre, onto its size at that scale."""
    if posed.scale == 1:
        return feature
    scale = jnp.full(2, posed.scale, jnp.float32)
    shift = jnp.array([(new - posed.scale * old) / 2 for new, old in zip(posed.size, feature.shape, strict=False)])
    shape = (*posed.size, *feature.shape[2:])
    return scale_and_translate(feature, shape, (0, 1), scale, shift, "linear", antialias=True)


def _places(posed: Pose, canvas: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each pixel of the canvas lies in the scaled feature, (row, column), and whether inside it.

    The box stands in the canvas so that the middle pixels of both are the same.
    """
    centre = [(n - 1) // 2 - (side - 1) // 2 + (side - 1) / 2 for n, side in zip(canvas, posed.box, strict=True)]
    down, right = np.indices(canvas) - np.reshape(centre, (2, 1, 1))
    cos, sin = math.cos(posed.angle), math.sin(posed.angle)
    back = cos * down + sin * right, cos * right - sin * down
    places = [np.round(place + (n - 1) / 2, 6) for place, n in zip(back, posed.size, strict=True)]
    inside = [(place >= -0.5) & (place <= n - 0.5) for place, n in zip(places, posed.size, strict=True)]
    rows, columns = (np.clip(place, 0, n - 1) for place, n in zip(places, posed.size, strict=True))
    return rows.astype(np.float32), columns.astype(np.float32), inside[0] & inside[1]
