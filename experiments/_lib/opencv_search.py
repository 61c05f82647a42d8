"""Template search at any angle with OpenCV, as its users write it: an exhaustive loop, and a search on a pyramid.

Angles are in radians, counterclockwise. A pose's place is that of the template's center.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .find_poses import Pose, rotation

TOP_PIXELS = 12  # shortest side of a template on the top level, at least
TOP_PLACES = 3  # for each angle and scale of the top level
CANDIDATES = (20, 2)  # poses that are refined on the levels below the top; one on all others
REACH = 3  # pixels around a pose that are searched on the next level
STEP_PIXELS = 2.0  # steps of angle and scale move the ends of a template's longer side so far, one from the other
SCALE_STEPS = 2.0  # steps of angle, in radians, that make a relative step of scale on the top level
MAX_SCORE = 1.001  # of defined scores, with rounding
FINE_DIVISORS = (1, 2, 4)  # of the last step of angle and scale, each followed by a fit of parabolas


def loop_search(
    cv2: Any,
    image: np.ndarray,
    template: np.ndarray,
    angles: Sequence[float],
    scales: Sequence[float] = (1.0,),
    center: np.ndarray | None = None,
    count: int = 1,
) -> list[Pose]:
    """The `count` best places at every angle and scale, by TM_CCOEFF_NORMED under a mask; the best pose first.

    The template is turned about `center` (y, x), by default its middle.
    """
    if center is None:
        center = (np.array(template.shape) - 1) / 2
    poses = itertools.product(angles, scales)
    found = (pose for turn in poses for pose in best_places(cv2, image, template, center, *turn, count))
    return sorted(found, key=lambda pose: -pose.score)


def best_places(
    cv2: Any, image: np.ndarray, template: np.ndarray, center: np.ndarray, angle: float, scale: float, count: int
) -> list[Pose]:
    """The best places of a template that is scaled and turned about `center`; a score of -1 if it does not fit.

    They are a quarter of the template's shorter side apart.
    """
    matrix = scale * rotation(-angle)  # of offsets (x, y)
    size = (np.ceil(np.abs(matrix) @ template.shape[::-1]) // 2 * 2 + 1).astype(int)
    if (size > image.shape[::-1]).any():
        return [Pose(0.0, 0.0, angle, scale, -1.0)]
    affine = np.column_stack([matrix, size // 2 - matrix @ center[::-1]])
    turned = cv2.warpAffine(template, affine, size)
    mask = cv2.warpAffine(np.ones_like(template), affine, size, flags=cv2.INTER_NEAREST)
    scores = cv2.matchTemplate(image, turned, cv2.TM_CCOEFF_NORMED, mask=mask)
    scores[~(np.abs(scores) <= MAX_SCORE)] = -1  # undefined where the image is constant
    gap = max(2, int(min(template.shape) * scale) // 4)
    places = []
    for _ in range(count):
        _, score, _, (x, y) = cv2.minMaxLoc(scores)
        places.append(Pose(y + int(size[1]) // 2, x + int(size[0]) // 2, angle, scale, score))
        scores[max(0, y - gap) : y + gap + 1, max(0, x - gap) : x + gap + 1] = -1
    return places


def pyramid_search(
    cv2: Any, image: np.ndarray, template: np.ndarray, scale_range: tuple[float, float] = (1.0, 1.0)
) -> Pose:
    """The best pose at any angle: all poses on the top level of a pyramid, of which the best are refined downward."""
    images, templates = [image], [template]
    while min(templates[-1].shape) * scale_range[0] >= 2 * TOP_PIXELS:
        images.append(cv2.pyrDown(images[-1]))
        templates.append(cv2.pyrDown(templates[-1]))
    centers = [(np.array(template.shape) - 1) / 2 ** (level + 1) for level in range(len(images))]
    steps = [math.atan(STEP_PIXELS / max(small.shape)) for small in templates]
    angles = np.linspace(-math.pi, math.pi, math.ceil(2 * math.pi / steps[-1]), endpoint=False)
    log_range = math.log(scale_range[1] / scale_range[0])
    scales = np.geomspace(*scale_range, 1 + math.ceil(log_range / (SCALE_STEPS * steps[-1]))).tolist()
    has_scales = len(scales) > 1

    levels = list(zip(images, templates, centers, steps, strict=True))
    poses = loop_search(cv2, images[-1], templates[-1], angles.tolist(), scales, centers[-1], TOP_PLACES)
    for level, count in zip(reversed(levels[:-1]), itertools.chain(CANDIDATES, itertools.repeat(1)), strict=False):
        doubled = [pose._replace(y=2 * pose.y, x=2 * pose.x) for pose in poses[:count]]
        refined = (best_neighbor(cv2, *level, pose, has_scales) for pose in doubled)
        poses = sorted(refined, key=lambda pose: -pose.score)
    pose = poses[0]
    for divisor in FINE_DIVISORS:
        pose = between_neighbors(cv2, *levels[0][:3], steps[0] / divisor, pose, has_scales)
    return pose


def neighbors(pose: Pose, step: float, axis: int) -> list[Pose]:
    """A pose between its neighbors along an axis: 0 for angles, 1 for scales."""
    if axis == 0:
        return [pose._replace(angle=pose.angle + i * step) for i in (-1, 0, 1)]
    return [pose._replace(scale=pose.scale * (1 + step) ** i) for i in (-1, 0, 1)]


def shift_scores(cv2: Any, image: np.ndarray, template: np.ndarray, center: np.ndarray, pose: Pose) -> np.ndarray:
    """The scores of the template at all places within REACH pixels of a pose, in a patch that is turned upright."""
    matrix = pose.scale * rotation(-pose.angle)  # of offsets (x, y)
    affine = np.column_stack([matrix, [pose.x, pose.y] - matrix @ (center[::-1] + REACH)])
    size = np.array(template.shape[::-1]) + 2 * REACH
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(image, affine, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return cv2.matchTemplate(patch, template, cv2.TM_CCOEFF_NORMED)


def best_neighbor(
    cv2: Any, image: np.ndarray, template: np.ndarray, center: np.ndarray, step: float, pose: Pose, has_scales: bool
) -> Pose:
    """The best place of a pose and of its neighbors in angle and scale."""
    found = []
    for scaled in neighbors(pose, step, 1) if has_scales else [pose]:
        for turned in neighbors(scaled, step, 0):
            _, score, _, (x, y) = cv2.minMaxLoc(shift_scores(cv2, image, template, center, turned))
            found.append(moved(turned, y - REACH, x - REACH)._replace(score=score))
    return max(found, key=lambda pose: pose.score)


def between_neighbors(
    cv2: Any, image: np.ndarray, template: np.ndarray, center: np.ndarray, step: float, pose: Pose, has_scales: bool
) -> Pose:
    """The pose at the tops of parabolas through the scores of its neighbors: along place, angle, scale, and place."""

    def scores(pose: Pose) -> np.ndarray:
        return shift_scores(cv2, image, template, center, pose)[REACH - 1 : REACH + 2, REACH - 1 : REACH + 2]

    def placed(pose: Pose) -> Pose:
        near = scores(pose)
        return moved(pose, parabola_top(near[:, 1]), parabola_top(near[1]))._replace(score=float(near[1, 1]))

    pose = placed(pose)
    turn = parabola_top([scores(neighbor)[1, 1] for neighbor in neighbors(pose, step, 0)])
    pose = pose._replace(angle=pose.angle + turn * step)
    if has_scales:
        growth = parabola_top([scores(neighbor)[1, 1] for neighbor in neighbors(pose, step, 1)])
        pose = pose._replace(scale=pose.scale * (1 + step) ** growth)
    return placed(pose)


def moved(pose: Pose, down: float, right: float) -> Pose:
    """A pose moved along the axes of the template, in pixels of the template."""
    dy, dx = pose.scale * rotation(pose.angle) @ [down, right]
    return pose._replace(y=pose.y + dy, x=pose.x + dx)


def parabola_top(values: Sequence[float] | np.ndarray) -> float:
    """The offset of the top of the parabola through three equidistant values, from -1 to 1; 0 without a top."""
    before, middle, after = map(float, values)
    curvature = 2 * middle - before - after
    return min(1.0, max(-1.0, (after - before) / (2 * curvature))) if curvature > 0 else 0.0
