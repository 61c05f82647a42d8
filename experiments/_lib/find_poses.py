"""Pose estimation with known truth: templates cut from photos, and the photos turned, scaled and degraded.

A template is a whole number of pixels of a scene. The scene is turned by cubic splines, so that the template's center,
angle and scale in the search image are known exactly. The search image is the turned scene, or a scene of other photos
with the turned template alone.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from . import photos

SPLINE_ORDER = 3
MARGIN_PIXELS = 2.0  # between the turned template and the border of the search image
MAX_SHIFT_PIXELS = 10.0  # of the scene, besides its turn about a random center
MIN_CONTRAST = 0.5  # standard deviation of a template's pixels, as a share of its photo's
MAX_DRAWS = 10_000  # of a template's place and pose
BACKGROUND_PHOTO = "gravel"  # around the turned scene
OUTSIDE = -1e6  # marks pixels outside of the scene; no gray level
SMOOTHING = 0.5  # pixels; an estimate of the blur of a camera's pixel, applied as the scene shrinks

RIGHT_PIXELS = 2.0
RIGHT_DEGREES = 2.0
RIGHT_SCALE = 0.03  # relative

NOISE_LEVELS = 25.0  # standard deviation, of 255 levels
BLUR_PIXELS = 1.5  # standard deviation
GAIN = 0.6
OFFSET_LEVELS = 40.0


class Pose(NamedTuple):
    """Where a template is in a search image."""

    y: float
    """Row of the template's center; the center of the first pixel is at 0."""
    x: float
    angle: float
    """Radians, counterclockwise."""
    scale: float = 1.0
    score: float = 1.0


class Search(NamedTuple):
    """A search, and from which score on its best pose is a match."""

    best_pose: Callable[[np.ndarray, np.ndarray], Pose | None]
    """`best_pose(image, template)` is the best pose of a template in an image, both uint8, whatever its score; None
    without any."""
    min_score: float


class SceneSize(NamedTuple):
    """Rows and columns of a search image and of the template, and the scene that they are cut from."""

    image: tuple[int, int]
    template: tuple[int, int]
    cells: tuple[int, int] = (1, 1)
    """The scene is a mosaic of so many rows and columns of photos."""
    scale_range: tuple[float, float] = (1.0, 1.0)

    @property
    def has_scales(self) -> bool:
        """Whether the scale is unknown."""
        return self.scale_range[0] < self.scale_range[1]


SIZES: Mapping[str, SceneSize] = {
    "640x480": SceneSize((480, 640), (120, 80)),
    "1000x1000": SceneSize((1000, 1000), (128, 128), (2, 2)),
    "1280x960": SceneSize((960, 1280), (100, 100), (2, 2), (0.7, 1.4)),
    "2160x1620": SceneSize((1620, 2160), (150, 200), (3, 4)),
    "4000x3000": SceneSize((3000, 4000), (521, 762), (4, 4)),
}


class PoseCase(NamedTuple):
    """A template, the search image without degradation, and the truth."""

    photo: str
    template: np.ndarray
    image: np.ndarray
    truth: Pose
    scene: str = "turned"
    """One of SCENES."""


class PoseError(NamedTuple):
    """How far a pose that was found is from the truth."""

    pixels: float
    degrees: float
    scale: float
    """Relative."""

    @property
    def is_right(self) -> bool:
        """Whether the pose is close enough to be the right one."""
        return self.pixels <= RIGHT_PIXELS and self.degrees <= RIGHT_DEGREES and self.scale <= RIGHT_SCALE


def degrade(image: np.ndarray, name: str, generator: np.random.Generator) -> np.ndarray:
    """A search image under one of DEGRADATIONS, in whole gray levels."""
    levels = image.astype(np.float32)
    if name in ("blur", "all"):
        levels = ndimage.gaussian_filter(levels, BLUR_PIXELS)
    if name in ("light", "all"):
        levels = GAIN * levels + OFFSET_LEVELS
    if name in ("noise", "all"):
        levels = levels + generator.normal(0, NOISE_LEVELS, levels.shape)
    return to_levels(levels)


# Around the template is the photo that it is cut from, or another one.
SCENES = ("turned", "pasted")
DEGRADATIONS = ("clean", "noise", "blur", "light", "all")


def to_levels(values: np.ndarray) -> np.ndarray:
    """Values rounded to gray levels 0 to 255, uint8."""
    return np.rint(values).clip(0, 255).astype(np.uint8)


def middle_cell(size: SceneSize) -> int:
    """The index of the cell of a scene that templates are cut from."""
    rows, columns = size.cells
    return rows // 2 * columns + columns // 2


def make_scene(photo: str, size: SceneSize) -> np.ndarray:
    """A scene of the size of the search image, with this photo in the middle cell and others around it."""
    names = [name for name in photos.PHOTOS if name != photo]
    names.insert(middle_cell(size), photo)
    loaded = [photos.load_photo(name) for name in names[: math.prod(size.cells)]]
    return photos.mosaic(loaded, size.image, size.cells)


def make_case(
    photo: str, scene: np.ndarray, background: np.ndarray, size: SceneSize, generator: np.random.Generator
) -> PoseCase:
    """A random template of the scene's middle cell, and the scene in a random pose that shows the whole template.

    Args:
      photo: the name of what is in the middle cell.
      scene: gray levels, of the size of the search image.
      background: gray levels, of the same size; shown around the turned scene.
      size: the sizes.
      generator: draws the template's place and the pose.

    Raises:
      ValueError: no pose shows the whole template.
    """
    cell = photos.cell_slices(size.image, size.cells, middle_cell(size))
    for _ in range(MAX_DRAWS):
        top, left = (generator.integers(s.start, s.stop - n + 1) for s, n in zip(cell, size.template, strict=True))
        template = scene[top : top + size.template[0], left : left + size.template[1]]
        if template.std() < MIN_CONTRAST * scene[cell].std():
            continue
        center = np.array([top, left]) + (np.array(size.template) - 1) / 2
        truth = random_pose(center, size, generator)
        if shows_template(truth, size):
            return PoseCase(photo, np.ascontiguousarray(template), turn_scene(scene, background, center, truth), truth)
    raise ValueError(f"size: expected a template that fits into the image at all angles, got {size}")


def random_pose(center: np.ndarray, size: SceneSize, generator: np.random.Generator) -> Pose:
    """The pose of a template after the scene has been turned and scaled about a random point, and shifted."""
    pivot = (np.array(size.image) - 1) * generator.uniform(0.25, 0.75, 2)
    angle = generator.uniform(-math.pi, math.pi)
    scale = math.exp(generator.uniform(*np.log(size.scale_range)))
    shift = generator.uniform(-MAX_SHIFT_PIXELS, MAX_SHIFT_PIXELS, 2)
    y, x = pivot + shift + scale * rotation(angle) @ (center - pivot)
    return Pose(float(y), float(x), angle, scale)


def rotation(angle: float) -> np.ndarray:
    """The matrix that turns offsets (down, right) counterclockwise, as an image is seen."""
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def shows_template(pose: Pose, size: SceneSize) -> bool:
    """Whether the template in this pose lies wholly inside the search image."""
    reach = np.abs(pose.scale * rotation(pose.angle)) @ (np.array(size.template) / 2) + MARGIN_PIXELS
    center = np.array([pose.y, pose.x])
    return bool((center >= reach).all() and (center + reach <= np.array(size.image) - 1).all())


def turn_scene(scene: np.ndarray, background: np.ndarray, center: np.ndarray, pose: Pose) -> np.ndarray:
    """The search image in which the scene's point `center` has this pose, over another picture, uint8.

    Repeating the scene around itself instead could show a second copy of the template.
    """
    levels = scene.astype(np.float32)
    if pose.scale < 1:
        levels = ndimage.gaussian_filter(levels, SMOOTHING * math.sqrt(pose.scale**-2 - 1))
    inverse = rotation(-pose.angle) / pose.scale
    matrix = np.column_stack([inverse, center - inverse @ [pose.y, pose.x]])
    turned = ndimage.affine_transform(levels, matrix, order=SPLINE_ORDER, mode="constant", cval=OUTSIDE)
    return np.where(turned == OUTSIDE, background, to_levels(turned))


def paste_template(
    turned: np.ndarray, background: np.ndarray, template_size: tuple[int, int], pose: Pose
) -> np.ndarray:
    """A turned scene where the template in this pose covers it, and elsewhere another picture, uint8.

    The pixels on the template's edges are mixed by the part of them that it covers.
    """
    rows, columns = np.ogrid[: turned.shape[0], : turned.shape[1]]
    (a, b), (c, d) = rotation(-pose.angle)
    down = a * (rows - pose.y) + b * (columns - pose.x)
    right = c * (rows - pose.y) + d * (columns - pose.x)
    height, width = (pose.scale * n for n in template_size)
    covered = [(size / 2 - np.abs(offset) + 0.5).clip(0, 1) for size, offset in ((height, down), (width, right))]
    weight = covered[0] * covered[1]
    return to_levels(weight * turned + (1 - weight) * background)


def pose_cases(
    size: SceneSize,
    poses: int,
    seed: int,
    names: Sequence[str] = photos.TEMPLATE_PHOTOS,
    scene_kind: str = "turned",
) -> Iterator[PoseCase]:
    """Random cases, `poses` of each photo; the same templates and poses in both kinds of SCENES."""
    gravel = photos.cover(photos.load_photo(BACKGROUND_PHOTO), size.image)
    for index, photo in enumerate(names):
        scene = make_scene(photo, size)
        for number in range(poses):
            case = make_case(photo, scene, gravel, size, np.random.default_rng((seed, index, number)))
            if scene_kind == "pasted":
                background = absent_scene(size, index * poses + number)
                image = paste_template(case.image, background, size.template, case.truth)
                case = case._replace(image=image, scene=scene_kind)
            yield case


def absent_scene(size: SceneSize, first: int) -> np.ndarray:
    """A scene of photos that templates are not cut from; the number of the first one, counted in a circle."""
    names = photos.OTHER_PHOTOS
    chosen = [names[(first + i) % len(names)] for i in range(math.prod(size.cells))]
    return photos.mosaic([photos.load_photo(name) for name in chosen], size.image, size.cells)


def pose_error(found: Pose, truth: Pose) -> PoseError:
    """The distance of the centers, the difference of the angles, and the relative difference of the scales."""
    turn = math.remainder(found.angle - truth.angle, 2 * math.pi)
    return PoseError(
        math.hypot(found.y - truth.y, found.x - truth.x),
        abs(math.degrees(turn)),
        abs(found.scale / truth.scale - 1),
    )
