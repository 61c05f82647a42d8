"""Which settings of XLA's CPU backend are fastest on this machine?

Claim: on two cores of an AMD EPYC (jax 0.10.2 and 0.12.0.1) training and inference are on average faster with the
settings of `configure_cpu` than as JAX starts: XLA without YNNPACK, freed memory kept, calls computed in the caller's
thread. With jax 0.12.0.1 the averages with YNNPACK and with vectors of 512 bits differ by at most 7 %. With oneDNN
training and inference take more than 20 times as long on average.
Evidence: the table that `python -m experiments.cpu_settings` prints. Every setting has a process of its own on the same
two CPUs. The processes take turns: in every round each times the same call, in random order; the median counts.

    python -m experiments.cpu_settings                          training, inference, scores and search
    python -m experiments.cpu_settings --tasks match --rounds 9 those of one task
"""

import dataclasses
import multiprocessing
import os
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import jax

from cnn_jax._malloc import keep_freed_memory
from cnn_jax.progress import Progress

from . import throughput
from ._lib import cli, report
from ._lib.benchmark import pin_cpus, time_call

CPUS = 2
MIN_SECONDS = 0.1
WARM_UP_SECONDS = 0.3
TASKS = ("train_step", "inference", "match", "zncc", "find")

NO_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type="
YNNPACK_PRODUCTS = f"{NO_YNNPACK}individual_dot"
YNNPACK_WITHOUT_SUMS = f"{NO_YNNPACK}-reduce"
ONEDNN = f"{NO_YNNPACK} --xla_cpu_experimental_onednn_custom_call=true"
WIDE = "--xla_cpu_prefer_vector_width=512"


class Setting(NamedTuple):
    """What is set before JAX's first computation."""

    flags: str
    """Of XLA."""
    configured: bool = True
    """Whether the allocator keeps freed memory and calls run in the caller's thread."""


SETTINGS: Mapping[str, Setting] = {
    "default": Setting(""),
    "as JAX starts": Setting("", configured=False),
    "no YNNPACK": Setting(NO_YNNPACK),
    "YNNPACK's products": Setting(YNNPACK_PRODUCTS),
    "YNNPACK without sums": Setting(YNNPACK_WITHOUT_SUMS),
    "oneDNN": Setting(ONEDNN),
    "512 bits": Setting(WIDE),
}
"""The first is what the others are compared with. Wheels without oneDNN ignore its flag."""


@dataclasses.dataclass(frozen=True)
class CpuSettings:
    """Time cnn_jax under several settings of XLA, in processes that take turns."""

    tasks: tuple[str, ...] = TASKS
    """Tasks of experiments.throughput."""
    rounds: int = 7
    """How often each call is timed under each setting."""
    quick: bool = False
    """Only small cases."""
    out: Path = Path("runs/cpu_settings")
    """Folder for report.html and cpu_settings.json."""


def main(config: CpuSettings) -> dict[str, Any]:
    """Times all cases under all settings, prints and writes; returns the content of cpu_settings.json."""
    cli.check_positive("--rounds", config.rounds)
    tasks = throughput.choose_tasks(config.tasks)
    out = cli.make_output_dir(config.out)
    pin_cpus(CPUS)
    work = [
        (task, index)
        for task, entry in tasks.items()
        for index in range(len(entry.quick_cases if config.quick else entry.cases))
    ]
    rows = time_cases(work, config.rounds, config.quick)
    content = {"rows": rows, "means": relative_means(rows)} | cli.versions()
    cli.write_json(out / "cpu_settings.json", content)
    blocks = results(content)
    report.write_html(out, "cpu_settings", config, blocks)
    print(report.as_text(blocks))
    return content


@contextmanager
def worker(setting: Setting, task: str, index: int, quick: bool) -> Iterator[Connection]:
    """The connection to a process with this setting that serves a case of a task."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, setting.configured, task, index, quick), daemon=True)
    before = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{before} {setting.flags}".strip()
    try:
        process.start()
    finally:
        os.environ["XLA_FLAGS"] = before
    theirs.close()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def serve(connection: Connection, configured: bool, task: str, index: int, quick: bool) -> None:
    """Answers the first message with the name of a case, once it is compiled, the others with seconds per call."""
    if configured:
        keep_freed_memory()
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    connection.recv()
    entry = throughput.TASKS[task]
    case = (entry.quick_cases if quick else entry.cases)[index]
    call = entry.make(task, case, {}, CPUS).ours
    time_call(call, WARM_UP_SECONDS)
    connection.send(str(case))
    while True:
        connection.recv()
        connection.send(time_call(call, MIN_SECONDS))


def time_cases(work: Sequence[tuple[str, int]], rounds: int, quick: bool) -> list[dict[str, Any]]:
    """A row for every case: its milliseconds under every setting."""
    rows = []
    with Progress("cpu_settings", len(work)) as progress:
        for task, index in work:
            with ExitStack() as stack:
                workers = {
                    name: stack.enter_context(worker(setting, task, index, quick)) for name, setting in SETTINGS.items()
                }
                rows.append(time_case(task, workers, rounds))
            progress.update(len(rows), f"{task} {rows[-1]['case']}")
    return rows


def time_case(task: str, workers: Mapping[str, Connection], rounds: int) -> dict[str, Any]:
    """The row of the case that these processes serve."""
    generator = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    case = ""
    for connection in workers.values():  # they compile one after another
        connection.send(None)
        case = connection.recv()
    for _ in range(rounds):
        for name in generator.sample(list(workers), len(workers)):
            workers[name].send(None)
            seconds[name].append(workers[name].recv())
    milliseconds = {name: 1e3 * statistics.median(answers) for name, answers in seconds.items()}
    return {"task": task, "case": case, "milliseconds": milliseconds}


def relative_means(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """For each task and setting the geometric mean of its times over those of the first setting."""
    first = next(iter(SETTINGS))
    return {
        task: {
            name: statistics.geometric_mean(
                row["milliseconds"][name] / row["milliseconds"][first] for row in rows if row["task"] == task
            )
            for name in SETTINGS
        }
        for task in dict.fromkeys(row["task"] for row in rows)
    }


def results(content: Mapping[str, Any]) -> report.Results:
    """The content of cpu_settings.json as tables."""
    times = [["task", "images, features", *SETTINGS]] + [
        [row["task"], row["case"], *(f"{row['milliseconds'][name]:.3g}" for name in SETTINGS)]
        for row in content["rows"]
    ]
    means = [["task", *SETTINGS]] + [
        [task, *(f"{ratios[name]:.2f}" for name in SETTINGS)] for task, ratios in content["means"].items()
    ]
    return [
        "Milliseconds, medians of the rounds:",
        times,
        "Times over those of the first setting, geometric means:",
        means,
    ]


if __name__ == "__main__":
    cli.run_script(lambda: main(cli.parse_options(CpuSettings, "cpu_settings", __doc__)))
