"""Cases of `experiments.throughput` for calls that are not jitted by the user: eager, first and jitted calls."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import cnn_jax

from .benchmark import BenchmarkCase, compiled_call
from .first_calls import first_call_seconds


class CallCase(NamedTuple):
    """The sizes of an image and of a template."""

    size: tuple[int, int]
    window: tuple[int, int]

    def __str__(self) -> str:
        return ", ".join("x".join(map(str, shape)) for shape in ((1, *self.size), (1, *self.window)))


CASES = (CallCase((480, 640), (64, 64)),)
QUICK_CASES = (CallCase((48, 64), (9, 9)),)


def zncc_map(image: jax.Array, template: jax.Array) -> jax.Array:
    """The scores at all places."""
    return cnn_jax.zncc(image, template)


def found_place(image: jax.Array, template: jax.Array) -> list[jax.Array]:
    """The place of the best match."""
    matches = cnn_jax.find(image, template, subpixel=False)
    return [matches.y[0], matches.x[0]]


FUNCTIONS: Mapping[str, Callable[..., Any]] = {"zncc": zncc_map, "find": found_place}


def call_benchmark(task: str, case: CallCase, modules: Mapping[str, Any], threads: int) -> BenchmarkCase:
    """The jitted call of a function, its eager call, and the seconds of the first one.

    Args:
      task: "zncc call" or "find call".
      case: the sizes.
      modules: the installed libraries by name.
      threads: threads that every library may use.
    """
    name = task.split()[0]
    image = np.random.default_rng(0).uniform(-1, 1, case.size).astype(np.float32)
    rows, columns = case.window
    template = np.ascontiguousarray(image[3 : 3 + rows, 5 : 5 + columns])
    arguments = jax.device_put((image, template))
    function = FUNCTIONS[name]
    return BenchmarkCase(
        ours=compiled_call(function, *arguments),
        baselines={"opencv": opencv_call(name, modules["opencv"], image, template)} if "opencv" in modules else {},
        cost=cnn_jax.cost(cnn_jax.zncc, *arguments),
        images=1,
        methods={"eager": lambda: jax.block_until_ready(function(*arguments))},
        first_call_s=first_call_seconds(name, case.size, case.window),
    )


def opencv_call(name: str, cv2: Any, image: np.ndarray, template: np.ndarray) -> Callable[[], Any]:
    """TM_CCOEFF_NORMED, and for `find` the place of its maximum."""
    if name == "zncc":
        return lambda: cv2.matchTemplate(image, template, cv2.TM_CCOEFF_NORMED)
    return lambda: cv2.minMaxLoc(cv2.matchTemplate(image, template, cv2.TM_CCOEFF_NORMED))[3][::-1]
