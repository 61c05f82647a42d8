"""experiments.throughput: what is installed is compared and timed, and the rows are written."""

import json
import os

import numpy as np
import pytest

from experiments import throughput
from experiments._lib import (
    benchmark_network,
    conv_methods,
    throughput_explain,
    throughput_matching,
    throughput_training,
)
from experiments._lib.baselines_layers import GROUPED_BENCHMARKS, LAYER_BENCHMARKS
from tests.helpers import cli

KEYS = {
    *("task", "case", "ours_ms", "spread", "images_per_s", "first_call_s"),
    *("peers", "peers_first_call_s", "peers_in_16_bits", "ratio", "methods", "regret"),
}
SCORES = ("match", "zncc")

# OpenCV's matchTemplate with a wrong corner.
WRONG_OPENCV = """
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
    """Runs the script in a folder; the given modules replace installed ones."""
    (folder / "modules").mkdir(exist_ok=True)
    for name, text in modules.items():
        (folder / "modules" / f"{name}.py").write_text(text)
    path = os.pathsep.join([str(folder / "modules"), str(cli.ROOT)])
    environment = {"PYTHONPATH": path, "PYTHONWARNINGS": "error,ignore::DeprecationWarning"}  # PyTorch has some
    return cli.run(folder, "experiments.throughput", *arguments, code=code, environment=environment)


def check_row(row):
    assert row.keys() >= KEYS
    assert row["ours_ms"] > 0
    assert row["images_per_s"] == pytest.approx(1e3 * int(row["case"].split("x")[0]) / row["ours_ms"])
    fastest = min(row["peers"].values(), default=None)
    assert row["ratio"] == (None if fastest is None else pytest.approx(fastest / row["ours_ms"]))
    if row["task"] in SCORES:
        assert row["methods"].keys() == {"conv", "shift", "im2col", "fft"}
        assert row["methods"][row["auto"]] > 0
        assert row["regret"] == pytest.approx(row["ours_ms"] / min(filter(None, row["methods"].values())))
    assert row["spread"] >= 0
    assert row["peers_first_call_s"].keys() == row["peers"].keys()


def check_content(content):
    assert content["peaks"].keys() == {"gflops", "gbytes_per_s"}
    assert {"summary", "threads", "libraries", "load_before", "jax", "device"} <= content.keys()
    for row in content["rows"]:
        check_row(row)


def test_a_quick_run_writes_rows_and_a_report(tmp_path, monkeypatch, capsys):
    cases = [throughput_matching.MatchingCase(2, (9, 8), 2, (3, 3))]
    monkeypatch.setattr(throughput, "TASKS", {"match": throughput.Task(throughput_matching.score_benchmark, [], cases)})
    monkeypatch.setattr(throughput, "pin_cpus", lambda count: count)
    monkeypatch.setattr(throughput.baselines_matching, "import_libraries", lambda names, threads: ({}, ["none here"]))
    content = throughput.main(throughput.Throughput(quick=True, out=tmp_path))
    check_content(content)
    assert json.loads((tmp_path / "throughput.json").read_text()) == content
    assert [row["case"] for row in content["rows"]] == ["2x9x8, 2x3x3"]
    cli.check_report(tmp_path, figures=0)
    out = capsys.readouterr().out
    assert "none here" in out
    assert out.count("| match ") == 1


def test_tasks_are_chosen_by_name():
    assert list(throughput.choose_tasks(("zncc", "match"))) == ["match", "zncc"]
    assert throughput.choose_tasks(()) == throughput.TASKS
    with pytest.raises(ValueError, match=r"--tasks: expected some of 'match', 'zncc', .*, got 'conv2'"):
        throughput.choose_tasks(("match", "conv2"))


@pytest.mark.slow
def test_a_run_with_what_is_installed(tmp_path):
    out, _ = run(tmp_path, "--quick")
    content = json.loads((tmp_path / "runs/throughput/throughput.json").read_text())
    check_content(content)
    searches = ["zncc call", "find call", "find", "find bank"]
    tasks = [
        "match",
        "match",
        "zncc",
        "zncc",
        *searches,
        "train_step",
        "inference",
        *LAYER_BENCHMARKS,
        *GROUPED_BENCHMARKS,
    ]
    tasks.append("occlusion")
    assert [row["task"] for row in content["rows"]] == tasks
    for row in content["rows"][4:6]:
        assert row["methods"]["eager"] > 0
    assert content["rows"][6]["methods"]["72 angles"] > 0
    assert "vmap(zncc)" in content["rows"][7]["peers"]
    training, inference, *layers, occlusion = content["rows"][8:]
    assert occlusion["peers"].keys() == {"jax loop"}
    assert training["methods"]["scan"] > 0
    assert {"jax", "jax scan"} <= training["peers"].keys()
    assert "jax" in inference["peers"]
    assert all(row["peers"].keys() == {"jax"} for row in layers)
    for row in content["rows"]:
        libraries = {name.split()[0].split(".")[0] for name in row["peers"].keys() | row["skipped"].keys()}
        assert libraries <= content["libraries"].keys() | {"jax", "vmap(zncc)"}
    for name in ("opencv", "skimage", "torch", "flax", "equinox"):
        assert (f"{name}: not installed" in out) == (name not in content["libraries"])
    assert out.count("| zncc ") == 3  # two sizes, and the row of calls
    cli.check_report(tmp_path / "runs/throughput", figures=0)
    assert "train_step, plain JAX: the fastest baseline takes" in out
    assert "first call" in out


@pytest.mark.slow
def test_a_library_that_computes_something_else_stops_the_run(tmp_path):
    _, err = run(tmp_path, "--quick", code=2, cv2=WRONG_OPENCV, skimage=MISSING, torch=MISSING)
    assert err.splitlines()[-1].startswith("error: match 16x28x28, 4x3x3: opencv: its result differs from ours by 0.1")
    assert not (tmp_path / "runs/throughput/throughput.json").exists()


def test_cases_are_named_by_their_sizes():
    assert str(throughput_matching.MatchingCase(2, (9, 8), 3, (4, 5))) == "2x9x8, 3x4x5"
    assert str(throughput_training.NetworkCase(6, 8, 1, (3, 4))) == "6x8x8x1, 3-4"
    assert str(throughput_explain.OcclusionCase("xo_net", 8)) == "64x8x8, xo_net"


def test_slow_and_large_methods_are_left_out():
    large = throughput_matching.MatchingCase(1, (2048, 2048), 1, (64, 64))
    small = throughput_matching.MatchingCase(2, (9, 8), 2, (3, 3))
    left_out = {name for name in conv_methods.METHODS if not throughput_matching.is_practical(name, large)}
    assert left_out == {"shift", "im2col"}
    assert all(throughput_matching.is_practical(name, small) for name in conv_methods.METHODS)


def test_features_are_cut_from_the_images():
    images, features = throughput_matching.noise(throughput_matching.MatchingCase(2, (9, 8), 3, (4, 5)))
    assert (images.shape, features.shape) == ((2, 9, 8), (3, 4, 5))
    windows = np.lib.stride_tricks.sliding_window_view(images, (4, 5), (1, 2)).reshape(-1, 4, 5)
    assert all((windows == feature).all((1, 2)).any() for feature in features)


def test_what_needs_too_much_memory_is_skipped_and_named(monkeypatch):
    def too_large(module, threads, images, features):
        raise MemoryError("left out: too large")

    monkeypatch.setattr(
        throughput_matching.baselines_matching,
        "baselines",
        lambda: {"match": {"a": too_large, "b": lambda *_: "call", "c": too_large}},
    )
    arrays = throughput_matching.noise(throughput_matching.MatchingCase(1, (4, 4), 1, (2, 2)))
    calls, skipped = throughput_matching.build_baselines("match", {"a": None, "b": None}, 1, *arrays)
    assert (calls, skipped) == ({"b": "call"}, {"a": "left out: too large"})


def test_only_torch_compile_may_fail(monkeypatch):
    def fail(module, problem):
        def call():
            raise RuntimeError("no compiler\nhere")

        return {"inference": call}

    problem = benchmark_network.Problem(np.zeros((1, 2, 2, 1)), np.zeros(1), (1,), {})
    baseline = throughput_training.BASELINES["torch"]._replace(build=fail)
    monkeypatch.setattr(throughput_training, "BASELINES", {"torch.compile": baseline})
    calls, skipped = throughput_training.build_baselines("inference", {"torch": None}, problem)
    assert (calls, skipped) == ({}, {"torch.compile": "left out: no compiler here"})
    monkeypatch.setattr(throughput_training, "BASELINES", {"torch": baseline})
    with pytest.raises(RuntimeError, match="no compiler"):
        throughput_training.build_baselines("inference", {"torch": None}, problem)
