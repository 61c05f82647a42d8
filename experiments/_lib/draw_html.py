"""What the page of `experiments.draw` shows, as HTML with the pictures in it."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from cnn_jax import figures

from .cli import to_uint8

COLUMNS = 16  # filtered images side by side
TILE = 36  # pixels of the screen that one is wide
LARGE = 224  # pixels of the screen that a picture is wide
WRITTEN = 12  # rows and columns of the largest map whose scores are written out


def reading(letter: np.ndarray, seen: Any, classes: Sequence[str]) -> str:
    """What the network makes of a framed letter, as `draw.seeing` gives it."""
    winner = int(np.argmax(seen.shares))
    spread = np.kron(seen.falls, np.ones((2, 2)))[: letter.shape[0], : letter.shape[1]]
    counted = over(letter, spread, max(float(np.abs(seen.falls).max()), 1e-6))
    most = f"covered there, {classes[winner]} has up to {seen.falls.max():.1f} votes less"
    parts = [
        f'<p class="read"><b>{classes[winner]}</b> {100 * seen.shares[winner]:.1f} % sure</p>',
        "<p>Between X and O, that is: it must choose one, whatever is drawn. The mean of its opinions of the letter as "
        "it is, mirrored and turned by quarters.</p>",
        "<h2>Votes of the last layer, for the letter as it is</h2>",
        votes(dict(zip(classes, seen.votes.tolist(), strict=True)), classes[winner]),
        "<h2>What counted</h2>",
        '<div class="pair">',
        figure(png(letter), "the letter, framed", LARGE),
        figure(png(counted), most, LARGE),
        "</div>",
        f"<p>Orange spoke for {classes[winner]}, purple against it.</p>",
        "<h2>Filtered and pooled images</h2>",
    ]
    parts += [stage(name, maps) for name, maps in seen.stages.items()]
    return "\n".join(parts)


def matching(image: np.ndarray, scores: np.ndarray, feature: np.ndarray) -> str:
    """How well a feature matches everywhere in a picture."""
    y, x = np.unravel_index(scores.argmax(), scores.shape)
    same = int(np.sum(scores > scores.max() - 1e-6))
    where = f"row {y + 1}, column {x + 1}" + (f", and {same - 1} more as good" if same > 1 else "")
    best = f"Best match {scores[y, x]:.2f}, with the feature's top left corner at {where}."
    border = [(size // 2, size // 2) for size in feature.shape]
    parts = [
        f'<p class="read">{best}</p>',
        '<div class="pair">',
        figure(png(image), "the picture", LARGE),
        figure(png(over(image, np.pad(scores, border), 1.0)), "over it: orange 1, purple -1", LARGE),
        figure(png(scores), "the match map, 1 white and -1 black", LARGE),
        "</div>",
    ]
    if max(scores.shape) <= WRITTEN:
        rows = ("".join(f"<td>{np.round(value, 2) + 0.0:.2f}</td>" for value in row) for row in scores)
        parts.append("<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>")
    return "\n".join(parts)


def votes(each: Mapping[str, float], winner: str) -> str:
    """A bar for each class, to the right of the middle if its vote is above 0."""
    most = max(max(map(abs, each.values())), 1e-6)
    bars = []
    for name, value in each.items():
        left, width = 50 * min(1 + value / most, 1), 50 * abs(value) / most
        bar = f'<i style="margin-left: {left:.1f}%; width: {width:.1f}%"></i>'
        won = " won" if name == winner else ""
        bars.append(f'<div class="vote{won}"><span>{name}</span><span>{bar}</span><span>{value:.2f}</span></div>')
    return "\n".join(bars)


def stage(name: str, maps: np.ndarray) -> str:
    """All images of a stage on one scale."""
    rows, columns, features = maps.shape
    limit = max(float(np.abs(maps).max()), 1e-6)
    across = min(features, COLUMNS)
    down = -(-features // across)
    sheet = np.zeros((down * (rows + 1) - 1, across * (columns + 1) - 1, 2), np.uint8)  # level and opacity
    for k in range(features):
        top, left = k // across * (rows + 1), k % across * (columns + 1)
        sheet[top : top + rows, left : left + columns, 0] = to_uint8(maps[..., k] / limit)
        sheet[top : top + rows, left : left + columns, 1] = 255
    lowest = f"black -{limit:.2g}" if maps.min() < 0 else "grey 0"
    caption = f"{name}: {features} images of {rows}×{columns}, white {limit:.2g}, {lowest}"
    return f'<div class="stage">{figure(png(sheet), caption, across * TILE)}</div>'


def figure(source: str, caption: str, width: int) -> str:
    """A picture and what it is."""
    image = f'<img src="{source}" alt="" style="width: {width}px">'  # the caption says it
    return f"<figure><figcaption>{caption}</figcaption>{image}</figure>"


def over(image: np.ndarray, values: np.ndarray, limit: float) -> np.ndarray:
    """`figures.overlay` of values as many as pixels, for bytes (H, W, 3)."""
    share = np.clip(np.abs(values) / limit, 0, 1)[..., None]
    colour = 2 * np.where(values[..., None] > 0, figures.POSITIVE_COLOR, figures.NEGATIVE_COLOR) - 1
    return to_uint8(figures.BACKGROUND_CONTRAST * image[..., None] * (1 - share) + colour * share)


def png(image: np.ndarray) -> str:
    """A picture, bytes or pixels in [-1, 1], as the URL of a PNG that is in it."""
    file = io.BytesIO()
    Image.fromarray(image if image.dtype == np.uint8 else to_uint8(image)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
