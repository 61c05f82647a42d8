"""The cost law's script, run as a user runs it. What it times is not tested: times are whatever the machine gives."""

import json
import math

import numpy as np
import pytest

from experiments import scaling
from tests.helpers.cli import check_report, run, run_each

LAWS = ["pixels in the image", "pixels in each feature", "features"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaling")
    out, _ = run(folder, "experiments.scaling", "--quick", "--rounds", 1)
    return folder / "runs/scaling", json.loads((folder / "runs/scaling/metrics.json").read_text()), out


def test_everything_is_written_and_printed(measured):
    folder, metrics, out = measured
    assert sorted(path.name for path in folder.iterdir()) == ["laws.png", "metrics.json", "pooling.png", "report.html"]
    check_report(folder, figures=2)
    assert (metrics["quick"], metrics["rounds"], metrics["seed"]) == (True, 1, 0)
    assert {"python", "jax", "numpy", "device"} <= metrics.keys()
    assert list(metrics["laws"]) == LAWS
    for name in (*LAWS, *scaling.METHODS, "multiply-adds", "pooling + next layer"):
        assert f"| {name} " in out, name


@pytest.mark.parametrize("law", LAWS)
def test_each_law_has_its_times_and_counts(measured, law):
    of = measured[1]["laws"][law]
    values, sizes = of["values"], of["sizes"]
    assert of["multiply_adds"] == [size["image"] ** 2 * size["feature"] ** 2 * size["features"] for size in sizes]
    assert of["multiply_adds_fit"]["exponent"] == pytest.approx(1, abs=0.05)
    assert values == sorted(set(values))
    assert list(of["methods"]) == list(scaling.METHODS)
    for name, method in of["methods"].items():
        timed = [seconds is not None for seconds in method["seconds"]]
        assert timed == [
            name != "shift" or size["feature"] ** 2 <= scaling.CPU_COSTS.shift_max_products for size in sizes
        ]
        assert all(seconds > 0 for seconds in method["seconds"] if seconds is not None)
        assert method["fit"]["points"] == len(method["fitted"])
        assert (method["fit"]["exponent"] is None) == (len(method["fitted"]) < 3)


def test_pooling_leaves_a_quarter_of_the_multiply_adds(measured):
    calls = {name: call["multiply_adds"] for name, call in measured[1]["pooling"]["calls"].items()}
    assert calls["next layer"] == 4 * calls["on pooled maps"] == 4 * calls["pooling + next layer"] > 0
    assert calls["pooling"] == 0


def test_power_laws_are_found_with_their_uncertainty():
    x = np.array([1.0, 2, 4, 8, 16, 32])
    fit = scaling.power_law(x, 3 * x**0.5)
    assert (fit["exponent"], fit["factor"], fit["r_squared"]) == pytest.approx((0.5, 3, 1))
    assert fit["standard_error"] == pytest.approx(0, abs=1e-9)
    noise = np.random.default_rng(0).normal(0, 0.1, (500, 6))
    fits = [scaling.power_law(x, 3 * x**0.5 * np.exp(each)) for each in noise]
    spread = np.std([fit["exponent"] for fit in fits])
    assert np.sqrt(np.mean([fit["standard_error"] ** 2 for fit in fits])) == pytest.approx(spread, rel=0.1)
    assert 0.9 < np.mean([fit["r_squared"] for fit in fits]) < 1
    assert scaling.power_law(x[:2], x[:2])["exponent"] is None
    assert math.isclose(scaling.power_law(x, np.ones(6))["exponent"], 0, abs_tol=1e-12)


def test_wrong_arguments_are_refused(tmp_path):
    wrong = [("--rounds", -1), ("--seed", -1), ("--no-such-option", 1), ("--rounds", "many")]
    assert all(err for _, err in run_each(tmp_path, [("experiments.scaling", *words) for words in wrong], code=2))
    assert not (tmp_path / "runs").exists()
