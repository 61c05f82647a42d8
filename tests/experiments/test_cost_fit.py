"""experiments._lib.cost_fit: constants from times, and what the choices lose."""

import json

import pytest

from cnn_jax import _cost_model
from cnn_jax._machine_costs import BUILT_IN, MachineCosts, from_json, measured_constants, to_json
from experiments._lib import cost_fit, cost_probes
from experiments._lib.cost_fit import Measured

PROBES = list(cost_probes.probes())


def scaled(costs: MachineCosts, factor: float, *names: str) -> MachineCosts:
    content = to_json(costs)
    for constants in content.values():
        constants.update({name: value * factor for name, value in constants.items() if not names or name in names})
    return from_json(content)


def measured_on(costs: MachineCosts) -> list[Measured]:
    """The times that a machine of these costs would have."""
    rows = []
    for probe in PROBES:
        tile = cost_probes.tile(probe)
        methods = ("conv", "shift", "im2col", "fft")
        known = [method for method in methods if method in ("conv", "fft") or method in direct(probe)]
        row = Measured(probe, tile, dict.fromkeys(known, 0.0))
        rows.append(row._replace(milliseconds={m: cost_fit.predicted_ms(row, m, costs) for m in known}))
    return rows


def direct(probe):
    return _cost_model.direct_times_ns(probe.image, probe.kernel, **probe.options)


def test_the_constants_of_a_machine_are_found_from_its_times():
    machine = scaled(BUILT_IN, 3.0, "shift_mac_ns", "im2col_mac_ns", "transform_pixel_ns")
    found = cost_fit.fit([measured_on(machine)])
    for got, expected in zip(found, machine, strict=True):
        assert measured_constants(got) == pytest.approx(measured_constants(expected), rel=0.1)


def test_of_several_machines_the_ratios_count():
    machines = [measured_on(BUILT_IN), measured_on(scaled(BUILT_IN, 2.0))]
    found = cost_fit.fit(machines)
    for got, expected in zip(found, BUILT_IN, strict=True):
        assert measured_constants(got) == pytest.approx(measured_constants(expected), rel=0.05)


def test_the_regret_is_the_time_of_the_choice_over_the_best():
    row = measured_on(BUILT_IN)[0]
    assert cost_fit.regret(row, BUILT_IN) == 1
    chosen = cost_fit.chosen(row, BUILT_IN)
    slower = row._replace(milliseconds={**row.milliseconds, chosen: 3 * max(row.milliseconds.values())})
    best = min(slower.milliseconds.values())
    assert cost_fit.regret(slower, BUILT_IN) == pytest.approx(slower.milliseconds[chosen] / best)


def test_rows_are_read_as_they_were_written():
    for row in measured_on(BUILT_IN)[:3]:
        assert cost_fit.from_row(json.loads(json.dumps(cost_fit.to_row(row)))) == row
