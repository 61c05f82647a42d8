"""The time of a function's first call on new shapes, compilation included, in a fresh process without a disk cache.

python -m experiments._lib.first_calls find 480 640 64 64       prints seconds
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

import cnn_jax

ROOT = Path(__file__).parents[2]
WARM_UP_SIZES = ((12, 13), (3, 4))  # of an image and a template; this call starts JAX


def first_call_seconds(function: str, image_size: tuple[int, int], template_size: tuple[int, int]) -> float:
    """Seconds of the first call of `cnn_jax.zncc` or `cnn_jax.find` on these sizes, in a process of its own."""
    command = [sys.executable, "-m", "experiments._lib.first_calls", function, *map(str, image_size + template_size)]
    settings = {"JAX_ENABLE_COMPILATION_CACHE": "false", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])}: {done.stderr.strip()}")
    return float(done.stdout)


def main(arguments: Sequence[str]) -> None:
    """Prints the seconds of the first call after a call on other sizes."""
    name, *sides = arguments
    function = getattr(cnn_jax, name)
    height, width, rows, columns = map(int, sides)
    for image_size, template_size in (WARM_UP_SIZES, ((height, width), (rows, columns))):
        image = np.random.default_rng(0).uniform(-1, 1, image_size).astype(np.float32)
        template = image[: template_size[0], : template_size[1]]
        start = time.perf_counter()
        jax.block_until_ready(function(image, template))
        seconds = time.perf_counter() - start
    print(seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
