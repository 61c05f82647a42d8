"""HTML of what the page of experiments.draw shows."""

import base64
import io

import html5lib
import numpy as np
import pytest
from PIL import Image

from cnn_jax import figures
from experiments._lib import draw_html
from experiments._lib.draw_inspect import Inspection


def parse(html):
    """The elements of valid HTML."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parseFragment(html)


def decode(url):
    """The image in a data URL, as an array."""
    head, data = url.split(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        return np.asarray(image)


@pytest.fixture
def letter_page():
    letter = np.full((28, 28), -1, np.float32)
    inspection = Inspection(
        probabilities=np.array([0.25, 0.75]),
        votes=np.array([-1.0, 2.0]),
        stages={"conv1": np.ones((4, 4, 3)), "relu1": np.zeros((4, 4, 3)), "conv2": -np.ones((2, 2, 20))},
        vote_falls=np.linspace(-1, 2.345, 14 * 14).reshape(14, 14),
    )
    return parse(draw_html.letter_html(letter, inspection, ("X", "O")))


def test_a_letters_class_and_probability_come_first(letter_page):
    assert "".join(letter_page.find("p").itertext()) == "O 75.0 % sure"
    assert letter_page.find("p").get("class") == "read"


def test_a_letter_is_shown_with_votes_pixels_that_count_and_stages(letter_page):
    captions = ["".join(caption.itertext()) for caption in letter_page.iter("figcaption")]
    assert captions == [
        "the letter, centered",
        "covering a spot lowers the vote for O by up to 2.3",
        "conv1: 3 images of 4×4, white 1, gray 0",
        "relu1: 3 images of 4×4, white 1e-06, gray 0",
        "conv2: 20 images of 2×2, white 1, black -1",
    ]
    votes = [div for div in letter_page.iter("div") if (div.get("class") or "").startswith("vote")]
    assert [div.get("class") for div in votes] == ["vote", "vote won"]
    assert ["".join(div.itertext()) for div in votes] == ["X-1.00", "O2.00"]


def test_bars_of_votes_start_in_the_middle():
    bars = [bar.get("style") for bar in parse(draw_html.votes_html({"X": -1.0, "O": 2.0}, "O")).iter("i")]
    assert bars == ["margin-left: 25.0%; width: 25.0%", "margin-left: 50.0%; width: 50.0%"]


def test_a_small_match_map_is_written_out():
    scores = np.array([[0.25, -0.001], [1.0, -1.0]], np.float32)
    page = parse(draw_html.match_html(np.zeros((4, 4), np.float32), scores, (3, 3)))
    assert [cell.text for cell in page.iter("td")] == ["0.25", "0.00", "1.00", "-1.00"]
    assert len(list(page.iter("img"))) == 3


def test_a_large_match_map_is_not_written_out():
    page = parse(draw_html.match_html(np.zeros((15, 15), np.float32), np.zeros((13, 13), np.float32), (3, 3)))
    assert page.find("table") is None


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ([[0.0, 0.5]], "Best match 0.50, top left corner at row 1, column 2."),
        ([[0.5, 0.0], [0.5, 0.5]], "Best match 0.50, top left corner at row 1, column 1. Other positions as good: 2."),
    ],
)
def test_the_best_match_is_told_with_the_number_of_ties(scores, text):
    assert draw_html.best_match_text(np.array(scores, np.float32)) == text


def test_an_overlay_is_orange_for_and_purple_against():
    letter = np.full((2, 2), 1.0, np.float32)
    values = np.array([[1.0, 0.0], [-1.0, 0.5]])
    pixels = draw_html.overlay_pixels(letter, values, 1.0)
    np.testing.assert_allclose(pixels[0, 0] / 255, figures.POSITIVE_COLOR, atol=0.01)
    np.testing.assert_allclose(pixels[1, 0] / 255, figures.NEGATIVE_COLOR, atol=0.01)
    assert len(set(pixels[0, 1].tolist())) == 1  # gray


def test_maps_are_side_by_side_with_transparent_lines_between():
    maps = np.stack([np.full((2, 3), value) for value in np.linspace(-1, 1, 17)], -1)
    sheet = draw_html.contact_sheet(maps)
    assert sheet.shape == (2 * 3 - 1, 16 * 4 - 1, 2)
    assert set(sheet[:2, :3, 0].ravel().tolist()) == {0}
    assert set(sheet[3:, :3, 0].ravel().tolist()) == {255}
    assert np.all(sheet[:2, 3, 1] == 0)
    assert np.all(sheet[2, :, 1] == 0)


def test_pixels_and_bytes_become_png_files():
    np.testing.assert_array_equal(decode(draw_html.png_url(np.full((2, 2), 1.0, np.float32))), 255)
    levels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
    np.testing.assert_array_equal(decode(draw_html.png_url(levels)), levels)
