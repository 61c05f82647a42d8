"""Centers and corners of matches."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import cnn_jax as cnn
from cnn_jax._matches import Matches
from tests.helpers.oracles import noise, rectangle_corners

NAMES = "y x score feature scale angle height width valid template_height template_width found"


def matches(y, x, box, template, angle):
    """One match after another, and one that is not valid."""
    rows = np.zeros((len(y) + 1, 7), np.float32)
    rows[:-1] = np.column_stack([y, x, box, template, angle])
    y, x, height, width, template_height, template_width, angle = jnp.array(rows).T
    valid = jnp.arange(len(y)) < len(y) - 1
    feature = jnp.where(valid, 0, -1)
    ones = valid.astype(jnp.float32)
    return Matches(y, x, ones, feature, ones, angle, height, width, valid, template_height, template_width, valid.sum())


TURNED = matches([9, 10_000], [8, 20_000], [(2, 4), (4, 5)], [(4, 2), (3, 4)], [math.pi / 2, 0.5])


def test_the_fields_are_in_a_fixed_order():
    assert Matches._fields == tuple(NAMES.split())
    assert cnn.Matches is Matches


def test_the_center_is_that_of_the_box():
    assert TURNED.center.tolist() == [[9.5, 9.5], [10_001.5, 20_002], [0, 0]]


def test_corners_are_exact_at_multiples_of_90_degrees():
    """The template's top left corner comes to the bottom left, half a pixel outside of the pixel's center."""
    assert TURNED.corners[0].tolist() == [[10.5, 7.5], [8.5, 7.5], [8.5, 11.5], [10.5, 11.5]]
    assert TURNED.corners[2].tolist() == [[0, 0]] * 4


def test_corners_turn_counterclockwise():
    want = rectangle_corners((10_001.5, 20_002, 3, 4, 0.5))
    np.testing.assert_allclose(TURNED.corners[1], want, atol=0.002)  # float32 rounds to 1/500 there


def test_a_batch_has_a_center_for_each_image():
    batch = Matches(*(jnp.stack([field, field]) for field in TURNED))
    np.testing.assert_array_equal(batch.center[1], TURNED.center)
    np.testing.assert_array_equal(batch.corners[1], TURNED.corners)
    assert batch.corners.shape == (2, 3, 4, 2)


def test_one_match_has_a_center():
    one = Matches(*(field[0] if field.ndim else field for field in TURNED))
    np.testing.assert_array_equal(one.center, TURNED.center[0])
    np.testing.assert_array_equal(one.corners, TURNED.corners[0])


def test_matches_on_the_host_have_the_same_corners():
    on_host = jax.device_get(TURNED)
    assert isinstance(on_host.y, np.ndarray)
    np.testing.assert_array_equal(on_host.center, TURNED.center)
    np.testing.assert_array_equal(on_host.corners, TURNED.corners)


def test_the_corners_surround_the_feature_in_the_image():
    image = noise(0, 20, 25)
    find = jax.jit(partial(cnn.find, angles=(math.pi / 2,), top_k=1, subpixel=False))
    got = find(image, np.rot90(image[4:8, 9:15], -1))
    assert got.corners[0].tolist() == [[7.5, 8.5], [3.5, 8.5], [3.5, 14.5], [7.5, 14.5]]
    assert got.center[0].tolist() == [5.5, 11.5]
    assert (got.template_height[0], got.template_width[0]) == (6, 4)
    assert (got.height[0], got.width[0]) == (4, 6)
