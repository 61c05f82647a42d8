"""The constants of the cost model on this machine: measured by `python -m experiments.calibrate`, or built in."""

import dataclasses
import functools
import json
import math
import os
import platform
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import platformdirs
from jaxlib.version import __version__ as jaxlib_version

from ._cost_model import CPU_COSTS, FFT_COSTS, CpuCosts, FftCosts

# The environment variable that names another file of constants. If it is empty, no file is read.
FILE_VARIABLE = "CNN_JAX_COSTS"
CPUINFO = Path("/proc/cpuinfo")
CPUINFO_FIELDS = ("model name", "cpu family", "model")

Costs = TypeVar("Costs", CpuCosts, FftCosts)


class MachineCosts(NamedTuple):
    """What algorithms cost on a machine."""

    cpu: CpuCosts
    fft: FftCosts


BUILT_IN = MachineCosts(CPU_COSTS, FFT_COSTS)


@functools.cache
def machine_costs() -> MachineCosts:
    """The measured constants of this machine, or the built-in ones if there are none, or none that can be read."""
    path = costs_file()
    if path is None:
        return BUILT_IN
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return BUILT_IN
    except (OSError, ValueError) as error:
        warnings.warn(
            f"{path}: {error}; the built-in constants are used. `python -m experiments.calibrate` writes a new file",
            stacklevel=2,
        )
        return BUILT_IN


def costs_file() -> Path | None:
    """The file of this machine's constants in the user's cache folder, or that of CNN_JAX_COSTS.

    The name has the processor, the CPUs of this process and jaxlib's version, so that no other machine reads it.
    """
    named = os.environ.get(FILE_VARIABLE)
    if named is not None:
        return Path(named).expanduser() if named else None
    machine = f"{processor()} {cpu_count()} jaxlib {jaxlib_version}"
    name = re.sub(r"\W+", "-", machine.lower()).strip("-")
    return platformdirs.user_cache_path("cnn_jax") / "costs" / f"{name}.json"


def processor() -> str:
    """The CPU's name, family and model on Linux; elsewhere what Python's `platform` reports."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    name, family, model = (fields.get(field, "") for field in CPUINFO_FIELDS)
    if not name:
        return platform.machine()
    return f"{name}, family {family}, model {model}" if family else name


def cpu_count() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measured_constants(costs: CpuCosts | FftCosts) -> dict[str, float]:
    """The constants that are times, in nanoseconds, and so differ between machines."""
    return {name: value for name, value in dataclasses.asdict(costs).items() if name.endswith("_ns")}


def to_json(costs: MachineCosts) -> dict[str, dict[str, float]]:
    """The measured constants, for a file."""
    return {name: measured_constants(part) for name, part in costs._asdict().items()}


def from_json(content: object) -> MachineCosts:
    """The constants of a file; raises a ValueError for anything that `to_json` does not make."""
    if not isinstance(content, Mapping):
        raise ValueError(f"expected the constants by name, got {content!r}")
    return MachineCosts(*(_with_constants(part, content.get(name)) for name, part in BUILT_IN._asdict().items()))


def _with_constants(costs: Costs, given: object) -> Costs:
    expected = measured_constants(costs)
    if not isinstance(given, Mapping) or given.keys() != expected.keys():
        raise ValueError(f"expected the constants {', '.join(expected)}, got {given!r}")
    for name, value in given.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not (math.isfinite(value) and value >= 0):
            raise ValueError(f"expected {name} as a number of at least 0, got {value!r}")
    return dataclasses.replace(costs, **given)
