"""Results of `experiments.find`: matches as records, as tables, and as outlines on a copy of their picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array
from PIL import Image, ImageDraw

import cnn_jax
from cnn_jax.data.pixels import to_uint8
from cnn_jax.files import atomic_write

from . import report

Record = dict[str, Any]
"""A match: template, page, y, x, height, width, scale, angle in degrees, score, center and corners (both y, x)."""


class Outlined(NamedTuple):
    """Matches in a picture, with their centers and corners, which are computed on the device."""

    matches: cnn_jax.Matches
    center: Array
    corners: Array


class PageMatches(NamedTuple):
    """The best matches in a page."""

    records: list[Record]
    found: int
    """How many there were before --top-k cut them."""


# The columns of tables.
FORMATS = {
    "template": "",
    "center y": ".3f",
    "center x": ".3f",
    "y": ".3f",
    "x": ".3f",
    "height": "",
    "width": "",
    "scale": "g",
    "angle": "g",
    "score": ".4f",
}
# Okabe and Ito's colors without black. `cnn_jax.figures` has them too, but importing matplotlib takes 0.2 seconds.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINE_WIDTH = 2  # pixels
LABEL_HEIGHT = 11  # pixels
MAX_COPY_SIDE = 2000  # pixels of a copy with matches outlined
COMPRESSION = 1  # of copies; higher levels take several times as long


def outline(matches: cnn_jax.Matches) -> Outlined:
    """Matches with their centers and corners."""
    return Outlined(matches, matches.center, matches.corners)


def match_records(outlined: Outlined, names: Sequence[str], page: int = 1) -> PageMatches:
    """The valid matches in a page, with the templates' names and angles in degrees."""
    matches = outlined.matches
    records = [
        {
            "template": names[int(matches.feature[i])],
            "page": page,
            "y": round(float(matches.y[i]), 3),
            "x": round(float(matches.x[i]), 3),
            "height": round(float(matches.height[i])),
            "width": round(float(matches.width[i])),
            "scale": round(float(matches.scale[i]), 6),
            "angle": round(math.degrees(matches.angle[i]), 3) + 0.0,  # no -0
            "score": round(float(matches.score[i]), 4),
            "center": np.asarray(outlined.center[i], float).round(3).tolist(),
            "corners": np.asarray(outlined.corners[i], float).round(3).tolist(),
        }
        for i in np.flatnonzero(matches.valid)
    ]
    return PageMatches(records, int(matches.found))


def headline(label: str, matches: PageMatches) -> str:
    """How many matches a page has, and how many are shown."""
    shown_count = len(matches.records)
    cut = f", the best {shown_count} shown" if shown_count < matches.found else ""
    return f"{label}: {matches.found} found{cut}"


def match_tables(matches_by_label: Mapping[str, PageMatches]) -> list[str | report.Table]:
    """For every page the number of its matches, and a table of them."""
    blocks: list[str | report.Table] = []
    for label, matches in matches_by_label.items():
        blocks.append(headline(label, matches))
        if matches.records:
            blocks.append([list(FORMATS), *map(table_row, matches.records)])
    return blocks


def table_row(record: Record) -> list[str]:
    """The cells of a match."""
    center_y, center_x = record["center"]
    cells = record | {"center y": center_y, "center x": center_x}
    return [format(cells[name], FORMATS[name]) for name in FORMATS]


def draw_matches(picture: np.ndarray, records: Sequence[Record], names: Sequence[str]) -> np.ndarray:
    """A copy of a picture as bytes, with every match's outline and score in the template's color.

    Args:
      picture: bytes, or floats in [-1, 1]. The copy of a large one is reduced.
      records: the matches.
      names: the templates' names, which determine the colors.
    """
    image = Image.fromarray(as_bytes(picture))
    divisor = -(-max(image.size) // MAX_COPY_SIDE)
    copy = (image if divisor == 1 else image.reduce(divisor)).convert("RGB")
    pen = ImageDraw.Draw(copy)
    for record in records:
        color = COLORS[names.index(record["template"]) % len(COLORS)]
        outline = [((x + 0.5) / divisor - 0.5, (y + 0.5) / divisor - 0.5) for y, x in record["corners"]]
        pen.polygon(outline, outline=color, width=LINE_WIDTH)
        left = record["x"] / divisor
        top = record["y"] / divisor
        pen.text((left, top - LABEL_HEIGHT), f"{record['score']:.2f}", fill=color)
    return np.asarray(copy)


def as_bytes(picture: np.ndarray) -> np.ndarray:
    """A picture of bytes, or of floats in [-1, 1], as bytes."""
    return picture if picture.dtype == np.uint8 else to_uint8(picture)


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Writes a picture of bytes, or of floats in [-1, 1], as a PNG file."""
    with atomic_write(path) as temporary:
        Image.fromarray(as_bytes(picture)).save(temporary, compress_level=COMPRESSION)
