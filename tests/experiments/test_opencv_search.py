"""experiments._lib.opencv_search: both searches find what they are to be compared with."""

import math

import numpy as np
import pytest

from experiments._lib import find_poses, opencv_search
from experiments._lib.find_poses import SceneSize

cv2 = pytest.importorskip("cv2")
pytest.importorskip("skimage")


@pytest.mark.parametrize("scale_range", [(1.0, 1.0), (0.8, 1.2)])
def test_a_pyramid_finds_poses_between_pixels_and_degrees(scale_range):
    size = SceneSize((160, 200), (52, 60), scale_range=scale_range)
    for case in find_poses.pose_cases(size, 1, 1):
        found = opencv_search.pyramid_search(cv2, case.image, case.template, scale_range)
        error = find_poses.pose_error(found, case.truth)
        assert error.is_right
        assert error.pixels < 0.2
        assert error.degrees < 0.2
        assert found.score > 0.9


def test_the_loop_finds_a_quarter_turn_exactly():
    scene = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    template = np.ascontiguousarray(np.rot90(scene[10:21, 20:29], -1))  # (9, 11); it appears turned by +90 degrees
    poses = opencv_search.loop_search(cv2, scene, template, [0.0, math.pi / 2, math.pi])
    assert (poses[0].y, poses[0].x, poses[0].angle) == (15, 24, math.pi / 2)
    assert poses[0].score == pytest.approx(1, abs=1e-3)
    assert [pose.score for pose in poses] == sorted((pose.score for pose in poses), reverse=True)


def test_templates_that_do_not_fit_have_the_lowest_score():
    image = np.random.default_rng(0).integers(0, 256, (20, 20)).astype(np.uint8)
    poses = opencv_search.loop_search(cv2, image, image[:19, :15], [0.0, math.pi / 4])
    assert [pose.score for pose in poses] == [pytest.approx(1, abs=1e-3), -1]


def test_several_places_of_an_angle_are_apart():
    template = np.random.default_rng(0).integers(0, 256, (9, 9)).astype(np.uint8)
    image = np.full((30, 40), 100, np.uint8)
    image[2:11, 3:12] = template
    image[15:24, 20:29] = template
    poses = opencv_search.loop_search(cv2, image, template, [0.0], count=3)
    assert {(pose.y, pose.x) for pose in poses[:2]} == {(6, 7), (19, 24)}
    assert poses[2].score < 0.9


def test_the_top_of_a_parabola():
    assert opencv_search.parabola_top([-((i - 0.3) ** 2) for i in (-1, 0, 1)]) == pytest.approx(0.3)
    assert opencv_search.parabola_top([0, 1, 2.9]) == 0  # curved upward
    assert opencv_search.parabola_top([0, 3, 5]) == 1
