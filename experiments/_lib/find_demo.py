"""A picture to search: three hand-drawn shapes at known places, scales and angles, in noise."""

import math
from typing import NamedTuple

import numpy as np

SCALES = (0.75, 1.0, 1.25)
ANGLES = tuple(range(0, 360, 45))  # degrees
SIDE, ROWS, COLUMNS, PLACED = 32, 6, 8, 40
NOISE = 0.3  # standard deviation, where black is -1 and white 1
# Strokes from (row, column) to (row, column), in units of the side.
SHAPES = {
    "F": [((0.12, 0.25), (0.88, 0.25)), ((0.12, 0.25), (0.12, 0.8)), ((0.5, 0.25), (0.5, 0.65))],
    "arrow": [((0.88, 0.15), (0.12, 0.85)), ((0.12, 0.85), (0.15, 0.4)), ((0.12, 0.85), (0.55, 0.8))],
    "hook": [((0.12, 0.3), (0.88, 0.3)), ((0.88, 0.3), (0.85, 0.75)), ((0.85, 0.75), (0.55, 0.75))],
}
THICKNESS = 0.14


class Placed(NamedTuple):
    """Where the centre of a shape was put, which shape, how large, and at what angle in degrees."""

    y: float
    x: float
    shape: str
    scale: float
    angle: float


def templates() -> dict[str, np.ndarray]:
    """The shapes as features, white on black."""
    rows, columns = (np.indices((SIDE, SIDE)) + 0.5) / SIDE
    return {name: _draw(name, rows, columns, 1 / SIDE) for name in SHAPES}


def picture(seed: int) -> tuple[np.ndarray, list[Placed]]:
    """The picture, and what was put into it; shapes are drawn from their strokes, so that nothing is resampled."""
    rng = np.random.default_rng(seed)
    cell = math.ceil(SIDE * max(SCALES) * math.sqrt(2)) + 4
    rows, columns = np.indices((ROWS * cell, COLUMNS * cell))
    image = np.full(rows.shape, -1.0)
    placed = []
    for place in rng.permutation(ROWS * COLUMNS)[:PLACED]:
        y, x = (np.array(divmod(place, COLUMNS)) + 0.5) * cell + rng.uniform(-2, 2, 2)
        one = Placed(y, x, rng.choice(list(SHAPES)), rng.choice(SCALES), rng.choice(ANGLES))
        size, angle = SIDE * one.scale, math.radians(one.angle)
        down, right = (rows - y) / size, (columns - x) / size
        turned = math.cos(angle) * down + math.sin(angle) * right, math.cos(angle) * right - math.sin(angle) * down
        image = np.maximum(image, _draw(one.shape, turned[0] + 0.5, turned[1] + 0.5, 1 / size))
        placed.append(one)
    return (image + rng.normal(0, NOISE, image.shape)).astype(np.float32), placed


def _draw(name: str, y: np.ndarray, x: np.ndarray, pixel: float) -> np.ndarray:
    """A shape at places within its unit square, its edges as soft as a pixel is wide."""
    distance = np.full(y.shape, np.inf)
    for (top, left), (bottom, right) in SHAPES[name]:
        down, across = bottom - top, right - left
        along = np.clip(((y - top) * down + (x - left) * across) / (down**2 + across**2), 0, 1)
        distance = np.minimum(distance, np.hypot(y - top - along * down, x - left - along * across))
    return np.clip(1 + (THICKNESS - 2 * distance) / pixel, -1, 1).astype(np.float32)
