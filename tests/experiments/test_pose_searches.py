"""experiments._lib.pose_searches: each search in one form."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax
from experiments._lib import pose_searches
from experiments._lib.find_poses import Pose, SceneSize

SIZE = SceneSize((30, 40), (5, 6), scale_range=(0.8, 1.25))


def make_matches(valid):
    numbers = [jnp.array([value]) for value in (2.0, 3.0, 0.75, 0.0, 1.1, 0.5, 5.0, 6.0)]
    rest = [jnp.array([valid]), jnp.array([4.0]), jnp.array([5.0]), jnp.array(int(valid))]
    return cnn_jax.Matches(*numbers, *rest)


def test_find_gets_the_ranges_and_gives_the_center(monkeypatch):
    given = {}

    def find(image, template, **options):
        given.update(options)
        return make_matches(valid=True)

    monkeypatch.setattr(pose_searches.cnn_jax, "find", find)
    pixels = np.zeros((5, 6), np.uint8)
    assert pose_searches.find_search(SIZE, {}).best_pose(pixels, pixels) == pytest.approx(
        Pose(4.0, 5.5, 0.5, 1.1, 0.75)
    )
    assert given == {"top_k": 1, "min_score": -1, "angle_range": (-math.pi, math.pi), "scale_range": (0.8, 1.25)}
    given.clear()
    pose_searches.find_search(SIZE._replace(scale_range=(1.0, 1.0)), {}).best_pose(pixels, pixels)
    assert "scale_range" not in given


def test_no_match_has_no_pose():
    assert pose_searches.best_pose(make_matches(valid=False)) is None


@pytest.mark.parametrize("name", ["opencv-pyramid", "opencv-loop"])
def test_opencv_searches_find_a_template(name):
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    template = np.ascontiguousarray(image[4:9, 10:16])
    search = pose_searches.SEARCHES[name](SIZE._replace(scale_range=(1.0, 1.0)), {"opencv": cv2})
    found = search.best_pose(image, template)
    assert found is not None
    assert (found.y, found.x) == pytest.approx((6, 12.5), abs=0.6)
    assert search.min_score == pose_searches.OPENCV_MIN_SCORE < found.score
