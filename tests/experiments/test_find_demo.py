"""experiments._lib.find_demo: the picture has what it says, and matches are judged."""

import numpy as np

from experiments._lib import find_demo

SHAPE = find_demo.PlacedShape(10.0, 20.0, "F", 1.0, 90)
MATCH = {"template": "F", "center": [10.0, 20.0], "scale": 1.0, "angle": 90, "score": 1.0}


def test_the_picture_has_every_shape_in_noise():
    picture, placed = find_demo.picture(0)
    other, _ = find_demo.picture(1)
    assert len(placed) == find_demo.SHAPES
    assert picture.shape == other.shape
    assert np.abs(picture - other).max() > 1
    shape = placed[0]
    y = round(shape.y)
    x = round(shape.x)
    region = picture[y - 20 : y + 20, x - 20 : x + 20]
    assert region.mean() > np.median(picture)  # white strokes on black


def test_correct_matches_have_the_shape_and_pose_and_are_close():
    assert find_demo.evaluate([MATCH], [SHAPE]) == ([0.0], 0)
    for change in ({"template": "hook"}, {"scale": 0.75}, {"angle": 0}, {"center": [11.1, 20.0]}):
        assert find_demo.evaluate([MATCH | change], [SHAPE]) == ([], 1)


def test_errors_are_distances_of_centers():
    errors, false = find_demo.evaluate([MATCH | {"center": [10.3, 19.6]}], [SHAPE])
    assert false == 0
    np.testing.assert_allclose(errors, [0.5])


def test_a_shape_found_twice_is_one_false_alarm():
    assert find_demo.evaluate([MATCH, MATCH], [SHAPE]) == ([0.0], 1)


def test_templates_have_the_shapes_names():
    templates = find_demo.templates()
    assert templates.names == list(find_demo.STROKES)
    assert all(feature.shape == (find_demo.SIDE, find_demo.SIDE) for feature in templates.features)
