"""How long would a billion pictures take on many devices?

An estimate for 1, 8 and 1,000 devices from rates measured on this machine: images of 28x28 pixels per second through
the X/O network and through the matcher (16 features of 3x3, zncc), images per second in training (1,024 per step), and
PNG files per second that a CPU core decodes. Options give the speed of disks, networks and buses. `--times` says
how much faster a device is than the one measured here. All steps work at the same time, so the slowest one limits the
rate.

    python -m experiments.billion                 devices as fast as the one here
    python -m experiments.billion --times 100     devices a hundred times as fast
"""

import dataclasses
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

import cnn_jax
from cnn_jax import nets
from cnn_jax.data import image_io, xo
from cnn_jax.data.pixels import to_uint8

from ._lib import cli, report, runner
from ._lib.benchmark import Call, compiled_call, median_ms

SIZE = 28
BATCH = 1024
FEATURES = 16
DECODED = 200  # files
BYTES_ON_BUS = SIZE * SIZE  # of an image on its way to a device
BYTES_PER_PARAMETER = 4
RING_PASSES = 2  # how often a ring all-reduce sends every gradient
DECODING = "decoding"
JOBS = ("X/O network", "matcher", "training")
UNITS = {"days": 86400, "hours": 3600, "minutes": 60}


@dataclasses.dataclass(frozen=True)
class Billion:
    """Estimate how long many devices take for many images, and which step limits them."""

    images: int = 1_000_000_000
    """Images to process."""
    devices: tuple[int, ...] = (1, 8, 1000)
    """Numbers of devices."""
    times: float = 1.0
    """How much faster a device is than the one measured here."""
    per_host: int = 8
    """Devices per host."""
    cores: int = 96
    """CPU cores per host that decode pictures, each as fast as one here."""
    bus: float = 25.0
    """GB/s from a host's memory to each device."""
    disk: float = 5.0
    """GB/s from a host's own disks."""
    link: float = 12.5
    """GB/s between hosts."""
    store: float = 100.0
    """GB/s in all from the storage that all hosts read from."""
    settle: float = 0.1
    """Seconds that every call is repeated in each round of timing."""
    out: Path = Path("runs/billion")
    """Folder for report.html and metrics.json."""


def measure(min_seconds: float) -> dict[str, float]:
    """Images per second of a device for each job, files per second of a core, bytes per file and parameters."""
    net = nets.xo_net()
    key = jax.random.key(0)
    params = net.init(key, (SIZE, SIZE, 1))
    draw = jax.jit(jax.vmap(lambda key: xo.draw(key, size=SIZE)))
    images, labels = draw(jax.random.split(key, BATCH))
    files = png_files(np.asarray(images[:DECODED]))
    calls = job_calls(net, params, images, labels)
    calls[DECODING] = lambda: [image_io.read_square(file, size=SIZE) for file in files]
    milliseconds = median_ms(calls, min_seconds=min_seconds)
    rates = {job: 1e3 * BATCH / milliseconds[job] for job in JOBS}
    rates["decoding"] = 1e3 * len(files) / milliseconds[DECODING]
    rates["bytes"] = sum(file.getbuffer().nbytes for file in files) / len(files)
    rates["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(params))
    return rates


def job_calls(net: cnn_jax.Layer, params: Any, images: jax.Array, labels: jax.Array) -> dict[str, Call]:
    """A call of each job for a batch of images (N, H, W)."""
    batch = images[..., None]
    features = jax.random.normal(jax.random.key(0), (FEATURES, 3, 3))
    apply = jax.vmap(net.apply, (None, 0))
    match = jax.vmap(jax.vmap(cnn_jax.zncc, (None, 0)), (0, None))

    def train_step(params: Any, batch: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            logits = apply(params, batch)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

        return jax.tree.map(lambda p, g: p - 0.01 * g, params, jax.grad(loss)(params))

    return {
        "X/O network": compiled_call(apply, params, batch),
        "matcher": compiled_call(match, images, features),
        "training": compiled_call(train_step, params, batch),
    }


def png_files(images: np.ndarray) -> list[io.BytesIO]:
    """Images in [-1, 1] as PNG files in memory."""
    files = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(to_uint8(image)).save(file, "PNG")
        files.append(file)
    return files


def rate_limits(config: Billion, rates: Mapping[str, float], job: str, devices: int) -> dict[str, float]:
    """For each step that an image goes through, the images per second that it alone would allow."""
    hosts = math.ceil(devices / config.per_host)
    device_rate = config.times * rates[job]
    limits = {
        "devices": devices * device_rate,
        "decoding": hosts * config.cores * rates["decoding"],
        "disks": 1e9 * hosts * config.disk / rates["bytes"],
        "buses": 1e9 * devices * config.bus / BYTES_ON_BUS,
        "store": 1e9 * config.store / rates["bytes"],
    }
    if job == "training" and hosts > 1:
        bytes_per_step = RING_PASSES * BYTES_PER_PARAMETER * rates["parameters"]
        limits["links"] = devices * BATCH / (bytes_per_step / (1e9 * config.link))
    return limits


def main(config: Billion) -> dict[str, Any]:
    """Measures, estimates, prints and writes; returns the content of metrics.json."""
    check_options(config)
    out = cli.make_output_dir(config.out)
    rates = measure(config.settle)
    rows = []
    table = [["job", "devices", "images/s", "time", "limited by", "next limit"]]
    for job in JOBS:
        for devices in config.devices:
            limits = sorted(rate_limits(config, rates, job, devices).items(), key=lambda limit: limit[1])
            seconds = config.images / limits[0][1]
            rows.append({"job": job, "devices": devices, "limits": dict(limits), "seconds": seconds})
            table.append([job, f"{devices:,}", *limit_cells(limits, seconds)])
    metrics = {"rates": rates, "rows": rows, "config": runner.options_as_text(config)}
    cli.write_json(out / "metrics.json", metrics | cli.versions())
    measured = ", ".join(f"{job} {rates[job]:,.0f}" for job in JOBS)
    results = [
        f"Measured, images per second on the device here: {measured}. One core decodes {rates['decoding']:,.0f} PNG "
        "files per second.",
        f"Estimated for {config.images:,} images:",
        table,
    ]
    report.write_html(out, "billion", config, results)
    print(report.as_text(results))
    return metrics


def check_options(config: Billion) -> None:
    """Raises ValueError for a number that is not above 0."""
    for name in ("images", "per_host", "cores", "times", "bus", "disk", "link", "store", "settle"):
        cli.check_positive(f"--{name.replace('_', '-')}", getattr(config, name))
    for devices in config.devices:
        cli.check_positive("--devices", devices)


def limit_cells(limits: list[tuple[str, float]], seconds: float) -> list[str]:
    """The lowest limit's rate, the time, its name, and how much higher the next limit is."""
    (name, rate), (next_name, next_rate) = limits[:2]
    return [f"{rate:,.0f}", duration(seconds), name, f"{next_name}, {next_rate / rate:.1f} times as fast"]


def duration(seconds: float) -> str:
    """Seconds as text, in the largest unit of which there are at least two."""
    for unit, length in UNITS.items():
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"


if __name__ == "__main__":
    cli.run_script(lambda: main(cli.parse_options(Billion, "billion", __doc__)))
