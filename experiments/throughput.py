"""How fast is it beside OpenCV, scikit-image, PyTorch, Flax, Equinox and JAX alone?

Claim: on two CPU cores (AVX-512) zncc takes a quarter of the time of the fastest of these on average, match seven
tenths; training steps take half the time of Flax, Equinox and JAX alone or less, and 1.0 to 1.6 times that of the best
of PyTorch contiguous, channels last and compiled.
Evidence: the tables that `python -m experiments.throughput` prints; runs/throughput/throughput.json holds every row,
version and the machine's own peaks. In one run, on two CPUs: all contestants get the same inputs, their outputs are
compared, then they take turns in random order, and the median of seven turns counts.
"""

import dataclasses
import functools
import itertools
import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro

import cnn_jax
from cnn_jax import _correlate, explain, nets
from cnn_jax._cost_model import CPU_COSTS, best_methods
from cnn_jax._padding import NO_PADDING
from cnn_jax.progress import Progress

from ._lib import baselines_matching, baselines_training, cli, report
from ._lib.baselines_matching import Call
from ._lib.benchmark import Contest, confine, measure, peaks

THREADS = 2
BUSY = 1.0  # programs that run already, on average over a minute


class Case(NamedTuple):
    """So many images and features of these sizes."""

    images: int
    size: tuple[int, int]
    features: int
    window: tuple[int, int]

    def __str__(self) -> str:
        parts = (self.images, *self.size), (self.features, *self.window)
        return ", ".join("x".join(map(str, part)) for part in parts)


CASES = (
    Case(256, (28, 28), 16, (3, 3)),
    Case(64, (64, 64), 16, (5, 5)),
    Case(16, (256, 256), 8, (9, 9)),
    Case(4, (512, 512), 8, (33, 33)),
    Case(1, (2048, 2048), 1, (64, 64)),
    Case(1, (2048, 2048), 8, (11, 11)),
    Case(1, (2448, 3264), 4, (31, 31)),
)
SMALL_CASES: tuple[Case, ...] = (Case(16, (28, 28), 4, (3, 3)), Case(2, (48, 48), 2, (12, 12)))


class NetCase(NamedTuple):
    """So many images of this size and these channels, and the features of a network's stages."""

    images: int
    size: int
    channels: int
    features: tuple[int, ...]

    def __str__(self) -> str:
        shape = (self.images, self.size, self.size, self.channels)
        return f"{'x'.join(map(str, shape))}, {'-'.join(map(str, self.features))}"


class Explained(NamedTuple):
    """A network, one image of which is covered at every pixel."""

    net: str
    side: int

    def __str__(self) -> str:
        return f"{self.side**2}x{self.side}x{self.side}, {self.net}"


STAGES = (NetCase(256, 28, 1, (16,)), NetCase(256, 16, 32, (64,)), NetCase(256, 8, 64, (128,)))
XO, SMALL_NET = (16, 1, (8, 16)), NetCase(16, 8, 1, (4,))
NETS = (NetCase(256, *XO), NetCase(256, 28, 1, (16, 32)), NetCase(256, 32, 3, (32, 64, 128)))
BATCHES = tuple(NetCase(images, *XO) for images in (1, 64, 4096, 65536))
# Steps in one scan: of ours, and of JAX alone, whose steps take seconds there.
SCANNED, SLOWLY_SCANNED = 50, 2


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Times cnn_jax beside the libraries that are installed: same inputs, same results, in turns."""

    quick: bool = False
    """Only two small cases a task, and shorter turns: under a minute in all."""
    out: Path = Path("runs/throughput")
    """Folder for report.html and throughput.json."""


# The tasks: what is run side by side.


def matching(task: str, case: Case, modules: Mapping[str, Any], threads: int) -> Contest:
    """A score of every image against every feature, (N, K, H', W')."""
    images, features = noise(case)
    on_device = jax.device_put(images), jax.device_put(features)

    def maps(method: str) -> Callable[..., jax.Array]:
        bank = jax.vmap(functools.partial(getattr(cnn_jax, task), method=method), (None, 0))
        return jax.vmap(bank, (0, None))

    def ours(method: str) -> Call:
        compiled = jax.jit(maps(method))
        return lambda: jax.block_until_ready(compiled(*on_device))

    calls, skipped = {}, {}
    for name, build in rivals()[task].items():
        try:
            if name in modules:
                calls[name] = build(modules[name], threads, images, features)
        except MemoryError as error:
            skipped[name] = str(error)
    pixels, places = math.prod(case.window), math.prod(np.subtract(case.size, case.window) + 1)
    too_much = {
        "shift": pixels > CPU_COSTS.shift_max_products,
        "im2col": pixels * places > CPU_COSTS.im2col_max_numbers,
    }
    methods = {name: None if too_much.get(name) else ours(name) for name in _correlate.METHODS if name != "auto"}
    best = best_methods(
        (*images.shape, 1),
        (*case.window, 1, case.features),
        stride=(1, 1),
        padding=NO_PADDING,
        dilation=(1, 1),
        lhs_dilation=(1, 1),
        channels_first=True,
    )
    work = cnn_jax.cost(maps("auto"), images, features)
    return Contest(
        ours=ours("auto"),
        peers=calls,
        methods=methods,
        auto=best.cpu if jax.default_backend() == "cpu" else best.accelerator,
        multiply_adds=work.multiply_adds,
        bytes=work.bytes,
        skipped=skipped,
        images=case.images,
    )


def training(task: str, case: NetCase, modules: Mapping[str, Any], threads: int) -> Contest:
    """A step of training, or the scores alone, of a whole batch."""
    work = baselines_training.work(*case)
    ours = baselines_training.ours(work)
    calls, skipped, methods, repeats = {"jax": baselines_training.ordinary(work)[task]}, {}, {}, {}
    for name, (library, build) in baselines_training.PEERS.items():
        if library in modules:
            theirs = build(modules[library], work)
            try:
                theirs["inference"]()
                calls[name] = theirs[task]
            except Exception as error:
                if name != "torch.compile":
                    raise
                skipped[name] = f"left out: {cli.complaint(error)[:200]}"
    net = baselines_training.network(case.features)
    arguments = jax.tree.map(jax.numpy.asarray, (work.params, work.images))
    apply: Callable[..., Any] = jax.vmap(net.apply, (None, 0))
    if task == "train_step":
        methods = {"scan": baselines_training.ours_scanned(work, SCANNED)}
        calls["jax scan"] = baselines_training.ordinary_scanned(work, SLOWLY_SCANNED)
        repeats = {"scan": SCANNED, "jax scan": SLOWLY_SCANNED}
        apply = jax.grad(lambda params, images: jax.vmap(net.apply, (None, 0))(params, images).sum())
    cost = cnn_jax.cost(apply, *arguments)
    return Contest(
        ours=ours[task],
        peers=calls,
        methods=methods,
        auto=None,
        multiply_adds=cost.multiply_adds,
        bytes=cost.bytes,
        skipped=skipped,
        images=case.images,
        repeats=repeats,
    )


def part(task: str, case: NetCase, modules: Mapping[str, Any], threads: int) -> Contest:
    """A part of a training step, of one stage of a network, beside JAX alone."""
    ours, ordinary, shapes = baselines_training.PARTS[task]
    generator = np.random.default_rng(0)
    arguments = [
        jax.device_put(generator.standard_normal(shape).astype(np.float32))
        for shape in shapes(case.images, case.size, case.channels, *case.features)
    ]

    def call(function: baselines_training.Part) -> Call:
        compiled = jax.jit(function)
        return lambda: jax.block_until_ready(compiled(*arguments))

    cost = cnn_jax.cost(ours, *arguments)
    return Contest(
        ours=call(ours),
        peers={"jax": call(ordinary)},
        methods={},
        auto=None,
        multiply_adds=cost.multiply_adds,
        bytes=cost.bytes,
        skipped={},
        images=case.images,
    )


def explaining(task: str, case: Explained, modules: Mapping[str, Any], threads: int) -> Contest:
    """All covered images of an occlusion map in one batch, beside a loop over them."""
    net, side, window = getattr(nets, case.net)(), case.side, 5
    params = jax.jit(lambda key: net.init(key, (side, side, 1)))(jax.random.key(0))
    image = np.random.default_rng(0).uniform(-1, 1, (side, side, 1)).astype(np.float32)
    ours = jax.jit(functools.partial(explain.occlusion, net, label=0, window=window))
    apply = jax.jit(net.apply)

    def loop() -> np.ndarray:
        falls = np.empty((side, side), np.float32)
        for y, x in np.ndindex(side, side):
            covered = image.copy()
            covered[max(y - window // 2, 0) : y + window // 2 + 1, max(x - window // 2, 0) : x + window // 2 + 1] = -1
            falls[y, x] = apply(params, covered)[0]
        return apply(params, image)[0] - falls

    cost = cnn_jax.cost(ours, params, image)
    return Contest(
        ours=lambda: jax.block_until_ready(ours(params, image)),
        peers={"jax loop": loop},
        methods={},
        auto=None,
        multiply_adds=cost.multiply_adds,
        bytes=cost.bytes,
        skipped={},
        images=side * side,
    )


def noise(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Images of noise in [-1, 1], and features cut from them."""
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (case.images, *case.size)).astype(np.float32)
    features = []
    for _ in range(case.features):
        i, y, x = (generator.integers(n) for n in (case.images, *np.subtract(case.size, case.window) + 1))
        features.append(images[i, y : y + case.window[0], x : x + case.window[1]])
    return images, np.stack(features)


def rivals() -> Mapping[str, Mapping[str, Callable[..., Call]]]:
    """The peers of every task on the device that JAX computes on."""
    return baselines_matching.GPU if jax.default_backend() == "gpu" else baselines_matching.CPU


TASKS: Mapping[str, tuple[Callable[..., Contest], Sequence[Any], Sequence[Any]]] = {
    "match": (matching, CASES, SMALL_CASES),
    "zncc": (matching, CASES, SMALL_CASES),
    "train_step": (training, NETS, [SMALL_NET]),
    "inference": (training, [*NETS, *BATCHES], [SMALL_NET]),
    **{task: (part, STAGES, [SMALL_NET]) for task in baselines_training.PARTS},
    "occlusion": (explaining, [Explained("xo_net", 28), Explained("lenet5", 28)], [Explained("xo_net", 8)]),
}
# Whom the networks' tasks are judged against.
GROUPS = {
    "PyTorch": ("torch", "torch channels last", "torch.compile"),
    "Flax and Equinox": ("flax", "equinox"),
    "JAX alone": ("jax",),
}


# What is said of it.


def table(rows: Sequence[Mapping[str, Any]], peak: Mapping[str, float]) -> report.Table:
    """The rows, times in ms."""
    others = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    methods = list(dict.fromkeys(name for row in rows for name in row["methods"]))
    heads = ["task", "images, features", "ours", *others, "best peer / ours", *methods, "auto"]
    heads += ["images/s", "GFLOP/s", "GB/s"]
    return [heads] + [
        [
            row["task"],
            row["case"],
            number(row["ours_ms"]),
            *(number(row["peers"].get(name)) for name in others),
            number(row["ratio"]),
            *(number(row["methods"].get(name)) for name in methods),
            row["auto"] or "",
            number(row["images_per_s"]),
            *(f"{number(row[rate])} ({row[rate] / peak[rate]:.0%})" for rate in ("gflops", "gbytes_per_s")),
        ]
        for row in rows
    ]


def number(value: float | None) -> str:
    """Three digits, or a dash for nothing."""
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def summaries(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The geometric mean and the smallest of each task's ratios, of tasks that have any; for groups of peers too."""
    found = {}
    for task in TASKS:
        own = [row for row in rows if row["task"] == task]
        found[task] = [row["ratio"] for row in own if row["ratio"]]
        for group, names in GROUPS.items():
            times = [([row["peers"][name] for name in names if name in row["peers"]], row["ours_ms"]) for row in own]
            found[f"{task}, {group}"] = [min(taken) / ours for taken, ours in times if taken]
    return {
        name: {"geometric_mean": statistics.geometric_mean(values), "smallest": min(values)}
        for name, values in found.items()
        if values and (name in TASKS or name.startswith(("train_step,", "inference,")))
    }


def came_out(found: Mapping[str, Any]) -> list[str | report.Table]:
    """What throughput.json holds, to be read."""
    rows, peak = found["rows"], found["peaks"]
    groups = itertools.groupby(rows, key=lambda row: TASKS[row["task"]][0])
    lines: list[str | report.Table] = [table(list(together), peak) for _, together in groups]
    lines += [f"{row['task']} {row['case']}: {name} {why}" for row in rows for name, why in row["skipped"].items()]
    lines += [
        f"{task}: the best takes {ratio['geometric_mean']:.2f} times as long as ours (geometric mean), "
        f"at least {ratio['smallest']:.2f} times"
        for task, ratio in found["summary"].items()
    ]
    lines += [
        f"train_step {row['case']}: the first step, compiled or read from the cache, took {row['first_call_s']:.1f} s"
        for row in rows
        if row["task"] == "train_step"
    ]
    lines += [
        f"scan: a step of ours, of {SCANNED} in one lax.scan; jax: JAX alone, jax scan: its step, of {SLOWLY_SCANNED}; "
        "jax loop: one covered image after the other",
        "GFLOP/s of the direct algorithm, whose work Fourier transforms save; GB/s of inputs and outputs, each once; "
        f"in brackets of this machine's peaks: {peak['gflops']:.0f} GFLOP/s (matrix product) and "
        f"{peak['gbytes_per_s']:.1f} GB/s (sum)",
    ]
    if found["load_before"] > BUSY:
        lines.append(f"something else was running (load {found['load_before']:.1f}): do not trust these times")
    return lines


def main(config: Throughput) -> dict[str, Any]:
    """Runs all contests; returns what throughput.json holds."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    threads = confine(THREADS)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or no memory of a GPU is left to the peers
    out = cli.make_writable(config.out)
    wanted = {name for task in rivals().values() for name in task} | {
        name for name, _ in baselines_training.PEERS.values()
    }
    modules, missing = baselines_matching.load(sorted(wanted), threads)
    for line in missing:
        print(line)

    settle = 0.01 if config.quick else 0.1
    peak = peaks(settle, 512 if config.quick else 2048)
    work = [(task, case) for task, (_, cases, small) in TASKS.items() for case in (small if config.quick else cases)]
    rows = []
    with Progress("throughput", len(work)) as bar:
        for task, case in work:
            bar.update(len(rows), f"{task} {case}")
            contest = TASKS[task][0](task, case, modules, threads)
            rows.append(measure(task, str(case), contest, settle))
        bar.update(len(rows))

    found = {
        "rows": rows,
        "summary": summaries(rows),
        "peaks": peak,
        "threads": threads,
        "load_before": load,
        "libraries": {name: module.__version__ for name, module in modules.items()},
    } | cli.versions()
    cli.write_json(out / "throughput.json", found)
    said = came_out(found)
    report.write(out, "throughput", config, [*said, *missing])
    print(report.text(said))
    return found


if __name__ == "__main__":
    cli.run(lambda: main(tyro.cli(Throughput, description=__doc__)))
