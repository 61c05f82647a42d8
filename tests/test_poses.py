"""Templates scaled and rotated."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._poses import make_pose, rotate_templates, rotation_grid
from tests.helpers.oracles import noise, whole

QUARTER_TURNS = [i * math.pi / 2 for i in range(4)]


@pytest.mark.parametrize(
    ("scale", "angle", "size", "box"),
    [
        (1.0, 0.0, (5, 8), (5, 8)),
        (2.0, 0.0, (10, 16), (10, 16)),
        (0.01, 0.0, (1, 1), (1, 1)),
        (1.0, math.pi / 2, (5, 8), (8, 5)),
        (1.0, -math.pi, (5, 8), (5, 8)),
        (1.0, math.pi / 4, (5, 8), (9, 9)),
    ],
)
def test_a_pose_has_the_size_at_its_scale_and_the_box_at_its_angle(scale, angle, size, box):
    pose = make_pose((5, 8), scale, angle)
    assert (pose.scale, pose.angle, pose.size, pose.box) == (scale, angle, size, box)


def test_a_scale_too_large_for_any_image_gives_a_box_too_large_for_any():
    assert min(make_pose((5, 8), 1e300, 0.3).box) >= 2**31


@pytest.mark.parametrize("turns", range(4))
def test_grids_of_quarter_turns_hit_all_pixels(turns):
    pose = make_pose((3, 4), 1.0, QUARTER_TURNS[turns])
    grid = rotation_grid(pose, pose.box)
    assert grid.inside.all()
    pixels = np.arange(12).reshape(3, 4)[grid.rows.astype(int), grid.columns.astype(int)]
    np.testing.assert_array_equal(pixels, np.rot90(np.arange(12).reshape(3, 4), turns))


def test_the_middle_pixels_of_box_and_canvas_coincide():
    grid = rotation_grid(make_pose((3, 4), 1.0, 0.0), (7, 9))
    assert np.argwhere(grid.inside).min(axis=0).tolist() == [2, 3]
    assert np.argwhere(grid.inside).max(axis=0).tolist() == [4, 6]


@jax.jit
def quarter_turned(templates, masks):
    return rotate_templates(templates, masks, [make_pose((3, 4), 1.0, angle) for angle in QUARTER_TURNS], (4, 4))


def placed(image):
    """A rotated (3, 4) image on a canvas of (4, 4), the middle pixels coinciding."""
    out = np.zeros((4, 4), np.float32)
    top, left = ((3 - (side - 1)) // 2 for side in image.shape)
    out[top : top + image.shape[0], left : left + image.shape[1]] = image
    return out


def test_quarter_turns_are_exact_and_share_a_mask():
    templates = whole(0, 2, 3, 4)
    rotated, mask = quarter_turned(templates, None)
    for turns in range(4):
        inside = placed(np.rot90(np.ones((3, 4)), turns)) > 0
        np.testing.assert_array_equal(mask[turns], inside)
        for template, got in zip(templates, rotated[turns], strict=True):
            np.testing.assert_array_equal(jnp.where(inside, got, 0), placed(np.rot90(template, turns)))


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_masks_turn_with_their_templates(dtype):
    templates = whole(0, 2, 3, 4)
    masks = (whole(1, 2, 3, 4) > 0).astype(dtype)
    rotated, rotated_masks = quarter_turned(np.where(masks != 0, templates, np.nan).astype(np.float32), masks)
    assert rotated_masks.dtype == dtype
    for turns in range(4):
        for k, (template, mask) in enumerate(zip(templates, masks, strict=True)):
            want = placed(np.rot90(mask, turns).astype(np.float32))
            np.testing.assert_array_equal(rotated_masks[turns, k].astype(jnp.float32), want)
            seen = jnp.where(want > 0, rotated[turns, k], 0)
            np.testing.assert_array_equal(seen, placed(np.rot90(np.where(mask != 0, template, 0), turns)))


def test_templates_that_fill_the_canvas_need_no_mask():
    templates = noise(0, 2, 3, 4)
    rotated, mask = rotate_templates(jnp.asarray(templates), None, [make_pose((3, 4), 1.0, 0.0)], (3, 4))
    assert mask is None
    np.testing.assert_array_equal(rotated, templates[None])


def test_a_constant_template_stays_constant_at_every_scale_and_angle():
    pose = make_pose((6, 7), 1.5, 0.4)
    rotate = jax.jit(lambda templates: rotate_templates(templates, None, [pose], pose.box))
    rotated, mask = jax.device_get(rotate(np.full((1, 6, 7), 0.3, np.float32)))
    np.testing.assert_allclose(rotated[0, 0][mask[0]], 0.3, rtol=1e-6)
    assert mask.sum() == pytest.approx(9 * 10, abs=4)
