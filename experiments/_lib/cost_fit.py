"""Constants of the cost model from measured times, and what its choices then lose."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

from cnn_jax import _cost_model, _machine_costs

from .cost_probes import Probe, shapes

MachineCosts = _machine_costs.MachineCosts
# How much a change of a constant weighs beside an error of a time. It decides where no probe tells the constant.
PRIOR_WEIGHT = 0.1
CALL_MS = 0.005  # assumed of any call: the smallest probes take 0.0055 to 0.008
SHARPNESS = 10.0  # of a softened choice: a method of twice the predicted time is taken a thousandth as often
SEARCHES = 20
START_DEVIATION = 0.3
MAX_STEPS = 50


class Measured(NamedTuple):
    """The milliseconds of a probe by its methods, and the tile that "fft" used."""

    probe: Probe
    tile: tuple[int, int]
    milliseconds: Mapping[str, float]


def fit(machines: Sequence[Sequence[Measured]]) -> MachineCosts:
    """The constants by which the choices lose least time on some machines.

    The loss is the mean squared logarithm of chosen over best time. It has steps, so the searches follow the loss of a
    softened choice, which takes each method with a probability that falls with its predicted time. They begin near the
    constants whose predictions are nearest to the measured times, and the result with the least loss counts.
    """
    measured = [row for machine in machines for row in machine]

    def softened(logarithms: np.ndarray) -> float:
        costs = costs_at(logarithms)
        losses = [soft_loss(row, costs) ** 2 for row in measured]
        return float(np.mean(losses) + PRIOR_WEIGHT * np.mean((logarithms - nearest) ** 2))

    nearest = nearest_constants(machines)
    generator = np.random.default_rng(0)
    candidates = [nearest, logarithms_of(_machine_costs.BUILT_IN)]
    for _ in range(SEARCHES):
        start = nearest + generator.normal(scale=START_DEVIATION, size=nearest.shape)
        found = optimize.minimize(softened, start, method="L-BFGS-B", options={"maxiter": MAX_STEPS})
        candidates.append(found.x)
    return min(map(costs_at, candidates), key=lambda costs: sum(math.log(regret(row, costs)) ** 2 for row in measured))


def nearest_constants(machines: Sequence[Sequence[Measured]]) -> np.ndarray:
    """The logarithms of the constants whose predictions are nearest to the measured times.

    Least squares of the logarithms of predicted over measured times. Of several machines every one may be faster or
    slower as a whole, since choices depend on ratios alone.
    """
    start = logarithms_of(_machine_costs.BUILT_IN)

    def residuals(parameters: np.ndarray) -> np.ndarray:
        logarithms, speeds = np.split(parameters, [len(start)])
        costs = costs_at(logarithms)
        errors = [
            math.log(predicted_ms(row, method, costs) / milliseconds) + speed
            for speed, machine in zip((0.0, *speeds), machines, strict=True)
            for row in machine
            for method, milliseconds in row.milliseconds.items()
        ]
        return np.array([*errors, *(PRIOR_WEIGHT * (logarithms - start))])

    first = np.concatenate([start, np.zeros(len(machines) - 1)])
    found = optimize.least_squares(residuals, first, loss="soft_l1", f_scale=0.3)
    return found.x[: len(start)]


def soft_loss(measured: Measured, costs: MachineCosts) -> float:
    """The logarithm of the time of a softened choice over the best time."""
    predicted = np.array([predicted_ms(measured, method, costs) for method in measured.milliseconds])
    weights = (predicted.min() / predicted) ** SHARPNESS
    times = np.array(list(measured.milliseconds.values()))
    return math.log(weights @ times / weights.sum() / times.min())


def logarithms_of(costs: MachineCosts) -> np.ndarray:
    """The logarithms of the measured constants, in a fixed order."""
    return np.log([value for constants in _machine_costs.to_json(costs).values() for value in constants.values()])


def costs_at(logarithms: np.ndarray) -> MachineCosts:
    """The constants of some logarithms."""
    values = iter(np.exp(logarithms).tolist())
    built_in = _machine_costs.to_json(_machine_costs.BUILT_IN)
    return _machine_costs.from_json({part: {name: next(values) for name in names} for part, names in built_in.items()})


def predicted_ms(measured: Measured, method: str, costs: MachineCosts) -> float:
    """The cost model's milliseconds, with those of the call."""
    probe = measured.probe
    if method == "fft":
        return CALL_MS + 1e-6 * _cost_model.tile_plan(*shapes(probe), measured.tile, costs.fft).cost_ns
    times = _cost_model.direct_times_ns(probe.image, probe.kernel, cpu_costs=costs.cpu, **probe.options)
    return CALL_MS + 1e-6 * times[method]


def chosen(measured: Measured, costs: MachineCosts) -> str:
    """The method of the least predicted time."""
    return min(measured.milliseconds, key=lambda method: predicted_ms(measured, method, costs))


def regret(measured: Measured, costs: MachineCosts) -> float:
    """The time of the chosen method over that of the best one."""
    return measured.milliseconds[chosen(measured, costs)] / min(measured.milliseconds.values())


def to_row(measured: Measured) -> dict[str, Any]:
    """What `from_row` reads, for a JSON file."""
    return measured.probe._asdict() | {"tile": measured.tile, "milliseconds": measured.milliseconds}


def from_row(row: Mapping[str, Any]) -> Measured:
    """What `to_row` wrote."""
    (top, bottom), (left, right) = row["padding"]
    padding = ((top, bottom), (left, right))
    probe = Probe(row["kind"], tuple(row["image"]), tuple(row["kernel"]), padding, row["channels_first"])
    return Measured(probe, tuple(row["tile"]), row["milliseconds"])
