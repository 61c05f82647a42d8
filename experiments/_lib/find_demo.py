"""The demonstration picture of `experiments.find`: hand-drawn shapes at known positions and poses, in noise."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .find_pictures import Templates
from .find_results import Record

SCALES = (0.75, 1.0, 1.25)
ANGLES = tuple(range(0, 360, 45))  # degrees
SIDE = 32  # pixels of a shape at scale 1
ROWS = 6  # of cells that hold a shape or nothing
COLUMNS = 8
SHAPES = 40
MARGIN = 4  # pixels between cells
JITTER = 2  # pixels that a shape is off its cell's center, at most
NOISE = 0.3  # standard deviation, where black is -1 and white 1
THICKNESS = 0.14  # of strokes, in units of the side
MAX_ERROR = 1.0  # pixels along each axis, of a correct match
# Strokes from (row, column) to (row, column), in units of the side.
STROKES = {
    "F": [((0.12, 0.25), (0.88, 0.25)), ((0.12, 0.25), (0.12, 0.8)), ((0.5, 0.25), (0.5, 0.65))],
    "arrow": [((0.88, 0.15), (0.12, 0.85)), ((0.12, 0.85), (0.15, 0.4)), ((0.12, 0.85), (0.55, 0.8))],
    "hook": [((0.12, 0.3), (0.88, 0.3)), ((0.88, 0.3), (0.85, 0.75)), ((0.85, 0.75), (0.55, 0.75))],
}


class PlacedShape(NamedTuple):
    """A shape in the picture."""

    y: float
    """Row of its center."""
    x: float
    name: str
    scale: float
    angle: float
    """Degrees counterclockwise."""


class Evaluation(NamedTuple):
    """How well a search found the placed shapes."""

    errors: list[float]
    """Distance in pixels of every correct match from its shape."""
    false: int
    """Matches that are not correct."""


def templates() -> Templates:
    """The shapes as templates, white on black."""
    rows, columns = (np.indices((SIDE, SIDE)) + 0.5) / SIDE
    features = [draw_shape(name, rows, columns, 1 / SIDE) for name in STROKES]
    return Templates(list(STROKES), features, [None] * len(features))


def picture(seed: int) -> tuple[np.ndarray, list[PlacedShape]]:
    """The picture, and the shapes in it. Shapes are drawn from their strokes, so nothing is resampled."""
    rng = np.random.default_rng(seed)
    cell = math.ceil(SIDE * max(SCALES) * math.sqrt(2)) + MARGIN
    rows, columns = np.indices((ROWS * cell, COLUMNS * cell))
    image = np.full(rows.shape, -1.0)
    placed = []
    for index in rng.permutation(ROWS * COLUMNS)[:SHAPES]:
        y, x = (np.array(divmod(index, COLUMNS)) + 0.5) * cell + rng.uniform(-JITTER, JITTER, 2)
        shape = PlacedShape(y, x, rng.choice(list(STROKES)), rng.choice(SCALES), rng.choice(ANGLES))
        image = np.maximum(image, draw_placed(shape, rows, columns))
        placed.append(shape)
    return (image + rng.normal(0, NOISE, image.shape)).astype(np.float32), placed


def draw_placed(shape: PlacedShape, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A placed shape's pixels at these rows and columns of the picture."""
    size = SIDE * shape.scale
    angle = math.radians(shape.angle)
    down = (rows - shape.y) / size
    right = (columns - shape.x) / size
    y = math.cos(angle) * down + math.sin(angle) * right
    x = math.cos(angle) * right - math.sin(angle) * down
    return draw_shape(shape.name, y + 0.5, x + 0.5, 1 / size)


def draw_shape(name: str, y: np.ndarray, x: np.ndarray, pixel: float) -> np.ndarray:
    """A shape's pixels at coordinates within its unit square; edges are one `pixel` wide."""
    distance = np.full(y.shape, np.inf)
    for (top, left), (bottom, right) in STROKES[name]:
        down = bottom - top
        across = right - left
        along = np.clip(((y - top) * down + (x - left) * across) / (down**2 + across**2), 0, 1)
        distance = np.minimum(distance, np.hypot(y - top - along * down, x - left - along * across))
    return np.clip(1 + (THICKNESS - 2 * distance) / pixel, -1, 1).astype(np.float32)


def evaluate(matches: Sequence[Record], placed: Sequence[PlacedShape]) -> Evaluation:
    """Assigns to every placed shape the first correct match that is left."""
    remaining = list(matches)
    errors = []
    for shape in placed:
        correct = next((match for match in remaining if is_correct(match, shape)), None)
        if correct is not None:
            remaining.remove(correct)
            errors.append(math.hypot(*offset(correct, shape)))
    return Evaluation(errors, len(remaining))


def is_correct(match: Record, placed: PlacedShape) -> bool:
    """Whether a match has the shape, scale and angle, and is less than MAX_ERROR off along each axis."""
    same_pose = (match["template"], match["scale"], match["angle"]) == (placed.name, placed.scale, placed.angle)
    return same_pose and max(map(abs, offset(match, placed))) < MAX_ERROR


def offset(match: Record, placed: PlacedShape) -> tuple[float, float]:
    """How many pixels a match is too low and too far to the right."""
    y, x = match["center"]
    return y - placed.y, x - placed.x
