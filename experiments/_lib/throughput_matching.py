"""Cases of `experiments.throughput` for the scores: every image against every feature."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import cnn_jax

from . import baselines_matching, conv_methods
from .benchmark import BenchmarkCase, Call, compiled_call


class MatchingCase(NamedTuple):
    """Numbers and sizes of the images and of the features."""

    images: int
    size: tuple[int, int]
    features: int
    window: tuple[int, int]

    def __str__(self) -> str:
        images = (self.images, *self.size)
        features = (self.features, *self.window)
        return ", ".join("x".join(map(str, shape)) for shape in (images, features))


CASES = (
    MatchingCase(256, (28, 28), 16, (3, 3)),
    MatchingCase(64, (64, 64), 16, (5, 5)),
    MatchingCase(16, (256, 256), 8, (9, 9)),
    MatchingCase(4, (512, 512), 8, (33, 33)),
    MatchingCase(1, (2048, 2048), 1, (64, 64)),
    MatchingCase(1, (2048, 2048), 8, (11, 11)),
    MatchingCase(1, (2448, 3264), 4, (31, 31)),
)
QUICK_CASES = (MatchingCase(16, (28, 28), 4, (3, 3)), MatchingCase(2, (48, 48), 2, (12, 12)))


def score_benchmark(task: str, case: MatchingCase, modules: Mapping[str, Any], threads: int) -> BenchmarkCase:
    """A score of every image and feature, maps (N, K, H', W'), by all methods and libraries.

    Args:
      task: the score's name in cnn_jax.
      case: the sizes.
      modules: the installed libraries by name.
      threads: threads that every library may use.
    """
    images, features = noise(case)
    baselines, skipped = build_baselines(task, modules, threads, images, features)
    arguments = jax.device_put((images, features))
    calls = {
        method: compiled_call(score_maps(task, method), *arguments) if is_practical(method, case) else None
        for method in conv_methods.METHODS
        if method != "auto"
    }
    return BenchmarkCase(
        ours=compiled_call(score_maps(task, "auto"), *arguments),
        baselines=baselines,
        cost=cnn_jax.cost(score_maps(task, "auto"), images, features),
        images=case.images,
        methods=calls,
        auto=conv_methods.chosen_method(images.shape, case.window, case.features),
        skipped=skipped,
    )


def score_maps(task: str, method: str) -> Callable[..., jax.Array]:
    """The function (images, features) -> maps of a score by a method."""
    bank = jax.vmap(functools.partial(getattr(cnn_jax, task), method=method), (None, 0))
    return jax.vmap(bank, (0, None))


def build_baselines(
    task: str, modules: Mapping[str, Any], threads: int, images: np.ndarray, features: np.ndarray
) -> tuple[dict[str, Call], dict[str, str]]:
    """The installed libraries' calls, and why others are left out."""
    calls = {}
    skipped = {}
    for name, build in baselines_matching.baselines()[task].items():
        try:
            if name in modules:
                calls[name] = build(modules[name], threads, images, features)
        except MemoryError as error:
            skipped[name] = str(error)
    return calls, skipped


def is_practical(method: str, case: MatchingCase) -> bool:
    """Whether a method takes reasonable time and memory."""
    pixels = math.prod(case.window)
    positions = math.prod(np.subtract(case.size, case.window) + 1)
    if method == "shift":
        return pixels <= conv_methods.MAX_SHIFT_PRODUCTS
    if method == "im2col":
        return pixels * positions <= conv_methods.MAX_IM2COL_NUMBERS
    return True


def noise(case: MatchingCase) -> tuple[np.ndarray, np.ndarray]:
    """Images of noise in [-1, 1], and features cut from them."""
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (case.images, *case.size)).astype(np.float32)
    limits = (case.images, *np.subtract(case.size, case.window) + 1)
    features = []
    for _ in range(case.features):
        i, y, x = (generator.integers(limit) for limit in limits)
        features.append(images[i, y : y + case.window[0], x : x + case.window[1]])
    return images, np.stack(features)
