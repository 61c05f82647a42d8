"""Conversion between the bytes of image files (0 to 255) and pixels in [-1, 1] (black = -1, white = 1)."""

from typing import TypeVar

import jax
import numpy as np
from jaxtyping import ArrayLike, Float32, Shaped, UInt8

__all__ = ["from_uint8", "rgba_from_uint8", "to_uint8"]

HALF_RANGE = 127.5  # bytes from black to middle gray, and from middle gray to white
# Red, green and blue go to [-1, 1], opacity goes to [0, 1].
RGBA_ZERO = np.array([HALF_RANGE, HALF_RANGE, HALF_RANGE, 0], np.float32)
RGBA_UNIT = np.array([HALF_RANGE, HALF_RANGE, HALF_RANGE, 255], np.float32)

Bytes = TypeVar("Bytes", np.ndarray, jax.Array)


def from_uint8(levels: Bytes) -> Bytes:
    """Pixels in [-1, 1] from bytes: `levels / 127.5 - 1` in float32, for NumPy and for JAX arrays.

    >>> from_uint8(np.array([0, 51, 255], np.uint8))
    array([-1. , -0.6,  1. ], dtype=float32)
    """
    return levels.astype(np.float32) / HALF_RANGE - 1


def rgba_from_uint8(levels: UInt8[np.ndarray, "*N 4"]) -> Float32[np.ndarray, "*N 4"]:
    """Red, green and blue in [-1, 1] and opacity in [0, 1] from bytes.

    Colors may differ from those of `from_uint8` by 6e-8, since they are rounded once instead of twice.

    >>> rgba_from_uint8(np.array([[[0, 51, 255, 51]]], np.uint8))
    array([[[-1. , -0.6,  1. ,  0.2]]], dtype=float32)
    """
    return (levels.astype(np.float32) - RGBA_ZERO) / RGBA_UNIT


def to_uint8(pixels: Shaped[ArrayLike, "..."]) -> UInt8[np.ndarray, "..."]:
    """Bytes from pixels in [-1, 1], rounded to the nearest; larger and smaller pixels are clipped, NaN becomes gray.

    >>> to_uint8(np.array([-1, -0.6, 1, 3, np.nan]))
    array([  0,  51, 255, 255, 128], dtype=uint8)
    """
    finite = np.nan_to_num(np.asarray(pixels), nan=0, posinf=1, neginf=-1)
    return np.round(np.clip(finite * HALF_RANGE + HALF_RANGE, 0, 255)).astype(np.uint8)
