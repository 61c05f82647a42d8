"""The answers of the page of `experiments.draw`: HTML for a letter, and for a feature and a picture."""

import base64
import binascii
import functools
import html
import io
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from PIL import Image

import cnn_jax
from cnn_jax.data import image_io, xo

from . import article, cli, draw_html
from .draw_inspect import Inspect
from .xo_model import open_letter

PICTURE_SIZE = 96  # rows and columns that a picture is scaled to, before a feature is matched
FEATURE_SIZES = (3, 5)  # rows and columns of a feature
MAX_URL_LENGTH = 28_000_000  # characters of a data URL; base64 makes a file of 20 MB a third longer

match_map = jax.jit(cnn_jax.match)


def answer_errors(answer: Callable[[Any], str]) -> Callable[[Any], str]:
    """Makes a function return its exceptions as one line of HTML."""

    @functools.wraps(answer)
    def safe_answer(request: Any) -> str:
        try:
            return answer(request)
        except Exception as error:  # requests may be anything; the page shows what is wrong with them
            return f'<p class="problem">{html.escape(cli.one_line_error(error))}</p>'

    return safe_answer


def make_classify_letter(inspect: Inspect) -> Callable[[str], str]:
    """The function that answers a picture of a letter, a data URL, with the HTML of its inspection."""

    @answer_errors
    def classify_letter(picture: str) -> str:
        letter = open_letter(decode_data_url(picture))
        return draw_html.letter_html(letter, inspect(letter), xo.CLASSES)

    return classify_letter


@answer_errors
def match_feature(request: dict[str, Any]) -> str:
    """Answers `feature`, numbers, and `picture`, a data URL or the name of an example, with the match map."""
    feature = np.asarray(request["feature"], np.float32)
    picture = str(request["picture"])
    if feature.shape not in {(size, size) for size in FEATURE_SIZES} or not np.all(np.abs(feature) <= 1):
        raise ValueError("feature: expected 3x3 or 5x5 numbers from -1 to 1, got something else")
    if picture in article.IMAGES:
        image = article.IMAGES[picture]
    else:
        image = fit_into_square(image_io.read_image(decode_data_url(picture)))
    return draw_html.match_html(image, np.asarray(match_map(image, feature)), feature.shape)


def compile_match_feature() -> None:
    """Compiles `match_feature` for all sizes of pictures and features, so that the first answer does not wait."""
    for image in (*article.IMAGES.values(), np.zeros((PICTURE_SIZE, PICTURE_SIZE), np.float32)):
        for size in FEATURE_SIZES:
            match_map(image, np.zeros((size, size), np.float32))


def decode_data_url(url: Any) -> io.BytesIO:
    """The file in a data URL.

    Raises:
      ValueError: another kind of URL, damaged base64, or more than `MAX_URL_LENGTH` characters.
    """
    url = str(url)
    if len(url) > MAX_URL_LENGTH:
        limit = MAX_URL_LENGTH // 10**6
        raise ValueError(f"picture: expected at most {limit} million characters, got {len(url):,}")
    head, _, body = url.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64")):
        raise ValueError("picture: expected a picture file, got something else")
    try:
        return io.BytesIO(base64.b64decode(body, validate=True))
    except binascii.Error as error:
        raise ValueError(f"picture: expected a picture file, got something else ({error})") from error


def fit_into_square(image: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "S S"]:
    """A picture scaled to `PICTURE_SIZE` on its longer side, in the middle of a black square."""
    scale = PICTURE_SIZE / max(image.shape)
    rows, columns = (max(round(side * scale), 1) for side in image.shape)
    scaled = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX))
    square = np.full((PICTURE_SIZE, PICTURE_SIZE), -1, np.float32)
    top = (PICTURE_SIZE - rows) // 2
    left = (PICTURE_SIZE - columns) // 2
    square[top : top + rows, left : left + columns] = scaled
    return square
