"""The part of an image in which `find` searches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._region import Rectangle, allowed_pixels, check_region, cut_out, is_reachable, searched_part
from tests.helpers.oracles import noise

SIZE = (20, 30)


@pytest.mark.parametrize(
    ("region", "error", "message"),
    [
        ((0, 0, 0, 5), ValueError, "region: expected at least 1, got 0"),
        ((-1, 0, 5, 5), ValueError, "region: expected at least 0, got -1"),
        ((0, 26, 5, 5), ValueError, r"region: expected a part of the image of shape \(20, 30\), got \(0, 26, 5, 5\)"),
        ((0, 0, 5), ValueError, "region: expected .top, left, height, width."),
        ((0, 0, 5.0, 5), TypeError, "region: expected an int, got 5.0"),
        ("all", TypeError, "region: expected .top, left, height, width. .* got 'all'"),
        (np.ones(SIZE), TypeError, "region: .* got an array of float64; compare it"),
        (
            np.ones((20, 29), bool),
            ValueError,
            r"region: expected a mask of the image's shape \(20, 30\), got \(20, 29\)",
        ),
        (np.zeros(SIZE, bool), ValueError, "region: expected a mask that is true somewhere"),
        (jnp.zeros(SIZE, bool), ValueError, "region: expected a mask that is true somewhere"),
    ],
)
def test_wrong_regions_are_named(region, error, message):
    with pytest.raises(error, match=message):
        check_region(region, SIZE)


def test_regions_are_rectangles_or_masks():
    mask = np.ones(SIZE, bool)
    assert check_region(None, SIZE) is None
    assert check_region([1, 2, 3, 4], SIZE) == Rectangle(1, 2, 3, 4)
    assert check_region(mask, SIZE) is mask
    jax.eval_shape(lambda mask: check_region(mask, SIZE), jnp.zeros(SIZE, bool))


@pytest.mark.parametrize("margin", [(0, 0), (4, 6)])
@pytest.mark.parametrize("region", [(0, 0, 1, 1), (8, 9, 3, 4), (19, 2, 1, 28)])
def test_the_part_holds_all_boxes_around_a_rectangle_and_allows_its_pixels(region, margin):
    box = (5, 7)
    image = noise(0, *SIZE)
    part, size = searched_part(Rectangle(*region), SIZE, box, margin)
    padded = np.pad(image, [(side, side) for side in margin])
    top, left = part.origin + margin
    expected = padded[top : top + size[0], left : left + size[1]]
    np.testing.assert_array_equal(jax.jit(cut_out, static_argnums=(2, 3))(image, part, size, margin), expected)
    rows, columns = np.nonzero(allowed_pixels(part, size, margin))
    assert (rows.min() + part.origin[0], columns.min() + part.origin[1]) == region[:2]
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == region[2:]
    for axis in (0, 1):
        first = region[axis] - (box[axis] - 1) // 2 - 1
        end = region[axis] + region[axis + 2] + box[axis] // 2 + 1
        assert part.origin[axis] == max(first, -margin[axis])
        assert part.origin[axis] + size[axis] == min(end, SIZE[axis] + margin[axis])


def test_a_mask_allows_its_pixels_and_none_in_the_margin():
    mask = noise(0, *SIZE) > 0
    part, size = searched_part(mask, SIZE, (5, 7), (2, 3))
    assert size == (24, 36)
    np.testing.assert_array_equal(allowed_pixels(part, size, (2, 3)), np.pad(mask, ((2, 2), (3, 3))))


def test_without_a_region_all_pixels_are_allowed():
    part, size = searched_part(None, SIZE, (5, 7), (4, 6))
    assert (part.origin.tolist(), size) == ([-4, -6], (28, 42))
    assert allowed_pixels(part, size, (4, 6)).all()


BOXES = [[5, 9], [7, 7], [9, 5], [9, 9], [6, 30], [5, 9]]


def middle_pixels(boxes):
    """Where the middle pixels of boxes inside of the image can lie."""
    reached = np.zeros(SIZE, bool)
    for rows, columns in boxes:
        for top in range(SIZE[0] - rows + 1):
            for left in range(SIZE[1] - columns + 1):
                reached[top + (rows - 1) // 2, left + (columns - 1) // 2] = True
    return reached


@pytest.mark.parametrize("boxes", [BOXES, BOXES[1:2], [[20, 30]], [[21, 3]]])
def test_a_region_is_reachable_if_it_holds_a_middle_pixel_of_a_box_inside_of_the_image(boxes):
    reached = middle_pixels(boxes)
    for y, x in np.ndindex(SIZE):
        mask = np.zeros(SIZE, bool)
        mask[y, x] = True
        want = bool(reached[y, x])
        assert is_reachable(Rectangle(y, x, 1, 1), SIZE, np.array(boxes)) is want
        assert is_reachable(mask, SIZE, np.array(boxes)) is want
    assert is_reachable(Rectangle(0, 0, *SIZE), SIZE, np.array(boxes)) is bool(reached.any())
    unreached = jnp.asarray(~reached)
    assert not is_reachable(unreached, SIZE, np.array(boxes))


def test_a_tolerance_widens_what_is_reachable():
    box = np.array([[7, 7]])
    assert not is_reachable(Rectangle(0, 0, 3, 3), SIZE, box)
    assert is_reachable(Rectangle(0, 0, 3, 3), SIZE, box, tolerance=1)
    assert not is_reachable(Rectangle(0, 0, 1, 1), SIZE, box, tolerance=2)


def test_a_mask_of_unknown_values_counts_as_reachable():
    box = np.array([[7, 7]])
    jax.eval_shape(lambda mask: jnp.asarray(is_reachable(mask, SIZE, box)), jnp.zeros(SIZE, bool))
    assert jax.jit(lambda mask: jnp.asarray(is_reachable(mask, SIZE, box)))(jnp.zeros(SIZE, bool))
