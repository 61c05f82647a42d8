"""experiments.accelerators, compiling for the CPU where the test is of the script, and for a TPU in a slow test."""

import importlib.util
import json

import jax
import pytest

from experiments import accelerators
from experiments._lib.accelerator_cases import CASES
from experiments._lib.ahead_of_time import compile_for, devices_of
from tests.helpers import cli

CASE = "match 1x256x256, 1x9x9"
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None or jax.__version_info__ < (0, 12),
    reason="the extra aot is not installed",
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


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("name", ["cosine 1x256x256, 1x9x9", "zncc 1x256x256, 1x9x9", CASE])
def test_scores_compile_in_seconds_for_a_tpu(name):
    program = compile_for(devices_of("v5e")[:1], CASES[name].ours, CASES[name].arguments)
    assert program.operations["convolution"] == 1
    assert program.compile_seconds < 20  # 40 without rows as channels, 2 with them
