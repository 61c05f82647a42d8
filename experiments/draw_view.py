"""What the page of `experiments.draw` shows, as HTML with the pictures in it."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from .common import levels

COLUMNS = 16  # filtered images side by side
TILE = 36  # pixels of the screen that one is wide
LARGE = 224  # pixels of the screen that a picture is wide
WRITTEN = 12  # rows and columns of the largest map whose scores are written out
# What counts for, and against: of the same colours as in `cnn_jax.figures.over`, told apart by the colour-blind.
FOR, AGAINST = np.array([[230, 97, 1], [94, 60, 153]], np.float32)
PALE = 0.4  # of the contrast of a picture with something over it


def reading(letter: np.ndarray, seen: Any, classes: Sequence[str]) -> str:
    """What the network makes of a framed letter, as `draw.seeing` gives it."""
    winner = int(np.argmax(seen.shares))
    spread = np.kron(seen.falls, np.ones((2, 2)))[: letter.shape[0], : letter.shape[1]]
    most = float(seen.falls.max())
    parts = [
        f'<p class="read"><b>{classes[winner]}</b> {100 * seen.shares[winner]:.1f} % sure</p>',
        "<p>From the letter as it is, mirrored and turned by quarters.</p>",
        "<h3>Votes of the last layer, for the letter as it is</h3>",
        votes(dict(zip(classes, seen.votes.tolist(), strict=True)), classes[winner]),
        "<h3>What counted</h3>",
        '<div class="pair">',
        figure(png(letter), "the letter, framed", LARGE),
        figure(png(over(letter, spread)), f"covered there, {classes[winner]} has up to {most:.1f} votes less", LARGE),
        "</div>",
        f"<p>Orange spoke for {classes[winner]}, purple against it.</p>",
        "<h3>Filtered and pooled images</h3>",
    ]
    parts += [stage(name, maps) for name, maps in seen.stages.items()]
    return "\n".join(parts)


def matching(image: np.ndarray, scores: np.ndarray, feature: np.ndarray) -> str:
    """How well a feature matches everywhere in a picture."""
    y, x = np.unravel_index(scores.argmax(), scores.shape)
    best = f"Best match {scores[y, x]:.2f}, with the feature's top left corner at row {y + 1}, column {x + 1}."
    border = [(size // 2, size // 2) for size in feature.shape]
    parts = [
        f'<p class="read">{best}</p>',
        '<div class="pair">',
        figure(png(image), "the picture", LARGE),
        figure(png(over(image, np.pad(scores, border))), "the match over it", LARGE),
        figure(png(scores), "the match map, 1 white and -1 black", LARGE),
        "</div>",
    ]
    if max(scores.shape) <= WRITTEN:
        rows = ("".join(f"<td>{value:.2f}</td>" for value in row) for row in scores)
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
        sheet[top : top + rows, left : left + columns, 0] = levels(maps[..., k] / limit)
        sheet[top : top + rows, left : left + columns, 1] = 255
    caption = f"{name}: {features} images of {rows}×{columns}, white {limit:.2g}, black -{limit:.2g}"
    return f'<div class="stage">{figure(png(sheet), caption, across * TILE)}</div>'


def figure(source: str, caption: str, width: int) -> str:
    """A picture and what it is."""
    image = f'<img src="{source}" alt="{caption}" style="width: {width}px">'
    return f"<figure><figcaption>{caption}</figcaption>{image}</figure>"


def over(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A picture, pale, with what speaks for and against laid over it: bytes (H, W, 3)."""
    share = np.clip(np.abs(values) / max(float(np.abs(values).max()), 1e-6), 0, 1)[..., None]
    grey = levels(PALE * image).astype(np.float32)[..., None]
    colour = np.where(values[..., None] > 0, FOR, AGAINST)
    return np.round(grey * (1 - share) + colour * share).astype(np.uint8)


def png(image: np.ndarray) -> str:
    """A picture, bytes or pixels in [-1, 1], as the URL of a PNG that is in it."""
    file = io.BytesIO()
    Image.fromarray(image if image.dtype == np.uint8 else levels(image)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
