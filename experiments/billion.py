"""What would 1, 8 and 1,000 accelerators do for a billion images, and what would they wait for?

A calculation on paper from what is measured here: how many images of 28x28 pixels a device puts through the X/O network
and the matcher (16 features of 3x3, zncc), how many it learns from (1,024 in a step), and how many pictures a core
decodes. How fast disks, networks and buses are is said by the options; `--times` says how much faster another device is
than the one here. All that must happen to an image happens at once, so that the slowest is what the rest waits for.

    python -m experiments.billion                 with devices as fast as the one here
    python -m experiments.billion --times 100     with devices a hundred times as fast
"""

import dataclasses
import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from PIL import Image

import cnn_jax
from cnn_jax import nets
from cnn_jax.data import image_io, xo

from ._lib import cli, report, runner
from ._lib.benchmark import median_ms

SIZE, BATCH, FEATURES = 28, 1024, 16
DECODED = 200  # pictures
PIXELS = SIZE * SIZE  # bytes of an image on its way to a device
JOBS = ("X/O network", "matcher", "training")


@dataclasses.dataclass(frozen=True)
class Billion:
    """Calculate how long many devices take, and what they wait for."""

    images: int = 1_000_000_000
    """Images to go through."""
    devices: tuple[int, ...] = (1, 8, 1000)
    """Numbers of devices."""
    times: float = 1.0
    """How much faster a device is than the one measured here."""
    per_host: int = 8
    """Devices of a host."""
    cores: int = 96
    """Cores of a host that decode pictures, each as fast as one here."""
    bus: float = 25.0
    """GB/s from a host's memory to each device."""
    disk: float = 5.0
    """GB/s from a host's own disks."""
    link: float = 12.5
    """GB/s between hosts."""
    store: float = 100.0
    """GB/s that a store which all hosts read from gives in all."""
    settle: float = 0.1
    """Seconds of a turn of timing."""
    out: Path = Path("runs/billion")
    """Folder for report.html and metrics.json."""


def measure(settle: float) -> dict[str, float]:
    """Images a second of a device for each job, pictures a second of a core, and the sizes that count."""
    net, key = nets.xo_net(), jax.random.key(0)
    params = net.init(key, (SIZE, SIZE, 1))
    batch, labels = jax.vmap(lambda key: xo.draw(key, size=SIZE))(jax.random.split(key, BATCH))
    batch = batch[..., None]
    features = jax.random.normal(key, (FEATURES, 3, 3))

    def loss(params: Any, batch: jax.Array) -> jax.Array:
        scores = jax.vmap(net.apply, (None, 0))(params, batch)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, labels))

    def learned(params: Any, batch: jax.Array) -> Any:
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, jax.grad(loss)(params, batch))

    matched = jax.vmap(jax.vmap(cnn_jax.zncc, (None, 0)), (0, None))
    programs: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "X/O network": (jax.jit(jax.vmap(net.apply, (None, 0))), (params, batch)),
        "matcher": (jax.jit(matched), (batch[..., 0], features)),
        "training": (jax.jit(learned), (params, batch)),
    }
    calls = {job: lambda program=program, given=given: program(*given) for job, (program, given) in programs.items()}
    rates = {job: 1e3 * BATCH / taken for job, taken in median_ms(calls, min_seconds=settle).items()}

    files = []
    for letter in np.asarray(batch[:DECODED, ..., 0]):
        files.append(io.BytesIO())
        Image.fromarray(cli.to_uint8(letter)).save(files[-1], "PNG")
    started = time.perf_counter()
    for file in files:
        image_io.read_square(file, size=SIZE)
    rates["decoding"] = DECODED / (time.perf_counter() - started)
    rates["bytes"] = sum(file.getbuffer().nbytes for file in files) / DECODED
    rates["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(params))
    return rates


def limits(config: Billion, rates: dict[str, float], job: str, devices: int) -> dict[str, float]:
    """Images a second that everything which an image goes through would let pass, if there were nothing else."""
    hosts = math.ceil(devices / config.per_host)
    each = config.times * rates[job]
    passed = {
        "devices": devices * each,
        "decoding": hosts * config.cores * rates["decoding"],
        "disks": 1e9 * hosts * config.disk / rates["bytes"],
        "buses": 1e9 * devices * config.bus / PIXELS,
        "store": 1e9 * config.store / rates["bytes"],
    }
    if job == "training" and hosts > 1:  # a ring passes every gradient on about twice for each step
        passed["links"] = devices * BATCH / (2 * 4 * rates["parameters"] / (1e9 * config.link))
    return passed


def main(config: Billion) -> dict[str, Any]:
    """Measures, calculates, prints and writes; returns what metrics.json holds."""
    for name in ("images", "per_host", "cores", "times", "bus", "disk", "link", "store", "settle"):
        cli.check_positive(f"--{name.replace('_', '-')}", getattr(config, name))
    numbers = [cli.check_positive("--devices", devices) for devices in config.devices]
    out = cli.make_output_dir(config.out)
    rates = measure(config.settle)
    rows, table = [], [["job", "devices", "images/s", "time", "waits for", "next"]]
    for job in JOBS:
        for devices in numbers:
            passed = sorted(limits(config, rates, job, devices).items(), key=lambda limit: limit[1])
            (first, rate), (second, other) = passed[:2]
            rows.append({"job": job, "devices": devices, "limits": dict(passed), "seconds": config.images / rate})
            taken, faster = duration(config.images / rate), f"{second}, {other / rate:.1f} times as fast"
            table.append([job, f"{devices:,}", f"{rate:,.0f}", taken, first, faster])
    metrics = {"rates": rates, "rows": rows, "config": runner.options_as_text(config)}
    cli.write_json(out / "metrics.json", metrics | cli.versions())
    each = ", ".join(f"{job} {rates[job]:,.0f}" for job in JOBS)
    came_out = [
        f"Images a second of the device here: {each}; pictures that a core decodes: {rates['decoding']:,.0f}",
        f"{config.images:,} images:",
        table,
    ]
    report.write_html(out, "billion", config, came_out)
    print(report.as_text(came_out))
    return metrics


def duration(seconds: float) -> str:
    """Seconds in a unit that a person knows."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


if __name__ == "__main__":
    cli.run_script(lambda: main(tyro.cli(Billion, description=__doc__)))
