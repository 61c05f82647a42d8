"""The answers of the page of experiments.draw, without a browser."""

import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax
from experiments._lib import article, draw_answers, draw_html
from experiments._lib.draw_inspect import Inspection

DIAGONAL = article.FEATURES["diagonal"].tolist()


def test_a_feature_is_matched_in_an_example():
    answer = draw_answers.match_feature({"feature": DIAGONAL, "picture": "the X"})
    assert "Best match 1.00, top left corner at row 2, column 2. Other positions as good: 3." in answer
    assert answer.count("<td>") == 49
    scores = np.asarray(cnn_jax.match(jnp.asarray(article.THE_X), jnp.asarray(article.FEATURES["diagonal"])))
    for score in scores.ravel():
        assert f"<td>{np.round(score, 2) + 0.0:.2f}</td>" in answer


def test_a_feature_is_matched_in_any_picture():
    picture = draw_html.png_url(article.THE_X)
    answer = draw_answers.match_feature({"feature": DIAGONAL, "picture": picture})
    assert "Best match" in answer
    assert "<table>" not in answer  # 94 x 94 numbers


@pytest.mark.parametrize(
    ("feature", "picture", "message"),
    [
        ([[1]], "the X", "feature: expected 3x3 or 5x5"),
        ([[1, 2, 3]] * 3, "the X", "feature: expected"),
        ([[float("nan")] * 3] * 3, "the X", "feature: expected"),
        ("<script>", "the X", "could not convert"),
        ([[10**400] * 3] * 3, "the X", "too large"),
        ([[1, 1, 1]] * 3, "a letter", "picture: expected a picture file"),
        ([[1, 1, 1]] * 3, "data:image/png;base64,???", "picture: expected a picture file"),
        ([[1, 1, 1]] * 3, None, "picture: expected a picture file"),
        ([[1, 1, 1]] * 3, "data:image/png;base64," + "A" * 28_000_000, "picture: expected at most 28 million"),
    ],
)
def test_a_wrong_request_is_answered_with_one_line(feature, picture, message):
    answer = draw_answers.match_feature({"feature": feature, "picture": picture})
    assert answer.startswith('<p class="problem">')
    assert message in answer
    assert "<script>" not in answer


def inspect(letter):
    """An inspection without a network."""
    assert letter.shape == (28, 28)
    return Inspection(np.array([0.9, 0.1]), np.array([1.0, -1.0]), {"conv1": letter[..., None]}, np.zeros((14, 14)))


def test_a_letter_is_answered_with_its_class():
    classify_letter = draw_answers.make_classify_letter(inspect)
    assert "<b>X</b> 90.0 % sure" in classify_letter(draw_html.png_url(article.THE_X))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("data:image/png;base64,", "picture"),
        ("data:image/png;base64,AAAA", "picture: not a picture that can be read"),
        (draw_html.png_url(np.full((40, 40), 1, np.float32)), "picture: nothing is drawn on it"),
        (None, "picture: expected a picture file"),
    ],
)
def test_a_picture_that_is_no_letter_is_answered_with_one_line(picture, message):
    answer = draw_answers.make_classify_letter(inspect)(picture)
    assert answer.startswith('<p class="problem">')
    assert message in answer


def test_functions_keep_the_names_by_which_the_page_calls_them():
    assert draw_answers.match_feature.__name__ == "match_feature"
    assert draw_answers.make_classify_letter(inspect).__name__ == "classify_letter"


def test_a_wide_picture_keeps_its_shape():
    square = draw_answers.fit_into_square(np.ones((10, 40), np.float32))
    size = draw_answers.PICTURE_SIZE
    assert square.shape == (size, size)
    rows, columns = np.nonzero(square == 1)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (size // 4, size)
    assert rows.min() == size - 1 - rows.max()  # in the middle


def test_a_file_of_20_mb_fits_into_the_longest_data_url():
    assert draw_answers.MAX_URL_LENGTH > 4 / 3 * 20e6 + 100


def test_all_sizes_of_pictures_and_features_are_compiled_in_advance(monkeypatch):
    shapes = set()
    monkeypatch.setattr(draw_answers, "match_map", lambda image, feature: shapes.add((image.shape, feature.shape)))
    draw_answers.compile_match_feature()
    sizes = {(9, 9), (96, 96)}
    assert shapes == {(image, feature) for image in sizes for feature in ((3, 3), (5, 5))}
