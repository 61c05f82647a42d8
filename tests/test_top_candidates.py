"""Candidates of the top level of a pyramid: under a disk, or under the whole template."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax._pose_refinement import Poses
from cnn_jax._range_plan import plan_ranges
from cnn_jax._search_options import MatchOptions
from cnn_jax._top_candidates import is_allowed, lies_inside, top_candidates
from tests.helpers.oracles import noise

SIZE = (40, 50)


def smooth(seed, height, width):
    coarse = jnp.asarray(noise(seed, height // 3, width // 3, 1))
    return np.asarray(jax.image.resize(coarse, (height, width, 1), "cubic"))


IMAGE = smooth(0, *SIZE)


def best_pose(template, mask=None, allowed=None, angle_range=(-math.pi, math.pi), **options):
    chosen: dict[str, Any] = {"score": cnn.zncc, "ranking": "highest", "top_k": 1, "subpixel": True}
    match_options = MatchOptions(**chosen | {"per_feature": False, "min_visible": 1.0} | options)
    (plan,) = plan_ranges(
        template.shape[:2], SIZE, angles=(0.0,), scales=(1.0,), angle_range=angle_range, scale_range=None
    )
    run = jax.jit(lambda *arrays: top_candidates(*arrays, plan=plan, options=match_options))
    poses, ranks = run(jnp.asarray(IMAGE), jnp.asarray(template), mask, allowed)
    first = int(np.argmax(ranks))
    return [float(field[first]) for field in poses[:3]], float(ranks[first])


def check(pose, y, x, turn=0.0):
    np.testing.assert_allclose(pose[:2], [y, x], atol=1)
    assert abs(math.remainder(pose[2] - turn, 2 * math.pi)) < 0.1


def test_a_template_is_found_under_a_disk():
    pose, rank = best_pose(IMAGE[10:25, 20:36])
    check(pose, 17, 27.5)
    assert rank > 0.9
    pose, _ = best_pose(np.rot90(IMAGE[10:25, 20:36], 3).copy())
    check(pose, 17, 27.5, math.pi / 2)


@pytest.mark.parametrize(
    ("template", "options"),
    [
        (IMAGE[10:16, 16:40], {}),  # too long for a disk
        (IMAGE[10:16, 16:40], {"score": cnn.squared_difference, "ranking": "lowest"}),
    ],
)
def test_other_templates_and_scores_are_compared_whole(template, options):
    pose, _ = best_pose(template, **options)
    check(pose, 12.5, 27.5)


def test_masked_templates_are_compared_under_their_masks():
    mask = np.ones((15, 16, 1), np.float32)
    mask[:7, :8] = 0
    spoiled = np.where(mask == 0, 30, IMAGE[10:25, 20:36]).astype(np.float32)
    pose, rank = best_pose(spoiled, jnp.asarray(mask))
    check(pose, 17, 27.5)
    assert rank > 0.85


@pytest.mark.slow
def test_a_template_that_the_border_cuts_is_a_candidate_if_a_part_is_enough():
    scene = smooth(0, *SIZE)
    template = np.concatenate([smooth(9, 6, 18)[:6], scene[:9, 20:38]])  # 6 rows above the image
    pose, _ = best_pose(template, min_visible=0.5, angle_range=(-0.2, 0.2))
    check(pose, 1, 28.5)


def test_centers_lie_where_they_may():
    allowed = np.zeros(SIZE, bool)
    allowed[30:, :] = True
    pose, _ = best_pose(IMAGE[10:25, 20:36], allowed=jnp.asarray(allowed))
    assert pose[0] >= 29.5
    poses = Poses(*(jnp.asarray(values) for values in ([3.4, 29.6, -5.0], [0.0, 60.0, 2.0], [0.0] * 3, [0.0] * 3)))
    assert is_allowed(poses, jnp.asarray(allowed)).tolist() == [False, True, False]


def test_turned_templates_lie_inside_with_all_their_pixels():
    (plan,) = plan_ranges((10, 30), SIZE, angles=(0.0,), scales=(1.0,), angle_range=(0, 1), scale_range=None)
    quarter = math.pi / 2
    poses = Poses(
        *(jnp.asarray(values) for values in ([4.5, 4.4, 14.5, 14.4], [14.5, 14.5, 4.5, 4.5], [0, 0, quarter, quarter])),
        log_scale=jnp.zeros(4),
    )
    assert lies_inside(poses, plan, 1.0, SIZE, 1e-3).tolist() == [True, False, True, False]
