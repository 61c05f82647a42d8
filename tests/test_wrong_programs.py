"""What `configure_cpu` is for: programs that XLA:CPU computes wrongly with its own settings, and rightly with ours.

A program that is wrong with XLA's settings is an expected failure. One that passes is cured in that jaxlib, on that
processor: when all are, in all supported versions, `configure_cpu` need not set XLA's flags.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from jaxlib.version import __version__ as jaxlib_version

from tests.helpers import wrong_programs

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-5


def error_with(flags: str, name: str) -> float:
    """The error of a program in a process with these flags of XLA; infinite if it ends the process."""
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    command = [sys.executable, "-m", "tests.helpers.wrong_programs", name]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else float("inf")


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("name", wrong_programs.PROGRAMS)
def test_it_is_right_with_our_settings(name):
    assert wrong_programs.error(name) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", wrong_programs.PROGRAMS)
def test_it_is_right_with_the_settings_of_xla(name, request):
    request.applymarker(pytest.mark.xfail(strict=False, reason=f"wrong in jaxlib {jaxlib_version}"))
    assert error_with("", name) < TOLERANCE
