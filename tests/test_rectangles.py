"""Areas of intersections of turned rectangles against clipping of polygons in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_jax._rectangles import cos_and_sin, intersection_area, make_rectangles
from tests.helpers.oracles import rectangle_corners, rectangle_intersection, seeds

COUNT = 16
ANGLES = [i * math.pi / 4 for i in range(-8, 9)]


@pytest.fixture(scope="module")
def areas():
    """Intersections of the first of `COUNT` rectangles (y, x, height, width, angle) with all of them."""
    run = jax.jit(lambda rows: intersection_area(make_rectangles(*rows[0]), make_rectangles(*rows.T)))

    def pad_and_run(rows):
        rows = np.asarray(rows, np.float32)
        return np.asarray(run(np.pad(rows, [(0, COUNT - len(rows)), (0, 0)], mode="edge")))[: len(rows)]

    return pad_and_run


@given(seed=seeds, offset=st.sampled_from([0, 10_000]), size=st.sampled_from([1, 30, 1000]))
def test_areas_are_those_of_clipped_polygons(areas, seed, offset, size):
    rng = np.random.default_rng(seed)
    rows = np.empty((COUNT, 5), np.float32)
    rows[:, :2] = offset + rng.uniform(-size, size, (COUNT, 2))
    rows[:, 2:4] = rng.uniform(0.05, 2, (COUNT, 2)) * size
    rows[:, 4] = np.where(rng.uniform(size=COUNT) < 0.5, rng.uniform(-7, 7, COUNT), rng.choice(ANGLES, COUNT))
    rows[COUNT // 2 :, 4] += rows[0, 4]  # many are parallel to the first
    want = [rectangle_intersection(rows[0].tolist(), row) for row in rows.tolist()]
    np.testing.assert_allclose(areas(rows), want, atol=1e-5 * size**2)


@given(seed=seeds)
def test_upright_areas_are_exact(areas, seed):
    rng = np.random.default_rng(seed)
    tops = rng.integers(0, 12, (COUNT, 2)) + 10_000
    sides = rng.integers(1, 7, (COUNT, 2))
    quarters = rng.integers(-4, 5, COUNT)
    turned = np.where(quarters[:, None] % 2 == 1, sides[:, ::-1], sides)
    rows = np.column_stack([tops + sides / 2, turned, quarters * math.pi / 2])
    shared = np.minimum(tops + sides, tops[0] + sides[0]) - np.maximum(tops, tops[0])
    np.testing.assert_array_equal(areas(rows), np.maximum(shared, 0).prod(axis=1))


@pytest.mark.parametrize("angle", ANGLES[8:])
def test_identical_contained_touching_and_distant_rectangles(areas, angle):
    along = np.array([math.cos(angle), math.sin(angle)])  # down in the rectangle
    center = np.array([10_000, 5])
    rows = [
        (*center, 20, 120, angle),
        (*center, 20, 120, angle + math.pi),
        (*center + 3 * along, 1, 1, angle + 0.3),
        (*center + 10 * along, 20, 120, angle),
        (*center + 40 * along, 20, 120, angle),
        (*center + 5000, 20, 120, angle),
    ]
    np.testing.assert_allclose(areas(rows), [2400, 2400, 1, 1200, 0, 0], atol=0.2)  # the coordinates round to 1/1000
    assert areas(rows)[4:].tolist() == [0, 0]


@pytest.mark.parametrize("angle", ANGLES[8:])
def test_rectangles_that_touch_have_nothing_in_common(areas, angle):
    """Around the origin, where the coordinates do not round."""
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-math.sin(angle), math.cos(angle)])
    rows = [(0, 0, 20, 120, angle), (*20 * along, 20, 120, angle), (*120 * across, 20, 120, angle)]
    assert areas(rows)[1:].tolist() == [0, 0]


def test_an_area_is_at_most_that_of_the_smaller_rectangle(areas):
    rng = np.random.default_rng(0)
    rows = np.column_stack([np.zeros((COUNT, 2)), rng.uniform(1, 50, (COUNT, 2)), np.full(COUNT, 0.7)])
    rows = rows.astype(np.float32)
    assert (areas(rows) <= np.minimum(rows[0, 2] * rows[0, 3], rows[:, 2] * rows[:, 3])).all()


def test_two_squares_at_45_degrees_share_an_octagon(areas):
    octagon = 8 * (math.sqrt(2) - 1)
    assert areas([(0, 0, 2, 2, 0), (0, 0, 2, 2, math.pi / 4)])[1] == pytest.approx(octagon, rel=1e-5)


def test_cosines_are_exact_at_multiples_of_90_degrees():
    quarters = np.arange(-40, 41)
    cos, sin = cos_and_sin(jnp.array(quarters * math.pi / 2, jnp.float32))
    np.testing.assert_array_equal(cos, np.array([1, 0, -1, 0])[quarters % 4])
    np.testing.assert_array_equal(sin, np.array([0, 1, 0, -1])[quarters % 4])


def test_small_angles_are_no_multiples_of_90_degrees():
    _, sin = cos_and_sin(jnp.array(1e-5))
    assert sin == pytest.approx(1e-5)


def test_the_reference_knows_half_a_square():
    square = (0, 0, 2, 2, 0.0)
    assert rectangle_intersection(square, (1, 0, 2, 2, 0.0)) == pytest.approx(2)
    assert rectangle_intersection(square, (0, 0, 9, 9, 0.4)) == pytest.approx(4)
    assert rectangle_corners((0, 0, 2, 4, math.pi / 2))[0] == pytest.approx((2, -1))
