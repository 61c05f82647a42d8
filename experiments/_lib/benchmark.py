"""Calls that compute the same, run side by side: their results compared, then timed in turns."""

import os
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .baselines_matching import Call, to_numpy

TOLERANCE = 1e-3  # of the largest magnitude
ROUNDS = 7
# Of a call that takes longer than so many seconds the warming up counts as a turn; if it is a method of ours, which is
# only timed to show that it is not the fastest, it gets fewer turns.
SLOW, FEW_ROUNDS = 2.0, 3


class BenchmarkCase(NamedTuple):
    """Calls that compute the same: ours, ours by a method of its own (None: left out), and the peers'."""

    ours: Call
    peers: Mapping[str, Call]
    methods: Mapping[str, Call | None]
    auto: str | None
    """The method that ours takes."""
    multiply_adds: int
    """Of the direct algorithm."""
    bytes: int
    """Of all inputs and outputs."""
    skipped: Mapping[str, str]
    """Peers left out, and why."""
    images: int
    """That one call takes in."""
    repeats: Mapping[str, int] = {}
    """Those whose call does it several times over, and how often; their results are not compared."""


def median_ms(calls: Mapping[str, Call], *, min_seconds: float, few_rounds: Sequence[str] = ()) -> dict[str, float]:
    """The median milliseconds of every call, of ROUNDS turns each, taken in a new random order every round.

    Those named in `few_rounds` get FEW_ROUNDS turns if they take more than SLOW seconds.
    """
    warm = {name: time_call(call, 3 * min_seconds) for name, call in calls.items()}
    times = {name: [taken] if taken > SLOW else [] for name, taken in warm.items()}
    wanted = {name: FEW_ROUNDS if name in few_rounds and taken else ROUNDS for name, taken in times.items()}
    order, generator = list(calls), random.Random(0)
    for _ in range(ROUNDS):
        generator.shuffle(order)
        for name in order:
            if len(times[name]) < wanted[name]:
                times[name].append(time_call(calls[name], min_seconds))
    return {name: 1e3 * statistics.median(taken) for name, taken in times.items()}


def time_call(call: Call, min_seconds: float) -> float:
    """The seconds that a call takes once it has been repeated for `min_seconds` seconds.

    By then its data are in the caches, its memory is its own again, the clock is up, and the last contestant's threads
    have stopped waiting for more work, which they do on our CPUs for some milliseconds. So the first call never counts,
    unless it takes longer than SLOW.
    """
    times, start = [], time.perf_counter()
    while not times or (len(times) == 1 and times[0] <= SLOW) or time.perf_counter() - start < min_seconds:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return statistics.median(times[len(times) // 2 :])


def check_equal_results(name: str, result: Any, expected: np.ndarray) -> None:
    """Raises ValueError unless a result is what is expected: who computes something else is not timed."""
    result = to_numpy(result)
    if result.shape != expected.shape:
        raise ValueError(f"{name}: its result has shape {result.shape}, ours {expected.shape}")
    largest, error = np.abs(expected).max(), np.abs(result - expected).max()
    if not error <= TOLERANCE * largest:
        raise ValueError(f"{name}: its result differs from ours by {error:.2g}, where the largest is {largest:.2g}")


def run_case(task: str, case: str, contest: BenchmarkCase, min_seconds: float) -> dict[str, Any]:
    """One row of the table: compares all results, then times all calls."""
    methods = {name: call for name, call in contest.methods.items() if call}
    others = {**methods, **contest.peers}
    before = time.perf_counter()
    expected = to_numpy(contest.ours())
    first = time.perf_counter() - before
    for name, call in others.items():
        if name not in contest.repeats:
            check_equal_results(f"{task} {case}: {name}", call(), expected)
    taken = median_ms({"ours": contest.ours} | others, min_seconds=min_seconds, few_rounds=list(methods))
    taken = {name: value / contest.repeats.get(name, 1) for name, value in taken.items()}
    ours = taken["ours"]
    peers = {name: taken[name] for name in contest.peers}
    return {
        "task": task,
        "case": case,
        "ours_ms": ours,
        "images_per_s": 1e3 * contest.images / ours,
        "first_call_s": first,
        "peers": peers,
        "ratio": min(peers.values()) / ours if peers else None,
        "methods": {name: taken.get(name) for name in contest.methods},
        "auto": contest.auto,
        "gflops": 2e-6 * contest.multiply_adds / ours,
        "gbytes_per_s": 1e-6 * contest.bytes / ours,
        "skipped": contest.skipped,
    }


def machine_peaks(min_seconds: float, side: int) -> dict[str, float]:
    """What this machine reaches at best: float32 operations of a product of square matrices, bytes read and written by
    a sum of sixteen times their size."""
    matrix, row = jnp.ones((side, side)), jnp.ones(16 * side**2)
    product, add = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1)
    taken = median_ms(
        {"product": lambda: product(matrix).block_until_ready(), "add": lambda: add(row).block_until_ready()},
        min_seconds=min_seconds,
    )
    return {
        "gflops": 2e-6 * len(matrix) ** 3 / taken["product"],
        "gbytes_per_s": 2e-6 * row.nbytes / taken["add"],
    }


def pin_cpus(count: int) -> int:
    """Leaves this process, with the threads it has and those it will start, `count` CPUs; returns how many it has."""
    if not hasattr(os, "sched_setaffinity"):
        return os.cpu_count() or count
    cpus = sorted(os.sched_getaffinity(0))[:count]
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cpus)
    return len(cpus)
