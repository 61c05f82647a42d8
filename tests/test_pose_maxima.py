"""The best pose at every pixel, against one score map a pose."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax._pose_maxima import PoseMaxima, best_poses, keep_best_pose
from cnn_jax._poses import make_pose
from tests.helpers.oracles import noise


@pytest.fixture(scope="module")
def maxima_and_maps():
    """The best of four quarter turns of two templates, and the score map of every one, centered."""
    image, templates = noise(0, 12, 13), noise(1, 2, 3, 4)
    poses = [make_pose((3, 4), 1.0, turns * math.pi / 2) for turns in range(4)]

    @jax.jit
    def both(image, templates):
        maxima = best_poses(image, templates, None, poses, cnn.match)
        turned = [jnp.rot90(templates, turns, axes=(1, 2)) for turns in range(4)]
        return maxima, [jax.vmap(lambda template: cnn.match(image, template))(bank) for bank in turned]

    maxima, maps = both(image, templates)
    centered = np.full((4, 2, 12, 13), -np.inf, np.float32)
    for turns, scores in enumerate(maps):
        top, left = ((side - 1) // 2 for side in poses[turns].box)
        centered[turns, :, top : top + scores.shape[1], left : left + scores.shape[2]] = scores
    return maxima, centered


def test_the_highest_score_of_all_poses_is_kept_at_every_pixel(maxima_and_maps):
    maxima, maps = maxima_and_maps
    np.testing.assert_allclose(maxima.score, maps.max(axis=0), rtol=0, atol=1e-6)


def test_the_pose_kept_is_that_of_the_highest_score(maxima_and_maps):
    maxima, maps = maxima_and_maps
    is_finite = np.isfinite(maps.max(axis=0))
    np.testing.assert_array_equal(maxima.pose[is_finite], maps.argmax(axis=0)[is_finite])


def test_offsets_are_those_of_the_pose_that_is_kept():
    shape = (1, 5, 5)
    first = PoseMaxima(jnp.full(shape, 0.5), jnp.zeros(shape, jnp.int32), jnp.zeros(shape), jnp.zeros(shape))
    scores = jnp.zeros(shape).at[0, 2, 1:4].set(jnp.array([0.0, 1.0, 0.5]))
    step = jnp.zeros((1, 1, 1)), None, jnp.array([1, 1]), jnp.int32(7)
    kept, _ = jax.jit(lambda first, step: keep_best_pose(lambda *_: scores, first, step))(first, step)
    assert jnp.argwhere(kept.pose == 7).tolist() == [[0, 2, 2]]
    assert (float(kept.score[0, 2, 2]), float(kept.score[0, 0, 0])) == (1, 0.5)
    assert float(kept.dx[0, 2, 2]) == pytest.approx(1 / 6)


def test_a_score_that_skips_positions_is_refused():
    def every_other(image, feature, *, mask=None):
        return cnn.match(image, feature, mask=mask, stride=2)

    with pytest.raises(ValueError, match="score: expected maps of all positions"):
        best_poses(jnp.ones((6, 6)), jnp.ones((1, 2, 2)), None, [make_pose((2, 2), 1.0, 0.0)], every_other)
