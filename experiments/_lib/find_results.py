"""Results of `experiments.find`: matches as records, as tables, and as outlines on a copy of their picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import cnn_jax
from cnn_jax.data.pixels import to_uint8
from cnn_jax.figures import COLORS
from cnn_jax.files import atomic_write

from . import report
from .find_pictures import Templates

Record = dict[str, Any]
"""A match: template, y, x, height, width, scale, angle in degrees, score."""

FORMATS = {"y": ".3f", "x": ".3f", "scale": "g", "angle": "g", "score": ".4f"}
LINE_WIDTH = 2  # pixels
LABEL_HEIGHT = 11  # pixels


def match_records(matches: cnn_jax.Matches, names: Sequence[str]) -> list[Record]:
    """The valid matches, with the templates' names and angles in degrees."""
    return [
        {
            "template": names[int(matches.feature[i])],
            "y": round(float(matches.y[i]), 3),
            "x": round(float(matches.x[i]), 3),
            "height": int(matches.height[i]),
            "width": int(matches.width[i]),
            "scale": round(float(matches.scale[i]), 6),
            "angle": round(math.degrees(matches.angle[i]), 3),
            "score": round(float(matches.score[i]), 4),
        }
        for i in np.flatnonzero(matches.valid)
    ]


def center(match: Record) -> tuple[float, float]:
    """The row and the column of a match's center."""
    return match["y"] + (match["height"] - 1) / 2, match["x"] + (match["width"] - 1) / 2


def match_tables(records_by_picture: Mapping[str, Sequence[Record]]) -> list[str | report.Table]:
    """For every picture the number of its matches, and a table of them."""
    blocks: list[str | report.Table] = []
    for picture, matches in records_by_picture.items():
        blocks.append(f"{picture}: {len(matches)} found")
        if matches:
            rows = [[format(value, FORMATS.get(name, "")) for name, value in match.items()] for match in matches]
            blocks.append([list(matches[0]), *rows])
    return blocks


def draw_matches(picture: np.ndarray, matches: Sequence[Record], templates: Templates) -> np.ndarray:
    """A copy of a picture in [-1, 1], as bytes, with every match's outline and score in the template's color."""
    copy = Image.fromarray(to_uint8(picture)).convert("RGB")
    pen = ImageDraw.Draw(copy)
    for match in matches:
        template = templates.names.index(match["template"])
        color = COLORS[template % len(COLORS)]
        pen.polygon(outline(match, templates.features[template].shape), outline=color, width=LINE_WIDTH)
        pen.text((match["x"], match["y"] - LABEL_HEIGHT), f"{match['score']:.2f}", fill=color)
    return np.asarray(copy)


def outline(match: Record, shape: Sequence[int]) -> list[tuple[float, float]]:
    """The corners (x, y) of the turned and scaled template of this shape (h, w, ...)."""
    y, x = center(match)
    half_height = shape[0] * match["scale"] / 2
    half_width = shape[1] * match["scale"] / 2
    angle = math.radians(match["angle"])
    cos = math.cos(angle)
    sin = math.sin(angle)
    corners = [(-half_height, -half_width), (-half_height, half_width)]
    corners += [(half_height, half_width), (half_height, -half_width)]
    return [(x + sin * down + cos * right, y + cos * down - sin * right) for down, right in corners]


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Writes a picture of bytes, or of floats in [-1, 1]."""
    pixels = picture if picture.dtype == np.uint8 else to_uint8(picture)
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary)
