"""What every script does the same way: start up, fail plainly, write whole files."""

import io
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import optax

import cnn_jax
from cnn_jax.data import _download
from cnn_jax.files import atomic_write

Number = TypeVar("Number", int, float)


def run_script(main: Callable[[], Any]) -> None:
    """Runs a script: bad input or an unwritable folder gives one line on stderr and exit code 2; Ctrl-C, and
    what else asked a training to stop, 130."""
    cnn_jax.keep_freed_memory()
    use_compilation_cache()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    try:
        main()
    except (ValueError, TypeError, OSError, ArithmeticError, MemoryError, jax.errors.JaxRuntimeError) as error:
        exit_with_error(error)
    except KeyboardInterrupt as error:
        print(str(error) or "interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def use_compilation_cache() -> None:
    """Keeps what JAX compiles in the user's cache, so that the next run starts fast; in JAX_COMPILATION_CACHE_DIR if
    that is set, and nowhere if the folder cannot be written to."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        try:
            folder = make_output_dir(_download.folder() / "compiled")
        except OSError:
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def exit_with_error(error: Exception | str) -> None:
    """Says in one line what was wrong and exits with code 2."""
    print(f"error: {one_line_error(error)}", file=sys.stderr)
    raise SystemExit(2) from None


def one_line_error(error: Exception | str) -> str:
    """An error as one line."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename2 or error.filename  # of a file that was to be renamed, its new name
        return f"{name}: {error.strerror}" if name else error.strerror
    return " ".join(str(error).split())


def check_positive(option: str, value: Number) -> Number:
    """The option's value; raises ValueError, naming the option as the user writes it, unless it is above 0."""
    if not (math.isfinite(value) and value > 0):
        expected = "at least 1" if isinstance(value, int) else "a finite number above 0"
        raise ValueError(f"{option}: expected {expected}, got {value}")
    return value


def check_not_negative(option: str, value: Number) -> Number:
    """The option's value; raises ValueError, naming the option as the user writes it, unless it is 0 or more."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{option}: expected at least 0, got {value}")
    return value


def make_output_dir(folder: Path) -> Path:
    """Makes a folder and tries that it can be written to, before hours of work go into it."""
    with atomic_write(folder / ".writable") as temporary:
        temporary.touch()
    (folder / ".writable").unlink()
    return folder


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole or not at all; NumPy's numbers and arrays become plain ones."""
    write_text(path, json.dumps(content, indent=2, default=lambda value: np.asarray(value).tolist()) + "\n")


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1] as bytes; what is NaN is grey."""
    return np.round(np.clip(np.nan_to_num(pixels) * 127.5 + 127.5, 0, 255)).astype(np.uint8)


def versions() -> dict[str, str]:
    """What a figure depends on: the versions of Python and libraries, and the device."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "optax": optax.__version__,
        "device": f"{device.platform} ({device.device_kind})",
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "processor": cpu_name(),
    }


def cpu_name() -> str:
    """The name of the CPU, if it can be had."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
