"""Start-up, errors, option checks and output files: what every script does the same way."""

import contextlib
import dataclasses
import io
import json
import math
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import jax
import numpy as np
import optax
import platformdirs

import cnn_jax
from cnn_jax._machine_costs import cpu_count, processor
from cnn_jax.files import atomic_write, local_path, writable_folder

from .parse_errors import describe_parse_error

Number = TypeVar("Number", int, float)
Options = TypeVar("Options")

MIN_CACHED_COMPILE_SECONDS = 0.2
PARAGRAPH_BREAK = re.compile(r"\n\s*?\n|\n(?=(?:Claim|Evidence|Source): )")  # in a script's docstring
USER_ERRORS = (ValueError, TypeError, OSError, ArithmeticError, MemoryError, jax.errors.JaxRuntimeError)


def run_script(main: Callable[[], Any]) -> None:
    """Runs a script's `main` and turns its errors into exit codes.

    Invalid input and unwritable folders exit with code 2 and one line on stderr. Ctrl-C and other stop requests exit
    with code 130.
    """
    cnn_jax.configure_cpu()
    use_compilation_cache()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid text
    try:
        main()
    except USER_ERRORS as error:
        exit_with_error(error)
    except KeyboardInterrupt as error:
        print(str(error) or "interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def parse_options(
    options: type[Options], script: str, description: str | None, args: Sequence[str] | None = None
) -> Options:
    """The options of a script in `args`, by default its command line; --help prints the script's docstring.

    In paths, `~` becomes the home folder. Options that cannot be parsed, and URLs in place of paths, exit with code 2
    and one line on stderr.
    """
    import tyro  # not on every machine that a script for accelerators runs on

    help_text = "\n\n".join(paragraphs(description or ""))
    words = list(sys.argv[1:] if args is None else args)
    program = f"python -m experiments.{script}"
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            parsed = tyro.cli(options, prog=program, description=help_text, args=words)
    except SystemExit as stop:
        if not stop.code:
            raise
        exit_with_error(f"{describe_parse_error(printed.getvalue(), words)}; see {program} --help")
    try:
        return _with_local_paths(parsed)
    except ValueError as error:
        exit_with_error(error)


def _with_local_paths(options: Options) -> Options:
    """A script's options with its paths as `local_path` returns them."""

    def convert(name: str, value: object) -> object:
        if isinstance(value, tuple):
            return tuple(convert(name, item) for item in value)
        return local_path(value, name=name.replace("_", "-")) if isinstance(value, Path) else value

    changes = {name: convert(name, value) for name, value in vars(options).items()}
    return dataclasses.replace(cast(Any, options), **changes)


def paragraphs(docstring: str) -> list[str]:
    """A docstring's paragraphs, joined to one line each, except command blocks.

    "Claim:" and similar words start a paragraph.
    """
    blocks = PARAGRAPH_BREAK.split(docstring.strip())
    return [block if block.startswith(" ") else " ".join(block.split("\n")) for block in blocks]


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the next run starts fast.

    The folder is JAX_COMPILATION_CACHE_DIR if that is set, or else the user's cache folder. Nothing is kept if that
    folder cannot be written to.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        try:
            folder = make_output_dir(platformdirs.user_cache_path("cnn_jax") / "compiled")
        except OSError:
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_CACHED_COMPILE_SECONDS)


def exit_with_error(error: Exception | str) -> NoReturn:
    """Prints an error as one line on stderr and exits with code 2."""
    print(f"error: {one_line_error(error)}", file=sys.stderr)
    raise SystemExit(2) from None


def one_line_error(error: Exception | str) -> str:
    """An error's message as one line; an OSError as "FILE: REASON"."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename2 or error.filename  # filename2: the new name of a failed rename
        return f"{name}: {error.strerror}" if name else error.strerror
    return " ".join(str(error).split())


def check_positive(option: str, value: Number) -> Number:
    """Returns an option's value, which must be above 0.

    Args:
      option: the option's name as the user writes it, such as "--batch-size".
      value: an int, or a float that must be finite.

    Raises:
      ValueError: the value is not above 0; the message names the option.
    """
    if not (math.isfinite(value) and value > 0):
        expected = "at least 1" if isinstance(value, int) else "a finite number above 0"
        raise ValueError(f"{option}: expected {expected}, got {value}")
    return value


def check_not_negative(option: str, value: Number) -> Number:
    """Returns an option's value, which must be 0 or more; otherwise as `check_positive`."""
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{option}: expected at least 0, got {value}")
    return value


def make_output_dir(folder: Path) -> Path:
    """Creates a folder and checks that it is writable, before hours of work go into it."""
    return writable_folder(folder, name="--out")


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically; arrays become lists and NumPy's scalars become numbers."""
    write_text(path, json.dumps(content, indent=2, default=lambda value: np.asarray(value).tolist()) + "\n")


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries, the device and the CPU: what measured numbers depend on."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
        "optax": optax.__version__,
        "device": f"{device.platform} ({device.device_kind})",
        "cores": str(cpu_count()),
        "processor": processor(),
    }
