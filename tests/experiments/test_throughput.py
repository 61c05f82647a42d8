"""experiments.throughput, run as a user runs it: with what is installed, with little, and beside one who is wrong."""

import json
import os
import sys

import numpy as np
import pytest

from experiments import throughput
from experiments._lib import baselines_matching, baselines_training, benchmark
from tests.helpers import cli

KEYS = {"task", "case", "ours_ms", "images_per_s", "first_call_s", "peers", "ratio", "methods"}
SCORES, NETWORKS = ("match", "zncc"), ("train_step", "inference")

# OpenCV's matchTemplate with a wrong corner.
WRONG = """
import numpy as np
TM_CCORR, TM_CCOEFF_NORMED, __version__ = 2, 5, "0"
def setNumThreads(count):
    assert count in (1, 2)
def matchTemplate(image, feature, method, result):
    patches = np.lib.stride_tricks.sliding_window_view(image, feature.shape)
    result[:] = np.einsum("yxij,ij->yx", patches, feature)
    result[0, 0] += 0.1
"""
MISSING = "raise ImportError('hidden by a test')"


def run(folder, *arguments, code=0, **modules):
    """Runs the script in a folder, with these modules in the place of those that are installed."""
    (folder / "modules").mkdir(exist_ok=True)
    for name, text in modules.items():
        (folder / "modules" / f"{name}.py").write_text(text)
    path = os.pathsep.join([str(folder / "modules"), str(cli.ROOT)])
    quiet = "error,ignore::DeprecationWarning"  # PyTorch's own
    environment = {"PYTHONPATH": path, "PYTHONWARNINGS": quiet}
    return cli.run(folder, "experiments.throughput", *arguments, code=code, environment=environment)


def check_rows(found):
    assert [row["task"] for row in found["rows"]] == [
        *SCORES[:1] * 2,
        *SCORES[1:] * 2,
        *NETWORKS,
        *baselines_training.PARTS,
        "occlusion",
    ]
    assert found["peaks"].keys() == {"gflops", "gbytes_per_s"}
    assert {"threads", "libraries", "jax", "device"} <= found.keys()
    for row in found["rows"]:
        assert row.keys() >= KEYS
        assert row["ours_ms"] > 0
        assert row["images_per_s"] == pytest.approx(1e3 * int(row["case"].split("x")[0]) / row["ours_ms"])
        if row["task"] in SCORES:
            assert row["methods"].keys() == {"conv", "shift", "im2col", "fft"}
            assert row["methods"][row["auto"]] > 0
        best = min(row["peers"].values(), default=None)
        assert row["ratio"] == (None if best is None else pytest.approx(best / row["ours_ms"]))
    training, inference, *parts, occlusion = found["rows"][4:]
    assert occlusion["peers"].keys() == {"jax loop"}
    assert training["methods"]["scan"] > 0
    assert {"jax", "jax scan"} <= training["peers"].keys()
    assert "jax" in inference["peers"]
    assert all(row["peers"].keys() == {"jax"} for row in parts)


@pytest.mark.slow
def test_with_what_is_installed(tmp_path):
    out, _ = run(tmp_path, "--quick")
    found = json.loads((tmp_path / "runs/throughput/throughput.json").read_text())
    check_rows(found)
    for row in found["rows"]:
        libraries = {name.split()[0].split(".")[0] for name in row["peers"].keys() | row["skipped"].keys()}
        assert libraries <= found["libraries"].keys() | {"jax"}
    for name in ("opencv", "skimage", "torch", "flax", "equinox"):
        assert (f"{name}: not installed" in out) == (name not in found["libraries"])
    assert out.count("| zncc ") == 2
    cli.check_report(tmp_path / "runs/throughput", figures=0)
    assert "train_step, JAX alone: the best takes" in out
    assert "the first step, compiled or read from the cache, took" in out


def test_what_is_not_installed_is_left_out_and_named(monkeypatch):
    for name in ("cv2", "skimage", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    modules, lines = baselines_matching.load(["opencv", "skimage", "torch"], 2)
    assert modules == {}
    assert lines == [
        "opencv: not installed, so not compared; pip install 'cnn_jax[bench]'",
        "skimage: not installed, so not compared; pip install 'cnn_jax[bench]'",
        "torch: not installed, so not compared; pip install torch",
    ]


def test_who_computes_something_else_is_not_timed(tmp_path):
    _, err = run(tmp_path, "--quick", code=2, cv2=WRONG, skimage=MISSING, torch=MISSING)
    assert err.splitlines()[-1].startswith("error: match 16x28x28, 4x3x3: opencv: its result differs from ours by 0.1")
    assert not (tmp_path / "runs/throughput/throughput.json").exists()


def test_results_are_compared():
    maps = np.array([[1.0, -100.0]])
    benchmark.check_equal_results("a", maps + 0.09, maps)
    for other in (maps + 0.11, np.array([[np.nan, -100.0]])):
        with pytest.raises(ValueError, match="a: its result differs from ours by"):
            benchmark.check_equal_results("a", other, maps)
    with pytest.raises(ValueError, match=r"a: its result has shape \(2, 1\), ours \(1, 2\)"):
        benchmark.check_equal_results("a", maps.T, maps)


def test_everyone_takes_turns(monkeypatch):
    monkeypatch.setattr(benchmark, "SLOW", -1.0)
    taken = {"a": 0, "b": 0, "c": 0}

    def call(name):
        taken[name] += 1

    calls = {name: lambda name=name: call(name) for name in taken}
    medians = benchmark.median_ms(calls, min_seconds=0.0, few_rounds=["c"])
    assert medians.keys() == taken.keys()
    assert taken == {"a": benchmark.ROUNDS, "b": benchmark.ROUNDS, "c": benchmark.FEW_ROUNDS}


def test_a_row_says_how_much_longer_the_best_peer_takes(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock[0])

    def call(milliseconds):
        def advance():
            clock[0] += 1e-3 * milliseconds
            return np.ones(1)

        return advance

    calls = benchmark.BenchmarkCase(
        ours=call(2),
        peers={"a": call(9), "b": call(60)},
        methods={"x": None, "y": call(3)},
        auto="y",
        multiply_adds=1000,
        bytes=500,
        skipped={},
        images=4,
        repeats={"b": 10},
    )
    row = benchmark.run_case("match", "one", calls, min_seconds=0.02)
    assert row["ours_ms"] == pytest.approx(2)
    assert row["peers"] == pytest.approx({"a": 9, "b": 6})
    assert row["methods"] == {"x": None, "y": pytest.approx(3)}
    assert row["ratio"] == pytest.approx(3)
    assert row["images_per_s"] == pytest.approx(2000)
    assert row["gflops"] == pytest.approx(1e-3)
    assert row["gbytes_per_s"] == pytest.approx(2.5e-4)
    others = [row | {"ratio": 12.0}, row | {"ratio": None}]
    summary = throughput.summaries([row, *others])
    assert summary == {"match": pytest.approx({"geometric_mean": 6, "smallest": 3})}
    table = throughput.table([row, *others], {"gflops": 1.0, "gbytes_per_s": 1.0})
    assert len(table) == 4
    assert len({len(cells) for cells in table}) == 1
