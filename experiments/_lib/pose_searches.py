"""The searches that `experiments.poses` compares, in one form: the best pose of a template in an image."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

import cnn_jax
from cnn_jax.search import default_min_score

from . import opencv_search
from .find_poses import Pose, SceneSize, Search

OPENCV_MIN_SCORE = 0.5
ANY_SCORE = -1.0  # the lowest score of `cnn_jax.zncc`
LOOP_STEP_PIXELS = 2.0  # that the end of a template's longer side moves from one angle or scale to the next


def find_search(size: SceneSize, modules: Mapping[str, Any]) -> Search:
    """`cnn_jax.find` at all angles, and at all scales of the range, jitted; with its default lowest score."""
    ranges: dict[str, Any] = {"angle_range": (-math.pi, math.pi)}
    if size.has_scales:
        ranges["scale_range"] = size.scale_range
    find = jax.jit(functools.partial(cnn_jax.find, top_k=1, min_score=ANY_SCORE, **ranges))

    def search(image: np.ndarray, template: np.ndarray) -> Pose | None:
        return best_pose(jax.device_get(find(image, template)))

    return Search(search, default_min_score(**ranges))


def best_pose(matches: cnn_jax.Matches) -> Pose | None:
    """The pose of the best match."""
    if not matches.valid[0]:
        return None
    y, x = matches.center[0].tolist()
    return Pose(y, x, float(matches.angle[0]), float(matches.scale[0]), float(matches.score[0]))


def opencv_pyramid(size: SceneSize, modules: Mapping[str, Any]) -> Search:
    """A search on a pyramid with OpenCV."""

    def search(image: np.ndarray, template: np.ndarray) -> Pose:
        return opencv_search.pyramid_search(modules["opencv"], image, template, size.scale_range)

    return Search(search, OPENCV_MIN_SCORE)


def opencv_loop(size: SceneSize, modules: Mapping[str, Any]) -> Search:
    """A masked matchTemplate for every angle and scale: minutes for a large image."""
    step = math.atan(LOOP_STEP_PIXELS / max(size.template))
    angles = np.linspace(-math.pi, math.pi, math.ceil(2 * math.pi / step), endpoint=False).tolist()
    scale_count = 1 + math.ceil(math.log(size.scale_range[1] / size.scale_range[0]) / step)
    scales = np.geomspace(*size.scale_range, scale_count).tolist()

    def search(image: np.ndarray, template: np.ndarray) -> Pose:
        return opencv_search.loop_search(modules["opencv"], image, template, angles, scales)[0]

    return Search(search, OPENCV_MIN_SCORE)


SEARCHES: Mapping[str, Callable[[SceneSize, Mapping[str, Any]], Search]] = {
    "find": find_search,
    "opencv-pyramid": opencv_pyramid,
    "opencv-loop": opencv_loop,
}
