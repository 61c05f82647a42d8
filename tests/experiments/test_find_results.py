"""experiments._lib.find_results: matches as records, tables and outlines."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import cnn_jax
from experiments._lib import find_results
from experiments._lib.find_pictures import Templates

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
    found=jnp.array(1),
)
RECORD = {
    "template": "b",
    "y": 1.235,
    "x": 2.0,
    "height": 3,
    "width": 5,
    "scale": 0.5,
    "angle": 90.0,
    "score": 0.9876,
}


def test_records_have_names_degrees_and_few_digits():
    (record,) = find_results.match_records(MATCHES, ["a", "b"])
    assert record == pytest.approx(RECORD, abs=1e-4)


def test_tables_have_a_row_for_each_match():
    blocks = find_results.match_tables({"p.png": [RECORD], "q.png": []})
    assert blocks[0] == "p.png: 1 found"
    assert blocks[1] == [list(RECORD), ["b", "1.235", "2.000", "3", "5", "0.5", "90", "0.9876"]]
    assert blocks[2:] == ["q.png: 0 found"]


def test_outlines_are_turned_counterclockwise():
    match = {**RECORD, "y": 9.0, "x": 8.0, "height": 3, "width": 5, "scale": 1.0, "angle": 90.0}
    corners = find_results.outline(match, (4, 2))  # the template's top left corner comes to the bottom left
    np.testing.assert_allclose(corners, [(8, 11), (8, 9), (12, 9), (12, 11)], atol=1e-9)


def test_matches_are_drawn_on_a_copy(tmp_path):
    picture = np.zeros((20, 30), np.float32)
    templates = Templates(["a", "b"], [np.zeros((6, 8)), np.zeros((6, 10))], [None, None])
    match = {**RECORD, "y": 8.0, "x": 10.0, "height": 6, "width": 10, "scale": 1.0, "angle": 0.0}
    drawn = find_results.draw_matches(picture, [match], templates)
    assert drawn.shape == (20, 30, 3)
    assert np.ptp(drawn.astype(int), axis=-1).max() > 100
    assert not picture.any()
    find_results.save_picture(drawn, tmp_path / "drawn.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "drawn.png")), drawn)
    find_results.save_picture(picture, tmp_path / "plain.png")
    assert np.asarray(Image.open(tmp_path / "plain.png"))[0, 0] == 128
