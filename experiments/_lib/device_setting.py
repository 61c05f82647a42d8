"""How the stages of `experiments.device` time calls, and which other libraries they compare with."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from .baselines_matching import import_libraries
from .benchmark import Call, check_equal_results, median_ms, time_first_call, to_numpy

Line = Mapping[str, Any]
"""A result, as a JSON object."""
MAX_MESSAGE_CHARACTERS = 200


class Setting(NamedTuple):
    """How long and how large."""

    is_quick: bool

    @property
    def min_seconds(self) -> float:
        return 0.001 if self.is_quick else 0.05

    def time(self, calls: Mapping[str, Call], *, compared_images: int = 0) -> Line:
        """Median milliseconds of every call in interleaved rounds, and seconds of the first calls, which compile.

        A call that fails, or whose first results differ from those of the call "ours", is left out; `skipped` says why.
        """
        first_call_s = {}
        working = {}
        skipped = {}
        expected = None
        for name, call in calls.items():
            try:
                result, first_call_s[name] = time_first_call(call)
                if compared_images and expected is None:
                    expected = to_numpy(result[:compared_images])
                elif expected is not None:
                    check_equal_results(name, result[:compared_images], expected)
                working[name] = call
            except Exception as error:  # of any library: out of memory, no compiler, no algorithm
                skipped[name] = message_of(error)
        ms = median_ms(working, min_seconds=self.min_seconds, rounds=1 if self.is_quick else 5)
        return {"ms": ms, "first_call_s": first_call_s, "skipped": skipped}

    def peers(self, names: Sequence[str]) -> dict[str, Any]:
        """The installed ones of these libraries, on a GPU or in a rehearsal: elsewhere they compute on the CPU.

        JAX must have started its device before: the first library to load cuDNN decides on its version.
        """
        on_gpu = jax.devices()[0].platform == "gpu"
        modules, _ = import_libraries(names, 1) if on_gpu or self.is_quick else ({}, [])
        if on_gpu and "torch" in modules:
            modules["torch"].backends.cudnn.benchmark = True  # as XLA tries algorithms
        return modules


def message_of(error: Exception) -> str:
    """An error in one line that is not too long."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:MAX_MESSAGE_CHARACTERS]


def versions_of(modules: Mapping[str, Any]) -> Line:
    """The result that says which versions of other libraries were compared."""
    return {"name": "libraries", "versions": {name: module.__version__ for name, module in modules.items()}}
