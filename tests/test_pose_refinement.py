"""Gauss-Newton steps that find the pose at which a template was cut from a smooth image."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._aligned_scores import zncc
from cnn_jax._pose_refinement import (
    Freedom,
    Limits,
    Poses,
    StepRules,
    make_template_level,
    refine_poses,
    with_gradients,
)

ALL_FREE = Freedom(True, True)
FREE = Limits((-math.inf, math.inf), (-1.0, 1.0))
CENTER = (9.0, 11.5)
TRUTH = Poses(*(jnp.asarray(value) for value in (30.3, 33.8, 0.7, 0.08)))


def smooth_image(y, x, channels=1):
    """An image with no period, at any coordinates."""
    waves = [np.sin(0.31 * y + 0.11 * x + c) + np.cos(0.23 * x - 0.17 * y + 0.002 * x * y + c) for c in range(channels)]
    return np.stack(waves, -1).astype(np.float32)


def template_at(pose, channels=1):
    """The image of `smooth_image` seen from a pose, 19 x 24 pixels."""
    down, right = np.indices((19, 24)) - np.reshape(CENTER, (2, 1, 1))
    scale = math.exp(float(pose.log_scale))
    cos, sin = scale * math.cos(pose.angle), scale * math.sin(pose.angle)
    return smooth_image(float(pose.y) + cos * down - sin * right, float(pose.x) + sin * down + cos * right, channels)


ROWS, COLUMNS = np.indices((60, 70))
IMAGE = smooth_image(ROWS, COLUMNS)


def refine(start, template, freedom=ALL_FREE, limits=FREE, image=IMAGE, weights=None, is_partial=False):
    weights = np.ones_like(template) if weights is None else weights

    @jax.jit
    def run(image, start, template, weights):
        level = make_template_level(template, weights, CENTER, freedom, 1)
        poses = Poses(*(field[None] for field in start))

        def rank(patch, is_inside):
            return jnp.abs(zncc(patch, level.values, jnp.where(is_inside[:, None], level.weights, 0)))

        out, _ = refine_poses(image, poses, level, rank, StepRules(freedom, limits, is_partial), 12)
        return Poses(*(field[0] for field in out))

    return run(jnp.asarray(image), start, jnp.asarray(template), jnp.asarray(weights))


def shifted(y=0.0, x=0.0, angle=0.0, log_scale=0.0):
    return Poses(TRUTH.y + y, TRUTH.x + x, TRUTH.angle + angle, TRUTH.log_scale + log_scale)


@pytest.mark.parametrize("gain", [1.0, 0.3, -2.0, 1e7, -1e-7])
def test_the_pose_is_found_whatever_the_brightness_and_contrast(gain):
    got = refine(shifted(0.9, -0.8, 0.06, -0.05), gain * (template_at(TRUTH) + 40))
    np.testing.assert_allclose(got, TRUTH, atol=0.02)


def test_color_channels_are_compared_together():
    image = smooth_image(*np.indices((60, 70)), channels=3) + np.array([100, 0, -50], np.float32)
    got = refine(shifted(0.9, -0.8, 0.06, -0.05), template_at(TRUTH, 3), image=image)
    np.testing.assert_allclose(got, TRUTH, atol=0.02)


def test_what_is_not_free_stays():
    start = shifted(0.9, -0.8)
    got = refine(start, template_at(TRUTH), freedom=Freedom(False, False))
    assert (float(got.angle), float(got.log_scale)) == (float(start.angle), float(start.log_scale))
    np.testing.assert_allclose([got.y, got.x], [TRUTH.y, TRUTH.x], atol=0.02)


def test_poses_stay_within_the_limits():
    start = shifted(0.2, angle=0.05, log_scale=-0.05)
    got = refine(start, template_at(TRUTH), limits=Limits((0.71, 0.9), (-0.1, 0.05)))
    assert float(got.angle) == pytest.approx(0.71, abs=1e-6)
    assert float(got.log_scale) == pytest.approx(0.05, abs=1e-6)


def test_pixels_without_weight_do_not_count():
    template = template_at(TRUTH)
    weights = np.ones_like(template)
    weights[5:9, 4:11] = 0
    template[5:9, 4:11] = 50
    got = refine(shifted(0.9, -0.8, 0.06), template, weights=weights)
    np.testing.assert_allclose(got, TRUTH, atol=0.02)


def test_pixels_outside_of_the_image_do_not_count_if_a_part_is_enough():
    edge = Poses(*(jnp.asarray(value) for value in (5.3, 33.8, 0.7, 0.0)))
    start = edge._replace(y=edge.y + 0.7, x=edge.x - 0.6)
    got = refine(start, template_at(edge), is_partial=True)
    np.testing.assert_allclose(got, edge, atol=0.03)


def test_a_flat_template_stays_where_it_is():
    start = shifted(0.5)
    got = refine(start, np.full((19, 24, 1), 3.0, np.float32))
    np.testing.assert_allclose(got, start, atol=1e-3)


def test_sampled_patches_are_interpolated_and_know_what_is_inside():
    level = make_template_level(jnp.asarray(template_at(TRUTH)), jnp.ones((19, 24, 1)), CENTER, Freedom(True, True), 1)
    patch, is_inside = level.sample(jnp.asarray(IMAGE), TRUTH)
    np.testing.assert_allclose(patch.reshape(19, 24, 1), template_at(TRUTH), atol=0.03)
    assert is_inside.all()
    corner = Poses(*(jnp.asarray(value) for value in (0.0, 0.0, 0.0, 0.0)))
    _, is_inside = level.sample(jnp.asarray(IMAGE), corner)
    down, right = np.indices((19, 24)) - np.reshape(CENTER, (2, 1, 1))
    np.testing.assert_array_equal(is_inside.reshape(19, 24), (down >= 0) & (right >= -0.5))


def test_bytes_are_sampled_as_numbers():
    level = make_template_level(jnp.ones((2, 2, 1)), jnp.ones((2, 2, 1)), (0.5, 0.5), Freedom(False, False), 1)
    pose = Poses(*(jnp.asarray(value) for value in (1.0, 1.5, 0.0, 0.0)))
    patch, _ = level.sample(jnp.arange(12, dtype=jnp.uint8).reshape(3, 4, 1), pose)
    np.testing.assert_allclose(patch[:, 0], [3, 4, 7, 8])


def test_gradients_are_those_of_the_pose_that_fits_best():
    template = jnp.asarray(template_at(TRUTH))

    @jax.jit
    @jax.value_and_grad
    def row(shift):
        level = make_template_level(template, jnp.ones_like(template), CENTER, ALL_FREE, 1)
        image = jnp.asarray(IMAGE) - shift * jnp.asarray(np.gradient(IMAGE, axis=0))
        start = Poses(*(field[None] for field in TRUTH))
        return with_gradients(image, start, level, StepRules(ALL_FREE, FREE, False)).y[0]

    y, slope = row(0.0)
    assert y == TRUTH.y
    assert slope == pytest.approx(1, abs=0.05)
