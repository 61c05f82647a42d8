"""experiments._lib.benchmark: results are compared, calls are timed in rounds, rows say how they compare."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax
from experiments._lib import benchmark

COST = cnn_jax.Cost(parameters=0, multiply_adds=1000, bytes=500, shape=(), stages={})


@pytest.fixture
def clock(monkeypatch):
    """Makes calls that take a number of milliseconds, by a clock that only they move."""
    now = [0.0]
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now[0])

    def make_call(*milliseconds):
        durations = list(milliseconds)

        def call():
            now[0] += 1e-3 * (durations.pop(0) if len(durations) > 1 else durations[0])
            return np.ones(1)

        return call

    return make_call


def test_results_are_compared():
    expected = np.array([[1.0, -100.0]])
    benchmark.check_equal_results("a", expected + 0.09, expected)
    for other in (expected + 0.11, np.array([[np.nan, -100.0]])):
        with pytest.raises(ValueError, match="a: its result differs from ours by"):
            benchmark.check_equal_results("a", other, expected)
    with pytest.raises(ValueError, match=r"a: its result has shape \(2, 1\), ours \(1, 2\)"):
        benchmark.check_equal_results("a", expected.T, expected)


def test_arrays_of_other_libraries_are_moved_to_the_host():
    class OnDevice:
        def get(self):
            return [1, 2]

    class Tensor:
        def cpu(self):
            return OnDevice()

    assert benchmark.to_numpy(Tensor()).tolist() == [1, 2]


def test_a_call_is_repeated_until_it_has_settled(clock):
    assert benchmark.time_call(clock(9, 9, 9, 2), min_seconds=0.05) == pytest.approx(2e-3)


def test_the_first_call_counts_only_if_it_is_slow(clock):
    assert benchmark.time_call(clock(1000, 5), min_seconds=0.0) == pytest.approx(5e-3)
    assert benchmark.time_call(clock(3000, 5), min_seconds=0.0) == pytest.approx(3)


def count_calls(monkeypatch, slow_seconds, **options):
    """How often each of three calls is timed, the warm-up included."""
    monkeypatch.setattr(benchmark, "SLOW_SECONDS", slow_seconds)
    timed = dict.fromkeys("abc", 0)

    def time_call(call, min_seconds):
        timed[call()] += 1
        return 1e-3

    monkeypatch.setattr(benchmark, "time_call", time_call)
    calls = {name: lambda name=name: name for name in timed}
    assert benchmark.median_ms(calls, min_seconds=0.0, **options) == dict.fromkeys("abc", 1.0)
    return timed


def test_every_call_takes_part_in_every_round(monkeypatch):
    timed = count_calls(monkeypatch, 1.0, few_rounds=["c"], rounds=4)
    assert timed == dict.fromkeys("abc", 1 + 4)


def test_the_warm_up_counts_for_slow_calls_and_some_take_part_in_few_rounds(monkeypatch):
    timed = count_calls(monkeypatch, -1.0, few_rounds=["c"])
    assert timed == {"a": benchmark.ROUNDS, "b": benchmark.ROUNDS, "c": benchmark.FEW_ROUNDS}


def test_compiled_calls_give_the_functions_result():
    assert benchmark.compiled_call(lambda x, y: x + y, jnp.ones(2), 1.0)().tolist() == [2, 2]


def make_case(clock, **options):
    defaults = {"baselines": {"a": clock(9), "b": clock(60)}, "cost": COST, "images": 4, "repeats": {"b": 10}}
    return benchmark.BenchmarkCase(ours=clock(2), **{**defaults, **options})


def test_a_row_says_how_much_longer_the_fastest_baseline_takes(clock):
    case = make_case(clock, methods={"x": None, "y": clock(3)}, auto="y", in_16_bits={"c": clock(1)})
    row = benchmark.run_case("match", "case", case, min_seconds=0.02)
    assert row["ours_ms"] == pytest.approx(2)
    assert row["peers"] == pytest.approx({"a": 9, "b": 6})
    assert row["peers_in_16_bits"] == pytest.approx({"c": 1})
    assert row["methods"] == {"x": None, "y": pytest.approx(3)}
    assert row["ratio"] == pytest.approx(3)
    assert row["images_per_s"] == pytest.approx(2000)
    assert row["gflops"] == pytest.approx(1e-3)
    assert row["gbytes_per_s"] == pytest.approx(2.5e-4)
    assert (row["task"], row["case"], row["auto"], row["skipped"]) == ("match", "case", "y", {})


def test_without_baselines_there_is_no_ratio(clock):
    row = benchmark.run_case("match", "case", make_case(clock, baselines={}), min_seconds=0.0)
    assert (row["peers"], row["ratio"]) == ({}, None)


def test_a_library_that_computes_something_else_is_not_timed(clock):
    case = make_case(clock, baselines={"a": lambda: np.full(1, 1.1)})
    with pytest.raises(ValueError, match=r"match case: a: its result differs from ours by 0\.1"):
        benchmark.run_case("match", "case", case, min_seconds=0.0)


def test_a_machine_has_peak_rates():
    peaks = benchmark.machine_peaks(0.0, 8)
    assert peaks.keys() == {"gflops", "gbytes_per_s"}
    assert all(rate > 0 for rate in peaks.values())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux pins processes to CPUs")
def test_all_threads_are_pinned(monkeypatch):
    pinned = {}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 3, 1})
    monkeypatch.setattr(os, "sched_setaffinity", pinned.__setitem__)
    assert benchmark.pin_cpus(2) == 2
    assert set(pinned) >= {os.getpid()}
    assert all(cpus == [1, 3] for cpus in pinned.values())
