"""experiments._lib.find_results: matches as records, tables and outlines."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import cnn_jax
from experiments._lib import find_results

MATCHES = cnn_jax.Matches(
    y=jnp.array([1.23456, 0]),
    x=jnp.array([2.0, 0]),
    score=jnp.array([0.98765, 0]),
    feature=jnp.array([1, -1]),
    scale=jnp.array([0.5, 0]),
    angle=jnp.array([math.pi / 2, 0]),
    height=jnp.array([3, 0]),
    width=jnp.array([5, 0]),
    valid=jnp.array([True, False]),
    template_height=jnp.array([5, 0]),
    template_width=jnp.array([3, 0]),
    found=jnp.array(7),
)
# The template is turned counterclockwise: its top left corner comes to the bottom left.
RECORD = {
    "template": "b",
    "page": 2,
    "y": 1.235,
    "x": 2.0,
    "height": 3,
    "width": 5,
    "scale": 0.5,
    "angle": 90.0,
    "score": 0.9876,
    "center": [2.235, 4.0],
    "corners": [[3.735, 1.5], [0.735, 1.5], [0.735, 6.5], [3.735, 6.5]],
}


def test_records_have_names_degrees_and_few_digits():
    records, found = find_results.match_records(find_results.outline(MATCHES), ["a", "b"], page=2)
    assert found == 7
    assert json.loads(json.dumps(records)) == records
    (record,) = records
    assert record.keys() == RECORD.keys()
    np.testing.assert_allclose(record.pop("corners"), RECORD["corners"], atol=2e-3)
    np.testing.assert_allclose(record.pop("center"), RECORD["center"], atol=2e-3)
    assert record == pytest.approx({name: RECORD[name] for name in record}, abs=1e-4)


def test_tables_have_a_row_for_each_match():
    matches = {"p.png": find_results.PageMatches([RECORD], 1), "q.png": find_results.PageMatches([], 0)}
    blocks = find_results.match_tables(matches)
    assert blocks[0] == "p.png: 1 found"
    cells = ["b", "2.235", "4.000", "1.235", "2.000", "3", "5", "0.5", "90", "0.9876"]
    assert blocks[1] == [list(find_results.FORMATS), cells]
    assert blocks[2:] == ["q.png: 0 found"]


def test_a_headline_says_that_only_the_best_are_shown():
    matches = find_results.PageMatches([RECORD] * 10, 20)
    assert find_results.headline("p.png", matches) == "p.png: 20 found, the best 10 shown"


def test_copies_of_large_pictures_are_reduced(monkeypatch):
    monkeypatch.setattr(find_results, "MAX_COPY_SIDE", 30)
    corners = [[9.5, 12.5], [9.5, 42.5], [30.5, 42.5], [30.5, 12.5]]
    match = RECORD | {"corners": corners, "y": 10.0, "x": 13.0}
    drawn = find_results.draw_matches(np.zeros((40, 80), np.uint8), [match], ["a", "b"])
    assert drawn.shape == (14, 27, 3)
    columns = np.flatnonzero(np.ptp(drawn.astype(int), axis=-1)[6] > 100)
    assert np.abs(columns[[0, -1]] - [12 / 3, 42 / 3]).max() <= find_results.LINE_WIDTH / 2 + 0.5
    assert len(columns) == 2 * find_results.LINE_WIDTH


def test_matches_are_drawn_on_a_copy(tmp_path):
    picture = np.zeros((20, 30), np.float32)
    match = {**RECORD, "corners": [[7.5, 9.5], [7.5, 19.5], [13.5, 19.5], [13.5, 9.5]]}
    drawn = find_results.draw_matches(picture, [match], ["a", "b"])
    assert drawn.shape == (20, 30, 3)
    assert np.ptp(drawn.astype(int), axis=-1).max() > 100
    assert not picture.any()
    find_results.save_picture(drawn, tmp_path / "drawn.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "drawn.png")), drawn)
    find_results.save_picture(picture, tmp_path / "plain.png")
    assert np.asarray(Image.open(tmp_path / "plain.png"))[0, 0] == 128
