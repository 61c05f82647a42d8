"""Benchmark harness: compares the results of equivalent calls, then times them in interleaved rounds."""

import os
import random
import statistics
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

import cnn_jax
from cnn_jax.progress import Progress

Call = Callable[[], Any]
"""A call that is finished when it returns."""
Key = TypeVar("Key", bound=Hashable)

TOLERANCE = 1e-3  # of the largest magnitude
ROUNDS = 7
SLOW_SECONDS = 2.0  # seconds per call; the warm-up of a slower call counts as a round
FEW_ROUNDS = 3
WARM_UP_FACTOR = 3  # how much longer a call is warmed up than it is timed


class BenchmarkCase(NamedTuple):
    """Calls that compute the same: ours and the baselines'."""

    ours: Call
    baselines: Mapping[str, Call]
    cost: cnn_jax.Cost
    """Cost of the direct algorithm."""
    images: int
    """Images per call."""
    in_16_bits: Mapping[str, Call] = {}
    """Baselines that compute in 16 bits: timed beside the others, but neither compared nor counted in the ratio."""
    methods: Mapping[str, Call | None] = {}
    """Ours by each of its methods; None for a method that is left out."""
    auto: str | None = None
    """The method that ours chooses."""
    skipped: Mapping[str, str] = {}
    """Baselines left out, and why."""
    repeats: Mapping[str, int] = {}
    """Calls that do the work several times, and how often. Their results are not compared."""
    first_call_s: float | None = None
    """Seconds of the first call, if they are measured apart; by default those of the first call of `ours`."""


def compiled_call(function: Callable[..., Any], *arguments: Any) -> Call:
    """A call of the jitted function that waits for its result."""
    compiled = jax.jit(function)
    return lambda: jax.block_until_ready(compiled(*arguments))


def time_call(call: Call, min_seconds: float) -> float:
    """Seconds per call, after the call has been repeated for at least `min_seconds`.

    The median is taken over the second half of the repetitions. By then the caches, the allocator and the CPU's clock
    have settled, and the threads of the library timed before have stopped spinning. The first call counts only if it
    takes longer than SLOW_SECONDS.
    """
    seconds = []
    needed = 2
    start = time.perf_counter()
    while len(seconds) < needed or time.perf_counter() - start < min_seconds:
        call_start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - call_start)
        if seconds[0] > SLOW_SECONDS:
            needed = 1
    return statistics.median(seconds[len(seconds) // 2 :])


def median_ms(
    calls: Mapping[Key, Call],
    *,
    min_seconds: float,
    rounds: int = ROUNDS,
    few_rounds: Collection[Key] = (),
    title: str | None = None,
) -> dict[Key, float]:
    """Median milliseconds of every call over the rounds of `time_rounds`, which takes the same arguments."""
    rounds_of = time_rounds(calls, min_seconds=min_seconds, rounds=rounds, few_rounds=few_rounds, title=title)
    return {name: 1e3 * statistics.median(seconds) for name, seconds in rounds_of.items()}


def time_rounds(
    calls: Mapping[Key, Call],
    *,
    min_seconds: float,
    rounds: int = ROUNDS,
    few_rounds: Collection[Key] = (),
    title: str | None = None,
) -> dict[Key, list[float]]:
    """Seconds of every call in each round. In a round all calls are timed in a new random order.

    Args:
      calls: the calls by name.
      min_seconds: how long a call is repeated each time, see `time_call`.
      rounds: number of rounds. The warm-up counts as one for calls that take longer than SLOW_SECONDS.
      few_rounds: calls that are limited to FEW_ROUNDS rounds if they take longer than SLOW_SECONDS.
      title: title of a progress display; by default there is none.
    """
    seconds: dict[Key, list[float]] = {}
    limits: dict[Key, int] = {}
    order = list(calls)
    generator = random.Random(0)
    with Progress(title or "", len(calls) * (rounds + 1), show=title is not None) as progress:
        for i, (name, call) in enumerate(calls.items(), 1):
            warm_up = time_call(call, WARM_UP_FACTOR * min_seconds)
            slow = warm_up > SLOW_SECONDS
            seconds[name] = [warm_up] if slow else []
            limits[name] = FEW_ROUNDS if slow and name in few_rounds else rounds
            progress.update(i, "compiling")
        for i in range(1, rounds + 1):
            generator.shuffle(order)
            for name in order:
                if len(seconds[name]) < limits[name]:
                    seconds[name].append(time_call(calls[name], min_seconds))
            progress.update((i + 1) * len(calls), f"round {i} of {rounds}")
    return seconds


def time_first_call(call: Call) -> tuple[Any, float]:
    """The result of a call, and the seconds that it took; the first call compiles."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def check_equal_results(name: str, result: Any, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Raises ValueError if a result differs from ours: libraries that compute something else are not timed."""
    result = to_numpy(result)
    if result.shape != expected.shape:
        raise ValueError(f"{name}: its result has shape {result.shape}, ours {expected.shape}")
    largest = np.abs(expected).max()
    error = np.abs(result - expected).max()
    if not error <= tolerance * largest:
        raise ValueError(f"{name}: its result differs from ours by {error:.2g}; the largest magnitude is {largest:.2g}")


def to_numpy(result: Any) -> np.ndarray:
    """The array of any of the libraries as a NumPy array."""
    for method in ("cpu", "get"):  # of PyTorch's tensors and CuPy's arrays
        if hasattr(result, method):
            result = getattr(result, method)()
    return np.asarray(result)


def run_case(task: str, name: str, case: BenchmarkCase, min_seconds: float) -> dict[str, Any]:
    """One row of throughput.json: compares all results with ours, then times all calls."""
    methods = {method: call for method, call in case.methods.items() if call}
    alternatives = {**methods, **case.baselines, **case.in_16_bits}
    result, first_call_seconds = time_first_call(case.ours)
    expected = to_numpy(result)
    baselines_first_calls = {}
    for alternative, call in alternatives.items():
        result, seconds = time_first_call(call)
        if alternative in case.baselines:
            baselines_first_calls[alternative] = seconds
        if alternative not in case.repeats and alternative not in case.in_16_bits:
            check_equal_results(f"{task} {name}: {alternative}", result, expected)
    rounds = time_rounds({"ours": case.ours, **alternatives}, min_seconds=min_seconds, few_rounds=methods)
    milliseconds = {
        call: 1e3 * statistics.median(seconds) / case.repeats.get(call, 1) for call, seconds in rounds.items()
    }
    ours = milliseconds["ours"]
    baselines = {baseline: milliseconds[baseline] for baseline in case.baselines}
    best_method = min((milliseconds[method] for method in methods), default=None)
    return {
        "task": task,
        "case": name,
        "ours_ms": ours,
        "spread": (max(rounds["ours"]) - min(rounds["ours"])) / statistics.median(rounds["ours"]),
        "images_per_s": 1e3 * case.images / ours,
        "first_call_s": first_call_seconds if case.first_call_s is None else case.first_call_s,
        "peers": baselines,
        "peers_first_call_s": baselines_first_calls,
        "peers_in_16_bits": {baseline: milliseconds[baseline] for baseline in case.in_16_bits},
        "ratio": min(baselines.values()) / ours if baselines else None,
        "methods": {method: milliseconds.get(method) for method in case.methods},
        "auto": case.auto,
        "regret": ours / best_method if case.auto and best_method else None,
        "gflops": 2e-6 * case.cost.multiply_adds / ours,
        "gbytes_per_s": 1e-6 * case.cost.bytes / ours,
        "skipped": case.skipped,
    }


def machine_peaks(min_seconds: float, side: int) -> dict[str, float]:
    """The machine's peak rates: GFLOP/s of a float32 product of square matrices, GB/s of an elementwise sum."""
    matrix = jnp.ones((side, side))
    vector = jnp.ones(16 * side**2)
    calls = {
        "product": compiled_call(lambda a: a @ a, matrix),
        "sum": compiled_call(lambda a: a + 1, vector),
    }
    milliseconds = median_ms(calls, min_seconds=min_seconds)
    return {
        "gflops": 2e-6 * side**3 / milliseconds["product"],
        "gbytes_per_s": 2e-6 * vector.nbytes / milliseconds["sum"],
    }


def pin_cpus(count: int) -> int:
    """Restricts this process, with its present and future threads, to `count` CPUs; returns how many it has then."""
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or count
    cpus = sorted(os.sched_getaffinity(0))[:count]
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cpus)
    return len(cpus)
