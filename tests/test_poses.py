"""Templates scaled and rotated on canvases, against NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._poses import draw_templates, make_pose_table, plan_poses, rotation_grid, scale_with_masks
from tests.helpers.oracles import noise, posed_template, scaling_weights, whole

QUARTER_TURNS = [i * math.pi / 2 for i in range(4)]
ANY_SIZE = (1000, 1000)


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
    table = make_pose_table(np.array([[5, 8]]), [scale], [angle])
    assert (tuple(table.size[0, 0]), tuple(table.box[0, 0])) == (size, box)


def test_a_scale_too_large_for_any_image_gives_a_box_too_large_for_any():
    assert make_pose_table(np.array([[5, 8]]), [1e300], [0.3]).box.min() >= 2**30


def test_poses_that_fit_nowhere_are_dropped_and_those_of_one_scale_are_consecutive():
    table, canvases = plan_poses(np.array([[4, 8]]), (9, 9), [1.1, 1.0, 2.0], [0.0, math.pi / 4, math.pi / 2])
    poses = [(scale, tuple(box)) for scale, box in zip(table.scale, table.box, strict=True)]
    assert poses == [(1.1, (4, 9)), (1.1, (9, 9)), (1.1, (9, 4)), (1.0, (4, 8)), (1.0, (8, 8)), (1.0, (8, 4))]
    (canvas,) = canvases
    assert (canvas.size, canvas.smallest_box, canvas.scale_starts, canvas.stop) == ((9, 9), (4, 4), (0, 3), 6)


def test_no_pose_has_no_canvas():
    assert plan_poses(np.array([[4, 8]]), (3, 9), [1.0], [0.0])[1] == ()


def plan(sizes, scales=(1.0,), angles=(0.0,)):
    return plan_poses(np.array(sizes), ANY_SIZE, scales, angles)[1]


def test_templates_that_fill_their_canvas_need_no_mask():
    assert [canvas.is_identity for canvas in plan([(4, 8)])] == [True]
    assert [canvas.is_filled for canvas in plan([(5, 5)], angles=QUARTER_TURNS)] == [True]
    assert [canvas.is_filled for canvas in plan([(4, 8)], angles=QUARTER_TURNS)] == [False]
    assert [canvas.is_filled for canvas in plan([(5, 5)], angles=(0.0, 1.0))] == [False]
    assert [canvas.is_filled for canvas in plan([(4, 8), (5, 8)])] == [False]


def test_few_scales_have_a_canvas_each_and_many_share_some():
    assert [canvas.size for canvas in plan([(10, 20)], [1.0, 2.0])] == [(20, 40), (10, 20)]
    assert [canvas.size for canvas in plan([(10, 20)], [1.0, 1.5, 2.0])] == [(20, 40)]
    canvases = plan([(10, 20)], [1.0, 2.0, 4.0, 8.0, 16.0])
    assert [(canvas.size, canvas.scale_starts) for canvas in canvases] == [
        ((160, 320), (0, 1, 2)),
        ((20, 40), (3, 4)),
    ]


@pytest.mark.parametrize("turns", range(4))
def test_grids_of_quarter_turns_hit_all_pixels(turns):
    table, (canvas,) = plan_poses(np.array([[3, 4]]), ANY_SIZE, [1.0], [QUARTER_TURNS[turns]])
    table = jax.tree.map(jnp.asarray, table)
    grid = rotation_grid(table.cos[0], table.sin[0], table.size[0], table.box[0], canvas.size)
    rows, columns, inside = map(np.asarray, grid)
    assert inside.all()
    pixels = np.arange(12).reshape(3, 4)[rows.astype(int), columns.astype(int)]
    np.testing.assert_array_equal(pixels, np.rot90(np.arange(12).reshape(3, 4), turns))


def test_the_middle_pixels_of_box_and_canvas_coincide():
    _, _, inside = rotation_grid(jnp.float32(1), jnp.float32(0), jnp.array([3, 4]), jnp.array([3, 4]), (7, 9))
    assert np.argwhere(inside).min(axis=0).tolist() == [2, 3]
    assert np.argwhere(inside).max(axis=0).tolist() == [4, 6]


def draw(templates, masks, sizes, scales, angles):
    """All poses of templates: the table, the canvas, the drawings and their masks."""
    table, (canvas,) = plan_poses(np.array(sizes), ANY_SIZE, scales, angles)

    @jax.jit
    def drawings(templates, masks, table):
        scaled = scale_with_masks(templates, masks, jnp.array(sizes), table, canvas)
        return jax.vmap(lambda pose: draw_templates(scaled, table, canvas, pose))(jnp.arange(canvas.stop))

    return table, canvas, *jax.device_get(drawings(templates, masks, table))


def placed(image, canvas_size):
    """A drawing on its own box, on a canvas, the middle pixels coinciding; 0 elsewhere."""
    out = np.zeros((*canvas_size, *image.shape[2:]))
    top, left = ((n - 1) // 2 - (side - 1) // 2 for n, side in zip(canvas_size, image.shape[:2], strict=True))
    out[top : top + image.shape[0], left : left + image.shape[1]] = image
    return out


def test_quarter_turns_are_exact_and_share_a_mask():
    templates = whole(0, 2, 3, 4)
    _, canvas, drawn, mask = draw(templates, None, [(3, 4)] * 2, [1.0], QUARTER_TURNS)
    assert mask.shape == (4, 4, 4)
    for turns in range(4):
        inside = placed(np.rot90(np.ones((3, 4)), turns), canvas.size) > 0
        np.testing.assert_array_equal(mask[turns], inside)
        for template, got in zip(templates, drawn[turns], strict=True):
            np.testing.assert_array_equal(np.where(inside, got, 0), placed(np.rot90(template, turns), canvas.size))


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_masks_turn_with_their_templates(dtype):
    templates = whole(0, 2, 3, 4)
    masks = (whole(1, 2, 3, 4) > 0).astype(dtype)
    unmasked = np.where(masks != 0, templates, np.nan).astype(np.float32)
    _, canvas, drawn, drawn_masks = draw(unmasked, masks, [(3, 4)] * 2, [1.0], QUARTER_TURNS)
    assert drawn_masks.dtype == dtype
    for turns in range(4):
        for k, (template, mask) in enumerate(zip(templates, masks, strict=True)):
            want = placed(np.rot90(mask, turns).astype(np.float32), canvas.size)
            np.testing.assert_array_equal(drawn_masks[turns, k].astype(np.float32), want)
            seen = np.where(want > 0, drawn[turns, k], 0)
            np.testing.assert_array_equal(seen, placed(np.rot90(np.where(mask != 0, template, 0), turns), canvas.size))


def test_templates_of_several_sizes_and_scales_share_a_canvas_and_are_drawn_as_alone():
    sizes = [(6, 5), (4, 7)]
    templates = np.zeros((2, 6, 7, 3), np.float32)
    for k, (height, width) in enumerate(sizes):
        templates[k, :height, :width] = noise(k, height, width, 3)
    table, canvas, drawn, masks = draw(templates, None, sizes, [0.6, 1.0, 1.7], [0.0, 0.7, 2.0])
    for k, (height, width) in enumerate(sizes):
        for pose, (scale, angle) in enumerate(zip(table.scale, table.angle, strict=True)):
            want, counted = posed_template(templates[k, :height, :width].astype(np.float64), None, scale, angle)
            np.testing.assert_array_equal(masks[pose, k], placed(counted, canvas.size) > 0)
            seen = np.where(masks[pose, k], drawn[pose, k], 0)
            np.testing.assert_allclose(seen, placed(np.where(counted, want, 0), canvas.size), rtol=0, atol=2e-6)


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.3])
def test_scaling_is_that_of_jax_about_the_center(scale):
    """In float64: JAX rounds its matrix product differently."""
    template = noise(0, 9, 9)
    size = round(9 * scale)
    weights = scaling_weights(9, size, scale)
    shift = np.full(2, (size - 9 * scale) / 2, np.float32)
    factor = np.full(2, scale, np.float32)
    want = jax.image.scale_and_translate(template, (size, size), (0, 1), factor, shift, "linear", antialias=True)
    np.testing.assert_allclose(weights @ template @ weights.T, want, rtol=0, atol=2e-6)


def test_a_constant_template_stays_constant_at_every_scale_and_angle():
    _, _, drawn, mask = draw(np.full((1, 6, 7), 0.3, np.float32), None, [(6, 7)], [1.5], [0.4])
    np.testing.assert_allclose(drawn[0, 0][mask[0]], 0.3, rtol=1e-6)
    assert mask.sum() == pytest.approx(9 * 10, abs=4)
