"""The searches that `experiments.poses` compares, in one form: the best pose of a template in an image."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

import cnn_jax

from . import opencv_search
from .find_poses import Pose, SceneSize, Search

LOOP_STEP_PIXELS = 2.0  # that the end of a template's longer side moves from one angle or scale to the next


def find_search(size: SceneSize, modules: Mapping[str, Any]) -> Search:
    """`cnn_jax.find` at all angles, and at all scales of the range, jitted."""
    options: dict[str, Any] = {"angle_range": (-math.pi, math.pi)}
    if size.has_scales:
        options["scale_range"] = size.scale_range
    find = jax.jit(functools.partial(cnn_jax.find, top_k=1, **options))

    def search(image: np.ndarray, template: np.ndarray, min_score: float) -> Pose | None:
        matches = jax.device_get(find(image, template, min_score=min_score))
        if not matches.valid[0]:
            return None
        y, x, height, width, angle, scale, score = (
            float(field[0])
            for field in (
                matches.y,
                matches.x,
                matches.height,
                matches.width,
                matches.angle,
                matches.scale,
                matches.score,
            )
        )
        return Pose(y + (height - 1) / 2, x + (width - 1) / 2, angle, scale, score)

    return search


def opencv_pyramid(size: SceneSize, modules: Mapping[str, Any]) -> Search:
    """A search on a pyramid with OpenCV."""

    def search(image: np.ndarray, template: np.ndarray, min_score: float) -> Pose | None:
        pose = opencv_search.pyramid_search(modules["opencv"], image, template, size.scale_range)
        return pose if pose.score >= min_score else None

    return search


def opencv_loop(size: SceneSize, modules: Mapping[str, Any]) -> Search:
    """A masked matchTemplate for every angle and scale: minutes for a large image."""
    step = math.atan(LOOP_STEP_PIXELS / max(size.template))
    angles = np.linspace(-math.pi, math.pi, math.ceil(2 * math.pi / step), endpoint=False).tolist()
    scale_count = 1 + math.ceil(math.log(size.scale_range[1] / size.scale_range[0]) / step)
    scales = np.geomspace(*size.scale_range, scale_count).tolist()

    def search(image: np.ndarray, template: np.ndarray, min_score: float) -> Pose | None:
        pose = opencv_search.loop_search(modules["opencv"], image, template, angles, scales)[0]
        return pose if pose.score >= min_score else None

    return search


SEARCHES: Mapping[str, Callable[[SceneSize, Mapping[str, Any]], Search]] = {
    "find": find_search,
    "opencv-pyramid": opencv_pyramid,
    "opencv-loop": opencv_loop,
}
