"""experiments.scaling: sizes, counts and fits. Times are not tested: they depend on the machine."""

import dataclasses
import json
import math

import numpy as np
import pytest

from experiments import scaling
from experiments._lib.conv_methods import MAX_SHIFT_PRODUCTS, METHODS
from tests.helpers.cli import check_report, run, run_each

LAWS = ["pixels in the image", "pixels in each feature", "features"]


def tiny_laws(quick):
    def sizes(image=12, feature=3, features=2):
        return scaling.Sizes(image, feature, features)

    return {
        LAWS[0]: [(n * n, sizes(image=n)) for n in (12, 24)],
        LAWS[1]: [(n * n, sizes(feature=n)) for n in (3, 5)],
        LAWS[2]: [(n, sizes(features=n)) for n in (1, 2)],
    }


@pytest.fixture(scope="module", params=["tiny", pytest.param("quick", marks=pytest.mark.slow)])
def measured(request, tmp_path_factory):
    """The folder, the metrics and what was printed: of tiny sizes in this process, of --quick as a user runs it."""
    folder = tmp_path_factory.mktemp("scaling")
    if request.param == "quick":
        out, _ = run(folder, "experiments.scaling", "--quick", "--rounds", 1)
        folder = folder / "runs/scaling"
    else:
        capture = pytest.MonkeyPatch()
        lines = []
        with capture.context() as patch:
            patch.setattr(scaling, "laws", tiny_laws)
            patch.setattr(scaling, "print", lines.append, raising=False)
            scaling.main(scaling.Scaling(out=folder, quick=True, rounds=1))
        out = "\n".join(lines)
    return folder, json.loads((folder / "metrics.json").read_text()), out


def test_everything_is_written_and_printed(measured):
    folder, metrics, out = measured
    assert sorted(path.name for path in folder.iterdir()) == ["laws.png", "metrics.json", "pooling.png", "report.html"]
    check_report(folder, figures=2)
    assert (metrics["quick"], metrics["rounds"], metrics["seed"]) == (True, 1, 0)
    assert {"python", "jax", "numpy", "device"} <= metrics.keys()
    assert list(metrics["laws"]) == LAWS
    for name in (*LAWS, *METHODS, "multiply-adds", "pooling + next layer"):
        assert f"| {name} " in out, name


@pytest.mark.parametrize("law", LAWS)
def test_each_law_has_its_times_and_counts(measured, law):
    metrics = measured[1]["laws"][law]
    values = metrics["values"]
    sizes = metrics["sizes"]
    work = [size["image"] ** 2 * size["feature"] ** 2 * size["features"] for size in sizes]
    assert metrics["multiply_adds"] == work
    fit = metrics["multiply_adds_fit"]
    assert fit["exponent"] == (pytest.approx(1, abs=0.05) if len(values) > 2 else None)
    assert values == sorted(set(values))
    assert list(metrics["methods"]) == list(METHODS)
    for name, method in metrics["methods"].items():
        timed = [seconds is not None for seconds in method["seconds"]]
        assert timed == [name != "shift" or size["feature"] ** 2 <= MAX_SHIFT_PRODUCTS for size in sizes]
        assert all(seconds > 0 for seconds in method["seconds"] if seconds is not None)
        assert method["fit"]["points"] == len(method["fitted"])
        assert (method["fit"]["exponent"] is None) == (len(method["fitted"]) < 3)


def test_pooling_leaves_a_quarter_of_the_multiply_adds(measured):
    calls = {name: call["multiply_adds"] for name, call in measured[1]["pooling"]["calls"].items()}
    assert calls["next layer"] == 4 * calls["on pooled maps"] == 4 * calls["pooling + next layer"] > 0
    assert calls["pooling"] == 0


def test_power_laws_are_fitted_with_their_uncertainty():
    x = np.array([1.0, 2, 4, 8, 16, 32])
    fit = scaling.fit_power_law(x, 3 * x**0.5)
    assert (fit.exponent, fit.factor, fit.r_squared) == pytest.approx((0.5, 3, 1))
    assert fit.standard_error == pytest.approx(0, abs=1e-9)
    noise = np.random.default_rng(0).normal(0, 0.1, (500, 6))
    fits = [scaling.fit_power_law(x, 3 * x**0.5 * np.exp(deviation)) for deviation in noise]
    exponents = np.array([fit.exponent for fit in fits], float)
    errors = np.array([fit.standard_error for fit in fits], float)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(np.std(exponents), rel=0.1)
    assert 0.9 < np.mean(np.array([fit.r_squared for fit in fits], float)) < 1


def test_constants_have_exponent_0_and_two_points_have_none():
    x = np.array([1.0, 2, 4])
    exponent = scaling.fit_power_law(x, np.ones(3)).exponent
    assert exponent is not None
    assert math.isclose(exponent, 0, abs_tol=1e-12)
    assert scaling.fit_power_law(x[:2], x[:2]) == scaling.Fit(None, None, None, None, 2)


def test_fitted_lines_end_at_the_points_that_count():
    method = {"seconds": [1.0, 2.0, None], "fitted": [0, 1], "fit": {"exponent": 1.0, "factor": 0.5}}
    label, (points, milliseconds, line) = scaling.law_line("fft", method, [2, 4, 8])
    assert (label, points, milliseconds) == ("fft: 1.00", [2, 4], [1000, 2000])
    assert line == ([2, 4], [1000, 2000])


def test_negative_options_are_refused(tmp_path):
    config = scaling.Scaling(out=tmp_path / "out")
    for name in ("rounds", "seed"):
        with pytest.raises(ValueError, match=rf"--{name}: expected at least 0, got -1"):
            scaling.main(dataclasses.replace(config, **{name: -1}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_wrong_arguments_are_refused(tmp_path):
    wrong = [("--rounds", -1), ("--seed", -1), ("--no-such-option", 1), ("--rounds", "many")]
    assert all(err for _, err in run_each(tmp_path, [("experiments.scaling", *words) for words in wrong], code=2))
    assert not (tmp_path / "runs").exists()
