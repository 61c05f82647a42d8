"""experiments._lib.pose_searches: each search in one form."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from experiments._lib import pose_searches
from experiments._lib.find_poses import Pose, SceneSize

SIZE = SceneSize((30, 40), (5, 6), scale_range=(0.8, 1.25))


class FakeMatches(NamedTuple):
    y: jnp.ndarray
    x: jnp.ndarray
    height: jnp.ndarray
    width: jnp.ndarray
    angle: jnp.ndarray
    scale: jnp.ndarray
    score: jnp.ndarray
    valid: jnp.ndarray


def test_find_gets_the_ranges_and_gives_the_center(monkeypatch):
    given = {}

    def find(image, template, *, min_score, **options):
        given.update(options)
        numbers = [jnp.array([value]) for value in (2.0, 3.0, 5.0, 6.0, 0.5, 1.1, 0.75)]
        return FakeMatches(*numbers, valid=jnp.array([min_score]) <= 0.75)

    monkeypatch.setattr(pose_searches.cnn_jax, "find", find)
    search = pose_searches.find_search(SIZE, {})
    pixels = np.zeros((5, 6), np.uint8)
    assert search(pixels, pixels, 0.5) == pytest.approx(Pose(4.0, 5.5, 0.5, 1.1, 0.75))
    assert search(pixels, pixels, 0.8) is None
    assert given == {"top_k": 1, "angle_range": (-math.pi, math.pi), "scale_range": (0.8, 1.25)}
    given.clear()
    pose_searches.find_search(SIZE._replace(scale_range=(1.0, 1.0)), {})(pixels, pixels, 0.5)
    assert "scale_range" not in given


@pytest.mark.parametrize("name", ["opencv-pyramid", "opencv-loop"])
def test_opencv_searches_leave_out_low_scores(name):
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    template = np.ascontiguousarray(image[4:9, 10:16])
    search = pose_searches.SEARCHES[name](SIZE._replace(scale_range=(1.0, 1.0)), {"opencv": cv2})
    found = search(image, template, 0.5)
    assert found is not None
    assert (found.y, found.x) == pytest.approx((6, 12.5), abs=0.6)
    assert search(image, template, 1.1) is None
