"""Which algorithm of a convolution is the fastest on this machine?

Claim: with the constants that this script measures, `method="auto"` takes 1.03 times as long as the fastest method on
average, and at most 1.8 times. So it does with the built-in constants, which were fitted to the measurements in
results/.
Evidence: the table that `python -m experiments.calibrate` prints. It times every method that could be the fastest on
layers, on their gradients and on maps of scores. Then it fits the constants of the cost model to the times, and stores
them in the user's cache folder, for this processor, this number of CPUs and this version of jaxlib. `auto` reads them
from there. CNN_JAX_COSTS names another file; if it is empty, the built-in constants are used.

    python -m experiments.calibrate                             less than two minutes
    python -m experiments.calibrate --no-keep                   measures, and leaves the cache as it is
    python -m experiments.calibrate --machines results/*jaxlib*.json   the constants that suit all of these measurements
"""

import dataclasses
import json
import os
import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn_jax import _machine_costs
from cnn_jax.progress import Progress

from ._lib import cli, cost_fit, report
from ._lib.benchmark import time_call
from ._lib.cost_fit import Measured
from ._lib.cost_probes import Probe, calls, probes, tile

ROUNDS = 3
MIN_SECONDS = 0.01
MAX_TIMES_BEST = 6.0  # predicted; slower methods are not timed
BUILT_IN = _machine_costs.BUILT_IN


@dataclasses.dataclass(frozen=True)
class Calibrate:
    """Measure what convolutions cost here, and let "auto" choose by it."""

    keep: bool = True
    """Store the constants in the user's cache folder, or where CNN_JAX_COSTS says."""
    machines: tuple[Path, ...] = ()
    """Files calibrate.json of other runs: nothing is measured or stored, one set of constants is fitted to all."""
    out: Path = Path("runs/calibrate")
    """Folder for report.html and calibrate.json."""


def main(config: Calibrate) -> dict[str, Any]:
    """Measures, fits, prints and writes; returns the content of calibrate.json."""
    out = cli.make_output_dir(config.out)
    machines = [read_rows(path) for path in config.machines] or [measure(list(probes()))]
    costs = cost_fit.fit(machines)
    measured = [row for machine in machines for row in machine]
    content = {
        "constants": _machine_costs.to_json(costs),
        "regret": {"built in": regrets(measured, BUILT_IN), "calibrated": regrets(measured, costs)},
        "rows": [cost_fit.to_row(row) for row in measured],
        "jaxlib": _machine_costs.jaxlib_version,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    } | cli.versions()
    cli.write_json(out / "calibrate.json", content)
    blocks: list[str | report.Table] = [table(measured, costs), *summary(content)]
    if config.keep and not config.machines:
        blocks.append(store(costs))
    report.write_html(out, "calibrate", config, blocks)
    print(report.as_text(blocks))
    return content


def read_rows(path: Path) -> list[Measured]:
    """The measurements of a calibrate.json."""
    try:
        return [cost_fit.from_row(row) for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"--machines: expected files calibrate.json of this script, got {path}: {error!r}") from None


def measure(chosen: Sequence[Probe]) -> list[Measured]:
    """The times of some probes by their methods, the methods in turn."""
    generator = random.Random(0)
    measured = []
    with Progress("calibrate", len(chosen)) as progress:
        for probe in chosen:
            progress.update(len(measured), str(probe))
            by_method = calls(probe, MAX_TIMES_BEST)
            for call in by_method.values():
                call()
            seconds: dict[str, list[float]] = {method: [] for method in by_method}
            for _ in range(ROUNDS):
                for method in generator.sample(list(by_method), len(by_method)):
                    seconds[method].append(time_call(by_method[method], MIN_SECONDS))
            milliseconds = {method: 1e3 * statistics.median(times) for method, times in seconds.items()}
            measured.append(Measured(probe, tile(probe), milliseconds))
        progress.update(len(measured))
    return measured


def regrets(measured: Sequence[Measured], costs: cost_fit.MachineCosts) -> dict[str, float]:
    """The time of the chosen method over that of the best one: the geometric mean and the largest over the probes."""
    values = [cost_fit.regret(row, costs) for row in measured]
    return {"mean": statistics.geometric_mean(values), "largest": max(values)}


def store(costs: cost_fit.MachineCosts) -> str:
    """Writes the constants where `auto` reads them, and says where."""
    path = _machine_costs.costs_file()
    if path is None:
        return "CNN_JAX_COSTS is empty: the constants are not stored"
    path.parent.mkdir(parents=True, exist_ok=True)
    cli.write_json(path, _machine_costs.to_json(costs))
    return f"constants stored in {path}"


def table(measured: Sequence[Measured], costs: cost_fit.MachineCosts) -> report.Table:
    """A row for each probe: times of the methods, predictions in brackets, and the choices."""
    head = ["correlation", *("conv", "shift", "im2col", "fft"), "built in", "its loss", "calibrated", "its loss"]
    return [head] + [
        [
            str(row.probe),
            *(cell(row, method, costs) for method in head[1:5]),
            cost_fit.chosen(row, BUILT_IN),
            f"{cost_fit.regret(row, BUILT_IN):.2f}",
            cost_fit.chosen(row, costs),
            f"{cost_fit.regret(row, costs):.2f}",
        ]
        for row in measured
    ]


def cell(row: Measured, method: str, costs: cost_fit.MachineCosts) -> str:
    """Milliseconds, measured and predicted."""
    if method not in row.milliseconds:
        return "-"
    return f"{row.milliseconds[method]:.3g} ({cost_fit.predicted_ms(row, method, costs):.3g})"


def summary(content: Mapping[str, Any]) -> list[str]:
    """What the choices lose, and what the columns mean."""
    losses = [
        f"{name}: the chosen method takes {values['mean']:.3f} times as long as the fastest one (geometric mean), at "
        f"most {values['largest']:.2f} times"
        for name, values in content["regret"].items()
    ]
    note = "Times are milliseconds, in brackets those predicted with the calibrated constants."
    return [*losses, f"{note} loss: chosen method / fastest one."]


if __name__ == "__main__":
    cli.run_script(lambda: main(cli.parse_options(Calibrate, "calibrate", __doc__)))
