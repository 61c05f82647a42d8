"""experiments.accelerators, compiling for the CPU where the test is of the script; slow tests compile for others."""

import importlib.util
import json
import os

import jax
import pytest

from experiments import accelerators
from experiments._lib.accelerator_cases import CASES
from experiments._lib.ahead_of_time import compile_for, devices_of
from tests.helpers import cli

CASE = "match 1x256x256, 1x9x9"
# Without JAX_PLATFORMS=cpu the plug-ins look for their devices.
has_compilers = importlib.util.find_spec("libtpu") is not None and os.environ.get("JAX_PLATFORMS") == "cpu"
needs_compilers = pytest.mark.skipif(
    not has_compilers, reason="the extra aot is not installed, or not JAX_PLATFORMS=cpu"
)


def test_a_run_compares_with_plain_jax(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(accelerators, "devices_of", lambda name: jax.devices("cpu")[:1])
    config = accelerators.Accelerators(targets=("v5e",), cases=(CASE, "peaks"), out=tmp_path)
    content = accelerators.main(config)
    match_row, peaks_row = content["rows"]
    assert (match_row["target"], match_row["case"]) == ("v5e", CASE)
    assert match_row["jax"]["operations"]["convolution"] == 1
    assert peaks_row["jax"] is None
    assert json.loads((tmp_path / "metrics.json").read_text())["rows"][0]["ours"]["flops"] > 0
    cli.check_report(tmp_path, figures=0)
    assert CASE in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": ("v9",)}, "--targets: expected some of v4, .*, got 'v9'"),
        ({"targets": ()}, "--targets: expected some of v4, .*, got ''"),
        ({"cases": ("x",)}, "--cases: .* got 'x'"),
    ],
)
def test_unknown_names_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        accelerators.main(accelerators.Accelerators(**options, out=tmp_path))


# The counts that matter, of programs that the compilers for these accelerators made. Seconds are those of two idle
# cores, times four.


def programs(target, name):
    """The programs of a case, ours and plain JAX's."""
    case = CASES[name]
    devices = devices_of(target)[: None if case.divided else 1]
    return [compile_for(devices, function, case.arguments, case.divided) for function in case[:2] if function]


@needs_compilers
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("match 1x256x256, 1x9x9", 5),
        ("match 256x28x28, 16x3x3", 5),
        ("cosine 1x256x256, 1x9x9", 5),
        ("zncc 1x256x256, 1x9x9", 5),
        ("zncc 16x256x256, 8x9x9", 5),
        ("find 480x640, 64x64, 36 angles", 20),
    ],
)
def test_scores_and_search_compile_in_seconds_for_a_tpu(name, seconds):
    program = programs("v5e", name)[0]
    assert program.compile_seconds < 4 * seconds
    if not name.startswith("find"):
        assert program.operations["convolution"] == 1  # of all images with all features; products of matrices count


@needs_compilers
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("target", ["v5e", "v6e"])
def test_a_training_step_on_a_tpu_moves_no_more_bytes_than_plain_jax(target, dtype):
    ours, plain_jax = programs(target, f"training step 512x32x32x3, 64-128, {dtype}")
    for field in ("bytes_accessed", "temporary_bytes"):
        assert getattr(ours, field) <= 1.05 * getattr(plain_jax, field)
    for operation in ("transpose", "scatter", "while", "convolution"):
        assert ours.operations.get(operation, 0) <= plain_jax.operations.get(operation, 0)


@needs_compilers
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_step_on_a_gpu_has_the_fused_kernels_of_plain_jax(dtype):
    ours, plain_jax = programs("h100", f"training step 512x32x32x3, 64-128, {dtype}")
    assert ours.custom_calls == plain_jax.custom_calls
    assert ours.custom_calls["__cudnn$convBiasActivationForward"] == 2
    assert ours.operations["fusion"] <= plain_jax.operations["fusion"]
    assert (ours.temporary_bytes or 0) <= (plain_jax.temporary_bytes or 0)
    assert "select-and-scatter" not in ours.operations


@needs_compilers
@pytest.mark.slow
def test_no_pool_of_a_gpu_scatters():
    """Its result would not be the same in every run."""
    ours, _ = programs("h100", "max_pool's gradient 256x16x16x64")
    assert not {"scatter", "select-and-scatter"} & ours.operations.keys()


@needs_compilers
@pytest.mark.slow
def test_devices_add_all_gradients_at_once():
    ours, plain_jax = programs("v5e", "data-parallel training step 512x32x32x3, 64-128, bfloat16")
    assert ours.operations["all-reduce"] == plain_jax.operations["all-reduce"] == 1
