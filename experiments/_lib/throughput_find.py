"""Cases of `experiments.throughput` for `find`: templates at any angle, and many templates at once.

The results that are compared are not the poses, which no two methods find alike, but whether they are right.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import cnn_jax

from . import find_poses, opencv_search
from .benchmark import BenchmarkCase, Call, compiled_call
from .find_poses import Pose, PoseCase, SceneSize
from .pose_searches import best_pose, find_search

ANGLES = tuple(np.linspace(-math.pi, math.pi, 72, endpoint=False).tolist())  # of the exhaustive searches
MAX_LOOP_PIXELS = 400_000  # of images that are searched exhaustively
LEFT_OUT = f"left out: only images of at most {MAX_LOOP_PIXELS} pixels and templates of known scale"
MIN_SCORE_OF_COPIES = 0.9


class FindCase(NamedTuple):
    """The sizes of a search image and a template at any angle."""

    size: SceneSize

    def __str__(self) -> str:
        image, template = ("x".join(map(str, size)) for size in (self.size.image, self.size.template))
        scales = (
            f", scaled {self.size.scale_range[0]:g} to {self.size.scale_range[1]:g}" if self.size.has_scales else ""
        )
        return f"1x{image}, {template}{scales}"


class BankCase(NamedTuple):
    """The sizes of an image and of templates that are contained in it."""

    size: tuple[int, int]
    templates: int
    window: tuple[int, int]

    def __str__(self) -> str:
        return ", ".join("x".join(map(str, shape)) for shape in ((1, *self.size), (self.templates, *self.window)))


CASES = tuple(FindCase(size) for size in find_poses.SIZES.values())
QUICK_CASES = (FindCase(SceneSize((120, 160), (40, 30))),)
BANK_CASES = (BankCase((720, 1280), 50, (32, 32)),)
QUICK_BANK_CASES = (BankCase((60, 80), 3, (12, 12)),)


def clouds(size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """A picture whose amplitudes fall with the frequency, as those of photos do; gray levels, uint8."""
    frequencies = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) * n for n in size), indexing="ij"))
    spectrum = np.fft.fft2(generator.standard_normal(size)) / np.maximum(frequencies, 1)
    picture = np.fft.ifft2(spectrum).real
    return find_poses.to_levels(128 + 50 * picture / picture.std())


def find_benchmark(task: str, case: FindCase, modules: Mapping[str, Any], threads: int) -> BenchmarkCase:
    """A template at any angle: `find` with a range of angles, with a list of angles, and OpenCV."""
    size = case.size
    generator = np.random.default_rng(0)
    scene, background = (clouds(size.image, generator) for _ in range(2))
    problem = find_poses.make_case("clouds", scene, background, size._replace(cells=(1, 1)), generator)
    search = find_search(size, modules).best_pose
    is_small = math.prod(size.image) <= MAX_LOOP_PIXELS and not size.has_scales
    all_angles = exhaustive_find(problem.image, problem.template)
    return BenchmarkCase(
        ours=verdict(lambda: search(problem.image, problem.template), problem.truth),
        baselines=opencv_calls(modules["opencv"], problem, size, is_small) if "opencv" in modules else {},
        cost=direct_cost(size.image, size.template, len(ANGLES)),
        images=1,
        methods={"72 angles": verdict(all_angles, problem.truth) if is_small else None},
        skipped={} if is_small else {"opencv loop": LEFT_OUT},
    )


def opencv_calls(cv2: Any, problem: PoseCase, size: SceneSize, is_small: bool) -> dict[str, Call]:
    """OpenCV's search on a pyramid, and its loop over the angles if the image is small."""
    image, template = problem.image, problem.template
    searches = {"opencv pyramid": lambda: opencv_search.pyramid_search(cv2, image, template, size.scale_range)}
    if is_small:
        searches["opencv loop"] = lambda: opencv_search.loop_search(cv2, image, template, ANGLES)[0]
    return {name: verdict(search, problem.truth) for name, search in searches.items()}


def exhaustive_find(image: np.ndarray, template: np.ndarray) -> Callable[[], Pose | None]:
    """`find` with a list of angles."""
    find = jax.jit(functools.partial(cnn_jax.find, angles=ANGLES, top_k=1))

    return lambda: best_pose(jax.device_get(find(image, template)))


def verdict(search: Callable[[], Pose | None], truth: Pose) -> Call:
    """A call whose result is 1 if a search finds the right pose, and else 0.

    The angle is right within half a step of the exhaustive searches.
    """

    def call() -> np.ndarray:
        found = search()
        if found is None:
            return np.zeros(1)
        error = find_poses.pose_error(found, truth)
        half_step = math.degrees(ANGLES[1] - ANGLES[0]) / 2
        return np.array([error.pixels <= find_poses.RIGHT_PIXELS and error.degrees <= half_step], float)

    return call


def direct_cost(image_size: tuple[int, int], window: tuple[int, int], templates: int) -> cnn_jax.Cost:
    """The cost of comparing templates with every patch of an image."""
    positions = math.prod(n - k + 1 for n, k in zip(image_size, window, strict=True))
    multiply_adds = templates * positions * math.prod(window)
    pixels = math.prod(image_size) + math.prod(window)
    return cnn_jax.Cost(0, multiply_adds, pixels, (1,), {})


def bank_benchmark(task: str, case: BankCase, modules: Mapping[str, Any], threads: int) -> BenchmarkCase:
    """The best place of every template, (K, 2): `find` with all templates, and a map of scores of each."""
    generator = np.random.default_rng(0)
    image = generator.uniform(-1, 1, case.size).astype(np.float32)
    corners = generator.integers(0, np.subtract(case.size, case.window) + 1, (case.templates, 2))
    templates = np.stack([image[y : y + case.window[0], x : x + case.window[1]] for y, x in corners])
    baselines = {"vmap(zncc)": compiled_call(best_places, jnp.asarray(image), jnp.asarray(templates))}
    if "opencv" in modules:
        baselines["opencv loop"] = lambda: opencv_places(modules["opencv"], image, templates)
    return BenchmarkCase(
        ours=compiled_call(found_places, jnp.asarray(image), jnp.asarray(templates)),
        baselines=baselines,
        cost=direct_cost(case.size, case.window, case.templates),
        images=1,
    )


def found_places(image: jax.Array, templates: jax.Array) -> jax.Array:
    """The place that `find` gives each template; templates may overlap."""
    options = {"top_k": len(templates), "min_score": MIN_SCORE_OF_COPIES, "max_overlap": 1.0, "subpixel": False}
    matches = cnn_jax.find(image, templates, **options)
    index = jnp.where(matches.valid, matches.feature, len(templates))
    places = jnp.stack([matches.y, matches.x], 1)
    return jnp.zeros_like(places).at[index].set(places, mode="drop")


def best_places(image: jax.Array, templates: jax.Array) -> jax.Array:
    """The place of the highest score of each template."""
    score_maps = jax.vmap(cnn_jax.zncc, (None, 0))(image, templates)
    index = score_maps.reshape(len(templates), -1).argmax(1)
    return jnp.stack(jnp.divmod(index, score_maps.shape[2]), 1).astype(jnp.float32)


def opencv_places(cv2: Any, image: np.ndarray, templates: np.ndarray) -> np.ndarray:
    """The place of the highest TM_CCOEFF_NORMED of each template, one after another."""
    maps = (cv2.matchTemplate(image, template, cv2.TM_CCOEFF_NORMED) for template in templates)
    return np.array([cv2.minMaxLoc(score_map)[3][::-1] for score_map in maps], np.float32)
