"""Constants of the cost model from a file, and the choices that follow from them."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax import _machine_costs
from cnn_jax._machine_costs import BUILT_IN, MachineCosts, costs_file, from_json, machine_costs, processor, to_json
from tests.helpers.oracles import noise


@pytest.fixture
def costs_from(monkeypatch, tmp_path):
    """Reads the constants from a file of this text, or from none."""

    def read(text):
        path = tmp_path / "costs.json"
        if text is not None:
            path.write_text(text)
        monkeypatch.setenv("CNN_JAX_COSTS", str(path))
        machine_costs.cache_clear()
        return machine_costs()

    yield read
    machine_costs.cache_clear()


def changed(**constants):
    return MachineCosts(dataclasses.replace(BUILT_IN.cpu, **constants), BUILT_IN.fft)


def test_constants_come_from_the_file(costs_from):
    costs = changed(shift_mac_ns=0.5)
    assert costs_from(json.dumps(to_json(costs))) == costs


def test_without_a_file_they_are_built_in(costs_from, monkeypatch):
    assert costs_from(None) == BUILT_IN
    monkeypatch.setenv("CNN_JAX_COSTS", "")
    assert costs_file() is None
    machine_costs.cache_clear()
    assert machine_costs() == BUILT_IN


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ("[1]", r"expected the constants by name, got \[1\]"),
        ('{"cpu": {}}', "expected the constants shift_mac_ns, .*, got {}"),
        (json.dumps(to_json(changed(shift_mac_ns=-1.0))), "expected shift_mac_ns as a number of at least 0, got -1.0"),
        (json.dumps(to_json(changed(shift_mac_ns=math.nan))), "expected shift_mac_ns as a number .*, got nan"),
        (json.dumps(to_json(changed(shift_mac_ns=True))), "expected shift_mac_ns as a number .*, got True"),
    ],
)
def test_a_file_that_is_none_of_constants_is_named(text, message, costs_from):
    with pytest.warns(UserWarning, match=f"costs.json: {message}.*built-in constants are used"):
        assert costs_from(text) == BUILT_IN


def test_a_folder_in_place_of_the_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CNN_JAX_COSTS", str(tmp_path))
    machine_costs.cache_clear()
    with pytest.warns(UserWarning, match="built-in constants are used"):
        assert machine_costs() == BUILT_IN
    machine_costs.cache_clear()


def test_the_file_is_that_of_the_processor_and_jaxlib(monkeypatch):
    monkeypatch.delenv("CNN_JAX_COSTS")
    monkeypatch.setattr(_machine_costs, "processor", lambda: "Some CPU (TM), family 1, model 2")
    monkeypatch.setattr(_machine_costs, "cpu_count", lambda: 3)
    monkeypatch.setattr(_machine_costs, "jaxlib_version", "0.1.2")
    path = costs_file()
    assert path is not None
    assert path.name == "some-cpu-tm-family-1-model-2-3-jaxlib-0-1-2.json"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("model name\t: Old\ncpu family\t: 6\nmodel\t\t: 7\n\nmodel name\t: Other\n", "Old, family 6, model 7"),
        ("model name : Arm core\n", "Arm core"),
    ],
)
def test_processors_of_one_name_differ_by_family_and_model(text, name, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(_machine_costs, "CPUINFO", tmp_path / "cpuinfo")
    assert processor() == name


@pytest.mark.parametrize("text", [None, "processor : 0\n"])
def test_a_processor_without_a_name_has_that_of_python(text, monkeypatch, tmp_path):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(_machine_costs, "CPUINFO", tmp_path / "cpuinfo")
    assert processor()


def test_other_constants_change_the_method_but_no_result(costs_from):
    image, kernel = noise(0, 9, 9, 2), noise(1, 3, 3, 2, 8)

    def convolve():
        """The result and the program, traced anew."""
        jax.clear_caches()
        return np.asarray(cnn.conv(image, kernel)), jax.jit(cnn.conv).lower(image, kernel).as_text()

    costs_from(None)
    expected, built_in_program = convolve()
    costly = dict.fromkeys(_machine_costs.measured_constants(BUILT_IN.cpu), 1000000.0)
    costs_from(json.dumps(to_json(MachineCosts(dataclasses.replace(BUILT_IN.cpu, **costly), BUILT_IN.fft))))
    got, program = convolve()
    assert "stablehlo.fft" in program
    assert "stablehlo.fft" not in built_in_program
    np.testing.assert_allclose(got, expected, atol=1e-5)
    jax.clear_caches()
    assert from_json(to_json(BUILT_IN)) == BUILT_IN
