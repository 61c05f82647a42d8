"""The answers of the page of `experiments.draw` as HTML with inlined images. `cnn_jax.figures` draws PNG files."""

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

from cnn_jax import figures
from cnn_jax.data.pixels import to_uint8

from .draw_inspect import STRIDE, Inspection

COLUMNS = 16  # activation maps side by side
TILE_WIDTH = 36  # CSS pixels, of an activation map
PICTURE_WIDTH = 224  # CSS pixels
MAX_WRITTEN_SIDE = 12  # rows and columns of the largest match map whose scores are written out
MIN_LIMIT = 1e-6  # of a scale, so that a map of zeros has one


def letter_html(letter: Float[np.ndarray, "H W"], inspection: Inspection, classes: Sequence[str]) -> str:
    """The predicted class of a letter, the votes, the pixels that count, and all intermediate activations."""
    index = int(np.argmax(inspection.probabilities))
    predicted = classes[index]
    votes = dict(zip(classes, inspection.votes.tolist(), strict=True))
    falls = np.asarray(inspection.vote_falls)
    pixel_falls = np.kron(falls, np.ones((STRIDE, STRIDE)))[: letter.shape[0], : letter.shape[1]]
    limit = max(float(np.abs(falls).max()), MIN_LIMIT)
    caption = f"covering a spot lowers the vote for {predicted} by up to {falls.max():.1f}"
    parts = [
        f'<p class="read"><b>{predicted}</b> {100 * inspection.probabilities[index]:.1f} % sure</p>',
        "<p>The network must choose X or O, whatever is drawn. Its prediction is the mean over the letter's eight "
        "flips and rotations by 90 degrees.</p>",
        "<h2>Votes of the last layer, for the letter as drawn</h2>",
        votes_html(votes, predicted),
        "<h2>Pixels that count</h2>",
        '<div class="pair">',
        figure_html(png_url(letter), "the letter, centered", PICTURE_WIDTH),
        overlay_html(letter, pixel_falls, limit, caption),
        "</div>",
        f"<p>Orange supports {predicted}, purple opposes it.</p>",
        "<h2>Filtered and pooled images</h2>",
    ]
    parts += [stage_html(name, np.asarray(maps)) for name, maps in inspection.stages.items()]
    return "\n".join(parts)


def match_html(image: Float[np.ndarray, "H W"], scores: Float[np.ndarray, "_ _"], feature_size: tuple[int, int]) -> str:
    """The match map of a picture and a feature, and the best match."""
    parts = [
        f'<p class="read">{best_match_text(scores)}</p>',
        '<div class="pair">',
        figure_html(png_url(image), "the picture", PICTURE_WIDTH),
        overlay_html(
            image,
            np.pad(scores, [(size // 2, size // 2) for size in feature_size]),
            1.0,
            "overlay: orange 1, purple -1",
        ),
        figure_html(png_url(scores), "match map: white 1, black -1", PICTURE_WIDTH),
        "</div>",
    ]
    if max(scores.shape) <= MAX_WRITTEN_SIDE:
        parts.append(table_html(scores))
    return "\n".join(parts)


def best_match_text(scores: Float[np.ndarray, "_ _"]) -> str:
    """The highest score, its position counted from 1, and the number of other positions that match equally well."""
    y, x = np.unravel_index(scores.argmax(), scores.shape)
    ties = int(np.sum(scores > scores.max() - 1e-6)) - 1
    best = f"Best match {scores[y, x]:.2f}, top left corner at row {y + 1}, column {x + 1}."
    return f"{best} Other positions as good: {ties}." if ties else best


def table_html(scores: Float[np.ndarray, "_ _"]) -> str:
    """A table of scores, with two decimals."""
    rows = []
    for row in scores:
        cells = "".join(f"<td>{np.round(score, 2) + 0.0:.2f}</td>" for score in row)  # + 0.0 makes -0 0
        rows.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(rows)}</table>"


def votes_html(votes: Mapping[str, float], predicted: str) -> str:
    """A bar for each class: to the right of the middle for positive votes, to the left for negative ones."""
    limit = max(max(map(abs, votes.values())), MIN_LIMIT)
    rows = []
    for name, vote in votes.items():
        left = 50 * min(1 + vote / limit, 1)
        width = 50 * abs(vote) / limit
        bar = f'<i style="margin-left: {left:.1f}%; width: {width:.1f}%"></i>'
        won = " won" if name == predicted else ""
        rows.append(f'<div class="vote{won}"><span>{name}</span><span>{bar}</span><span>{vote:.2f}</span></div>')
    return "\n".join(rows)


def stage_html(name: str, maps: Float[np.ndarray, "H W K"]) -> str:
    """All activation maps of a stage, on one scale."""
    limit = max(float(np.abs(maps).max()), MIN_LIMIT)
    lowest = f"black -{limit:.2g}" if maps.min() < 0 else "gray 0"
    rows, columns, features = maps.shape
    caption = f"{name}: {features} images of {rows}×{columns}, white {limit:.2g}, {lowest}"
    width = min(features, COLUMNS) * TILE_WIDTH
    return f'<div class="stage">{figure_html(png_url(contact_sheet(maps / limit)), caption, width)}</div>'


def contact_sheet(maps: Float[np.ndarray, "H W K"]) -> UInt8[np.ndarray, "_ _ 2"]:
    """Maps in [-1, 1] side by side, with transparent lines between them: gray levels and opacity."""
    rows, columns, features = maps.shape
    across = min(features, COLUMNS)
    down = -(-features // across)
    sheet = np.zeros((down * (rows + 1) - 1, across * (columns + 1) - 1, 2), np.uint8)
    for k in range(features):
        top = k // across * (rows + 1)
        left = k % across * (columns + 1)
        sheet[top : top + rows, left : left + columns, 0] = to_uint8(maps[..., k])
        sheet[top : top + rows, left : left + columns, 1] = 255
    return sheet


def overlay_html(image: Float[np.ndarray, "H W"], values: Float[np.ndarray, "H W"], limit: float, caption: str) -> str:
    """An image with values laid over it, like `figures.overlay`."""
    return figure_html(png_url(overlay_pixels(image, values, limit)), caption, PICTURE_WIDTH)


def overlay_pixels(
    image: Float[np.ndarray, "H W"], values: Float[np.ndarray, "H W"], limit: float
) -> UInt8[np.ndarray, "H W 3"]:
    """The colors of an image under values, whose opacity is proportional to their magnitude, up to `limit`."""
    opacity = np.clip(np.abs(values) / limit, 0, 1)[..., None]
    color = 2 * np.where(values[..., None] > 0, figures.POSITIVE_COLOR, figures.NEGATIVE_COLOR) - 1
    return to_uint8(figures.BACKGROUND_CONTRAST * image[..., None] * (1 - opacity) + color * opacity)


def figure_html(url: str, caption: str, width: int) -> str:
    """An image and its caption."""
    image = f'<img src="{url}" alt="" style="width: {width}px">'  # the caption describes it
    return f"<figure><figcaption>{caption}</figcaption>{image}</figure>"


def png_url(image: Shaped[np.ndarray, "H W *C"]) -> str:
    """An image, bytes or pixels in [-1, 1], as a data URL of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image if image.dtype == np.uint8 else to_uint8(image)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
