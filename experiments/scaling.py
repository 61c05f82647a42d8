"""Does the cost of matching really grow linearly? The article's cost law, measured.

Claim: the work grows linearly with the pixels in the image, with the pixels in each feature and with the number of
features; pooling reduces the next layer's work to a quarter. The multiply-adds of `cnn_jax.match`, counted by
`cnn_jax.cost`, follow the law exactly. How closely the time follows depends on the method.

Evidence: median times of a bank of features under vmap and jit, while one of the three sizes grows and the others stay
fixed. All methods are timed in the same rounds. Exponents are least-squares fits of log time to log size. Calls shorter
than ten empty calls are left out. The law predicts an exponent of 1. The time of Fourier transforms hardly depends on
the size of the feature.

Source: Rohrer, "How Convolutional Neural Networks Work" (2016), for the law.

    python -m experiments.scaling                 all sizes
    python -m experiments.scaling --quick         fewer and smaller sizes
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

import cnn_jax
from cnn_jax import figures

from ._lib import cli, report
from ._lib.benchmark import Call, compiled_call, median_ms
from ._lib.conv_methods import MAX_SHIFT_PRODUCTS, METHODS

MIN_OVERHEADS = 10  # a call enters the fit if it takes this many times as long as one that does nothing
MIN_SECONDS = 0.005  # of repetitions of a call in a round
ROUNDS = 9
QUICK_ROUNDS = 3
OVERHEAD = "overhead"
FIGURES = {
    "laws.png": "The three laws: time of a bank of features by each method while one size grows; lines: fitted "
    "exponents; dotted: proportional growth",
    "pooling.png": "Pooling: multiply-adds and time, relative to the next layer on maps that are not pooled",
}


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Measure how time and multiply-adds grow with each size, and what pooling saves."""

    out: Path = Path("runs/scaling")
    """Folder for report.html, metrics.json and the figures."""
    quick: bool = False
    """Time fewer and smaller sizes."""
    rounds: int = 0
    """Rounds of timing, of which the median counts; 0 means 9, or 3 with --quick."""
    seed: int = 0
    """Seed of the pixels."""


class Fit(NamedTuple):
    """A power law, y = factor x^exponent, fitted by least squares on logarithms. All None for fewer than 3 points."""

    exponent: float | None
    standard_error: float | None
    """Standard error of the exponent."""
    r_squared: float | None
    factor: float | None
    points: int


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One bank of square features and one square image, by their sides."""

    image: int
    feature: int
    features: int

    def function(self, method: str) -> Callable[..., jax.Array]:
        """The bank (image, features) -> maps. Borders are padded, so that every sum has all pixels."""
        return jax.vmap(functools.partial(cnn_jax.match, padding="SAME", method=method), in_axes=(None, 0))

    def shapes(self) -> list[jax.ShapeDtypeStruct]:
        """The shapes of the function's arguments."""
        shapes = (self.image, self.image), (self.features, self.feature, self.feature)
        return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]


Laws = Mapping[str, Sequence[tuple[int, Sizes]]]
"""What grows in each law: its value and the sizes, smallest first."""


def laws(quick: bool) -> Laws:
    """The three laws."""
    images = (64, 128, 256) if quick else (64, 96, 128, 192, 256, 384, 512, 768)
    windows = (3, 7, 15) if quick else (3, 5, 7, 9, 13, 19, 25, 33)
    counts = (4, 8, 32) if quick else (1, 2, 4, 8, 16, 32, 64, 128)
    fixed = Sizes(128, 7, 8) if quick else Sizes(256, 9, 16)
    return {
        "pixels in the image": [(n * n, dataclasses.replace(fixed, image=n)) for n in images],
        "pixels in each feature": [(n * n, dataclasses.replace(fixed, feature=n)) for n in windows],
        "features": [(n, dataclasses.replace(fixed, features=n)) for n in counts],
    }


def fit_power_law(x: ArrayLike, y: ArrayLike) -> Fit:
    """The power law through positive points."""
    log_x = np.log(x)
    log_y = np.log(y)
    points = log_x.size
    if points < 3:
        return Fit(None, None, None, None, points)
    exponent, constant = np.polyfit(log_x, log_y, 1)
    residual = np.sum((log_y - exponent * log_x - constant) ** 2)
    variation = np.sum((log_y - log_y.mean()) ** 2)
    error = math.sqrt(residual / (points - 2) / np.sum((log_x - log_x.mean()) ** 2))
    r_squared = 1 - residual / variation if variation > 0 else 1.0
    return Fit(float(exponent), error, float(r_squared), math.exp(constant), points)


def measure_laws(config: Scaling, rounds: int) -> dict[str, Any]:
    """Sizes, multiply-adds, times and exponents of the three laws."""
    growth = laws(config.quick)
    all_sizes = list(dict.fromkeys(sizes for steps in growth.values() for _, sizes in steps))
    multiply_adds = {sizes: cnn_jax.cost(sizes.function("auto"), *sizes.shapes()).multiply_adds for sizes in all_sizes}
    calls: dict[Any, Call] = {OVERHEAD: compiled_call(lambda x: x + 1, jnp.zeros(()))}
    calls |= bank_calls(all_sizes, config.seed)
    milliseconds = median_ms(calls, min_seconds=MIN_SECONDS, rounds=rounds, title="matching")
    seconds = {name: value / 1e3 for name, value in milliseconds.items()}
    return {
        "overhead_seconds": seconds[OVERHEAD],
        "laws": {law: law_metrics(steps, multiply_adds, seconds) for law, steps in growth.items()},
    }


def bank_calls(all_sizes: Sequence[Sizes], seed: int) -> dict[tuple[Sizes, str], Call]:
    """The calls to time, by sizes and method."""
    rng = np.random.default_rng(seed)
    calls = {}
    for sizes in all_sizes:
        arrays = [jnp.asarray(rng.uniform(-1, 1, shape.shape), shape.dtype) for shape in sizes.shapes()]
        for method in METHODS:
            if method != "shift" or sizes.feature**2 <= MAX_SHIFT_PRODUCTS:
                calls[sizes, method] = compiled_call(sizes.function(method), *arrays)
    return calls


def law_metrics(
    steps: Sequence[tuple[int, Sizes]], multiply_adds: Mapping[Sizes, int], seconds: Mapping[Any, float]
) -> dict[str, Any]:
    """One law's part of metrics.json."""
    values = [value for value, _ in steps]
    work = [multiply_adds[sizes] for _, sizes in steps]
    methods = {}
    for method in METHODS:
        times = [seconds.get((sizes, method)) for _, sizes in steps]
        fitted = {i: t for i, t in enumerate(times) if t is not None and t > MIN_OVERHEADS * seconds[OVERHEAD]}
        fit = fit_power_law([values[i] for i in fitted], list(fitted.values()))
        methods[method] = {"seconds": times, "fitted": list(fitted), "fit": fit._asdict()}
    return {
        "sizes": [dataclasses.asdict(sizes) for _, sizes in steps],
        "values": values,
        "multiply_adds": work,
        "multiply_adds_fit": fit_power_law(values, work)._asdict(),
        "methods": methods,
    }


def measure_pooling(config: Scaling, rounds: int) -> dict[str, Any]:
    """Time and multiply-adds of a bank of features on the maps of another one, and on pooled maps."""
    side, channels, count, window = (64, 8, 8, 5) if config.quick else (256, 16, 16, 5)
    rng = np.random.default_rng(config.seed)
    maps = jnp.asarray(rng.uniform(-1, 1, (side, side, channels)), jnp.float32)
    features = jnp.asarray(rng.uniform(-1, 1, (count, window, window, channels)), jnp.float32)
    layer = jax.vmap(functools.partial(cnn_jax.match, padding="SAME"), in_axes=(None, 0))
    functions = {
        "next layer": (layer, (maps, features)),
        "on pooled maps": (layer, (cnn_jax.max_pool(maps), features)),
        "pooling": (cnn_jax.max_pool, (maps,)),
        "pooling + next layer": (lambda maps, features: layer(cnn_jax.max_pool(maps), features), (maps, features)),
    }
    calls = {name: compiled_call(function, *arguments) for name, (function, arguments) in functions.items()}
    milliseconds = median_ms(calls, min_seconds=MIN_SECONDS, rounds=rounds, title="pooling")
    return {
        "maps": maps.shape,
        "features": features.shape,
        "calls": {
            name: {
                "seconds": milliseconds[name] / 1e3,
                "multiply_adds": cnn_jax.cost(function, *arguments).multiply_adds,
            }
            for name, (function, arguments) in functions.items()
        },
    }


def tables(measured: Mapping[str, Any]) -> list[report.Table]:
    """The exponents, and what pooling saves."""
    exponents = [["grows with", "what", "exponent ± s.e.", "R²", "points"]]
    for law, metrics in measured["laws"].items():
        fits = {"multiply-adds": metrics["multiply_adds_fit"]}
        fits |= {name: method["fit"] for name, method in metrics["methods"].items()}
        exponents += [[law, name, *fit_cells(fit)] for name, fit in fits.items()]
    calls = measured["pooling"]["calls"]
    reference = calls["next layer"]["seconds"]
    savings = [["call", "multiply-adds", "time (ms)", "relative to next layer"]]
    for name, call in calls.items():
        seconds = call["seconds"]
        savings.append([name, f"{call['multiply_adds']:,}", f"{1e3 * seconds:.3f}", f"{seconds / reference:.3f}"])
    return [exponents, savings]


def fit_cells(fit: Mapping[str, Any]) -> list[str]:
    """A fit's exponent, R² and number of points."""
    if fit["exponent"] is None:
        return ["-", "-", str(fit["points"])]
    exponent = f"{fit['exponent']:.3f} ± {fit['standard_error']:.3f}"
    return [exponent, f"{fit['r_squared']:.3f}", str(fit["points"])]


def draw(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the three laws and of pooling, by name."""
    panels = {
        law: dict(law_line(name, method, metrics["values"]) for name, method in metrics["methods"].items())
        for law, metrics in measured["laws"].items()
    }
    calls = measured["pooling"]["calls"]
    shares = {
        name: {key.replace("_", "-"): call[key] / calls["next layer"][key] for key in ("multiply_adds", "seconds")}
        for name, call in calls.items()
    }
    return {
        "laws": figures.power_laws(panels, ylabel="time (ms)", title="Time of a bank of features, and its exponents"),
        "pooling": figures.bars(shares, ylabel="relative to the next layer", title="What pooling saves"),
    }


def law_line(name: str, method: Mapping[str, Any], values: Sequence[int]) -> tuple[str, Any]:
    """A method's label, and its points and the ends of its fitted line, in milliseconds."""
    timed = [i for i, seconds in enumerate(method["seconds"]) if seconds is not None]
    points = [values[i] for i in timed]
    milliseconds = [1e3 * method["seconds"][i] for i in timed]
    fit = method["fit"]
    if fit["exponent"] is None:
        return name, (points, milliseconds, None)
    ends = [values[i] for i in (method["fitted"][0], method["fitted"][-1])]
    line = [1e3 * fit["factor"] * end ** fit["exponent"] for end in ends]
    return f"{name}: {fit['exponent']:.2f}", (points, milliseconds, (ends, line))


def main(config: Scaling) -> dict[str, Any]:
    """Measures, draws, prints and writes; returns the content of metrics.json."""
    cli.check_not_negative("--rounds", config.rounds)
    cli.check_not_negative("--seed", config.seed)
    rounds = config.rounds or (QUICK_ROUNDS if config.quick else ROUNDS)
    out = cli.make_output_dir(config.out)
    measured = measure_laws(config, rounds) | {"pooling": measure_pooling(config, rounds)}
    metrics = {"quick": config.quick, "rounds": rounds, "seed": config.seed} | measured | cli.versions()
    for name, figure in draw(measured).items():
        figures.save(figure, out / f"{name}.png")
    cli.write_json(out / "metrics.json", metrics)
    results = tables(measured)
    report.write_html(out, "scaling", config, results, FIGURES)
    print(report.as_text(results))
    return metrics


if __name__ == "__main__":
    cli.run_script(lambda: main(cli.parse_options(Scaling, "scaling", __doc__)))
