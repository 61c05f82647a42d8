"""Does the cost of matching really grow linearly? The article's cost law, measured.

Claim: the work grows linearly with the pixels in the image, with the pixels in each feature and with the number of
features, and pooling leaves the next layer a quarter of it. The multiply-adds of `cnn_jax.match`, counted by
`cnn_jax.cost`, follow the law exactly; how closely time follows depends on the method.

Evidence: median times of a bank of features under vmap and jit while one of the three sizes grows and the others stay,
all methods in turn in the same rounds; exponents by least squares on logarithms, over the calls that take well more
than a call's overhead. An exponent of 1 is the law; Fourier transforms owe the size of the feature next to nothing.

Source: Rohrer, "How Convolutional Neural Networks Work" (2016), for the law.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import cnn_jax
from cnn_jax import figures
from cnn_jax._correlate import METHODS
from cnn_jax._cost_model import CPU_COSTS
from cnn_jax.progress import Progress

from ._lib import cli, report

# A call this many times as long as one that does nothing is more than overhead.
ABOVE_OVERHEAD = 10
# Short calls are repeated until they take this many seconds together.
LONG_ENOUGH = 0.005
FIGURES = {
    "laws.png": "The three laws: time of a bank of features by each method while one size grows, lines of the fitted "
    "exponents, and dotted what is proportional",
    "pooling.png": "Pooling: multiply-adds and time, as shares of the next layer's on maps as they are",
}


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How time and multiply-adds grow with image pixels, feature pixels and features; and what pooling saves."""

    out: Path = Path("runs/scaling")
    """Folder for report.html, metrics.json and the figures."""
    quick: bool = False
    """Fewer and smaller sizes, for a first look."""
    rounds: int = 0
    """How often everything is timed, for the median; 0 is 3 when quick and 9 otherwise."""
    seed: int = 0
    """For the pixels of images and features."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One bank of square features and one square image, by their sides."""

    image: int
    feature: int
    features: int

    def call(self, method: str) -> tuple[Callable[..., jax.Array], Sequence[jax.ShapeDtypeStruct]]:
        """The bank as a function, and its arguments' shapes; borders are padded, so that all sums have all pixels."""
        match = functools.partial(cnn_jax.match, padding="SAME", method=method)
        shapes = (self.image, self.image), (self.features, self.feature, self.feature)
        return jax.vmap(match, in_axes=(None, 0)), [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]


def laws(quick: bool) -> dict[str, list[tuple[int, Sizes]]]:
    """What grows in each law: its value and the sizes, smallest first."""
    if quick:
        images, windows, counts, fixed = (64, 128, 256), (3, 7, 15), (4, 8, 32), Sizes(128, 7, 8)
    else:
        images = (64, 96, 128, 192, 256, 384, 512, 768)
        windows, counts, fixed = (3, 5, 7, 9, 13, 19, 25, 33), (1, 2, 4, 8, 16, 32, 64, 128), Sizes(256, 9, 16)
    return {
        "pixels in the image": [(n * n, dataclasses.replace(fixed, image=n)) for n in images],
        "pixels in each feature": [(n * n, dataclasses.replace(fixed, feature=n)) for n in windows],
        "features": [(n, dataclasses.replace(fixed, features=n)) for n in counts],
    }


def timed(calls: Sequence[Callable[[], Any]], rounds: int, title: str) -> list[float]:
    """Median seconds of each call, all of them in turn in every round, after a warm-up that compiles."""
    repeats, seconds = [], []
    with Progress(title, len(calls) * (rounds + 1)) as progress:

        def clock(call: Callable[[], Any], times: int) -> float:
            start = time.perf_counter()
            for _ in range(times):
                jax.block_until_ready(call())
            return (time.perf_counter() - start) / times

        for i, call in enumerate(calls):
            clock(call, 1)
            repeats.append(max(1, math.ceil(LONG_ENOUGH / clock(call, 1))))
            progress.update(i + 1, "compiling")
        for turn in range(1, rounds + 1):
            seconds.append([clock(call, times) for call, times in zip(calls, repeats, strict=True)])
            progress.update((turn + 1) * len(calls), f"round {turn} of {rounds}")
    return np.median(seconds, axis=0).tolist()


def power_law(x: Sequence[float], y: Sequence[float]) -> dict[str, float | int | None]:
    """y = factor x^exponent by least squares on logarithms: also the exponent's standard error, and R²."""
    points = len(x)
    if points < 3:
        return {"exponent": None, "standard_error": None, "r_squared": None, "factor": None, "points": points}
    u, v = np.log(x), np.log(y)
    exponent, constant = np.polyfit(u, v, 1)
    rest, spread = np.sum((v - exponent * u - constant) ** 2), np.sum((v - v.mean()) ** 2)
    error = math.sqrt(rest / (points - 2) / np.sum((u - u.mean()) ** 2))
    explained = 1 - rest / spread if spread > 0 else 1.0
    return {
        "exponent": float(exponent),
        "standard_error": error,
        "r_squared": float(explained),
        "factor": math.exp(constant),
        "points": points,
    }


def measure(config: Scaling, rounds: int) -> dict[str, Any]:
    """All sizes, multiply-adds and times of the three laws, with their exponents."""
    rng, known = np.random.default_rng(config.seed), laws(config.quick)
    calls, work = {}, {}
    for sizes in dict.fromkeys(sizes for steps in known.values() for _, sizes in steps):
        bank, shapes = sizes.call("auto")
        work[sizes] = cnn_jax.cost(bank, *shapes).multiply_adds
        arrays = [jnp.asarray(rng.uniform(-1, 1, shape.shape), shape.dtype) for shape in shapes]
        for method in METHODS:
            if method != "shift" or sizes.feature**2 <= CPU_COSTS.shift_max_products:
                calls[sizes, method] = functools.partial(jax.jit(sizes.call(method)[0]), *arrays)
    nothing = functools.partial(jax.jit(lambda x: x + 1), jnp.zeros(()))
    overhead, *medians = timed([nothing, *calls.values()], rounds, "matching")
    seconds = dict(zip(calls, medians, strict=True))

    measured = {}
    for law, steps in known.items():
        values, methods = [value for value, _ in steps], {}
        for method in METHODS:
            own = [seconds.get((sizes, method)) for _, sizes in steps]
            fitted = {i: t for i, t in enumerate(own) if t is not None and t > ABOVE_OVERHEAD * overhead}
            fit = power_law([values[i] for i in fitted], list(fitted.values()))
            methods[method] = {"seconds": own, "fitted": list(fitted), "fit": fit}
        products = [work[sizes] for _, sizes in steps]
        measured[law] = {
            "sizes": [dataclasses.asdict(sizes) for _, sizes in steps],
            "values": values,
            "multiply_adds": products,
            "multiply_adds_fit": power_law(values, products),
            "methods": methods,
        }
    return {"overhead_seconds": overhead, "laws": measured}


def pooling(config: Scaling, rounds: int) -> dict[str, Any]:
    """A bank of features over the maps of another, as they are and pooled first."""
    side, channels, features, window = (64, 8, 8, 5) if config.quick else (256, 16, 16, 5)
    rng = np.random.default_rng(config.seed)
    maps, bank = (
        jnp.asarray(rng.uniform(-1, 1, shape), jnp.float32)
        for shape in ((side, side, channels), (features, window, window, channels))
    )
    layer = jax.vmap(functools.partial(cnn_jax.match, padding="SAME"), in_axes=(None, 0))
    pooled = cnn_jax.max_pool(maps)
    functions = {
        "next layer": (layer, (maps, bank)),
        "on pooled maps": (layer, (pooled, bank)),
        "pooling": (cnn_jax.max_pool, (maps,)),
        "pooling + next layer": (lambda maps, bank: layer(cnn_jax.max_pool(maps), bank), (maps, bank)),
    }
    calls = [functools.partial(jax.jit(function), *arguments) for function, arguments in functions.values()]
    seconds = timed(calls, rounds, "pooling")
    return {
        "maps": maps.shape,
        "features": bank.shape,
        "calls": {
            name: {"seconds": median, "multiply_adds": cnn_jax.cost(function, *arguments).multiply_adds}
            for (name, (function, arguments)), median in zip(functions.items(), seconds, strict=True)
        },
    }


def tables(measured: dict[str, Any]) -> list[report.Table]:
    """The exponents, and what pooling saves."""
    exponents = [["grows with", "what", "exponent ± s.e.", "R²", "points"]]
    for law, of in measured["laws"].items():
        fits = {"multiply-adds": of["multiply_adds_fit"]} | {name: each["fit"] for name, each in of["methods"].items()}
        for name, fit in fits.items():
            if fit["exponent"] is None:
                values = "-", "-"
            else:
                values = f"{fit['exponent']:.3f} ± {fit['standard_error']:.3f}", f"{fit['r_squared']:.3f}"
            exponents.append([law, name, *values, str(fit["points"])])
    calls = measured["pooling"]["calls"]
    whole = calls["next layer"]["seconds"]
    saved = [["call", "multiply-adds", "time (ms)", "of the next layer"]]
    for name, call in calls.items():
        taken = call["seconds"]
        saved.append([name, f"{call['multiply_adds']:,}", f"{1e3 * taken:.3f}", f"{taken / whole:.3f}"])
    return [exponents, saved]


def draw(measured: dict[str, Any]) -> dict[str, Any]:
    """The three laws, and what pooling saves."""
    panels = {}
    for law, of in measured["laws"].items():
        lines = {}
        for name, each in of["methods"].items():
            seen = [i for i, t in enumerate(each["seconds"]) if t is not None]
            x, y = ([values[i] for i in seen] for values in (of["values"], each["seconds"]))
            fit = None
            if each["fit"]["exponent"] is not None:
                ends = [of["values"][i] for i in (each["fitted"][0], each["fitted"][-1])]
                fit = ends, [each["fit"]["factor"] * end ** each["fit"]["exponent"] for end in ends]
                name = f"{name}: {each['fit']['exponent']:.2f}"
            lines[name] = (x, [1e3 * t for t in y], fit and (fit[0], [1e3 * t for t in fit[1]]))
        panels[law] = lines
    calls = measured["pooling"]["calls"]
    shares = {
        name: {key.replace("_", "-"): call[key] / calls["next layer"][key] for key in ("multiply_adds", "seconds")}
        for name, call in calls.items()
    }
    return {
        "laws": figures.power_laws(panels, ylabel="time (ms)", title="Time of a bank of features, and its exponents"),
        "pooling": figures.bars(shares, ylabel="share of the next layer", title="What pooling first leaves to do"),
    }


def main(config: Scaling) -> dict[str, Any]:
    """Measures, draws and prints; returns what metrics.json holds."""
    if config.rounds < 0:
        raise ValueError(f"rounds: expected at least 0, got {config.rounds}")
    rounds = config.rounds or (3 if config.quick else 9)
    if config.seed < 0:
        raise ValueError(f"seed: expected at least 0, got {config.seed}")
    out = cli.make_writable(config.out)
    measured = measure(config, rounds) | {"pooling": pooling(config, rounds)}
    metrics = {"quick": config.quick, "rounds": rounds, "seed": config.seed} | measured | cli.versions()
    for name, figure in draw(measured).items():
        figures.save(figure, out / f"{name}.png")
    cli.write_json(out / "metrics.json", metrics)
    came_out = tables(measured)
    report.write(out, "scaling", config, came_out, FIGURES)
    print(report.text(came_out))
    return metrics


if __name__ == "__main__":
    cli.run(lambda: main(tyro.cli(Scaling)))
