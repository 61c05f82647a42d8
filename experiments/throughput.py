"""How fast is it beside OpenCV, scikit-image, PyTorch, Flax, Equinox and plain JAX?

Claim: on two CPU cores (AVX-512), `zncc` takes on average 0.28 of the time of the fastest of these libraries, and
`match` 0.72. Training steps take half the time of Flax, Equinox and plain JAX or less, and 0.7 to 1.0 times that of
PyTorch in the fastest of three ways (contiguous, channels last, compiled).
Evidence: the tables that `python -m experiments.throughput` prints. runs/throughput/throughput.json has every row, the
versions and the machine's peak rates. All libraries run on two CPUs and get the same inputs. Their outputs are compared
before timing. Then they are timed in interleaved rounds, in random order; the median of seven rounds counts.

    python -m experiments.throughput                            all cases
    python -m experiments.throughput --tasks match "zncc call"  those of two tasks
    python -m experiments.throughput --quick                    small cases only, in less than a minute
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from cnn_jax.progress import Progress

from ._lib import (
    baselines_matching,
    cli,
    report,
    throughput_calls,
    throughput_explain,
    throughput_find,
    throughput_matching,
    throughput_training,
)
from ._lib.baselines_layers import GROUPED_BENCHMARKS, LAYER_BENCHMARKS
from ._lib.baselines_training import BASELINES
from ._lib.benchmark import BenchmarkCase, machine_peaks, pin_cpus, run_case
from ._lib.throughput_report import results, summarize

CPUS = 2
MIN_SECONDS = 0.1
QUICK_MIN_SECONDS = 0.01
PEAK_SIDE = 2048  # rows of the matrices whose product gives the peak rate
QUICK_PEAK_SIDE = 512


@dataclasses.dataclass(frozen=True)
class Throughput:
    """Time cnn_jax and other installed libraries: same inputs, same results, interleaved rounds."""

    tasks: tuple[str, ...] = ()
    """Names of tasks, such as match or train_step: only these are timed. By default all are."""
    quick: bool = False
    """Run only one or two small cases per task, in shorter rounds: less than a minute in all."""
    out: Path = Path("runs/throughput")
    """Folder for report.html and throughput.json."""


class Task(NamedTuple):
    """What is timed: `make(task, case, modules, threads)` makes a benchmark of a case."""

    make: Callable[[str, Any, Mapping[str, Any], int], BenchmarkCase]
    cases: Sequence[Any]
    quick_cases: Sequence[Any]


TASKS: Mapping[str, Task] = {
    "match": Task(throughput_matching.score_benchmark, throughput_matching.CASES, throughput_matching.QUICK_CASES),
    "zncc": Task(throughput_matching.score_benchmark, throughput_matching.CASES, throughput_matching.QUICK_CASES),
    "zncc call": Task(throughput_calls.call_benchmark, throughput_calls.CASES, throughput_calls.QUICK_CASES),
    "find call": Task(throughput_calls.call_benchmark, throughput_calls.CASES, throughput_calls.QUICK_CASES),
    "find": Task(throughput_find.find_benchmark, throughput_find.CASES, throughput_find.QUICK_CASES),
    "find bank": Task(throughput_find.bank_benchmark, throughput_find.BANK_CASES, throughput_find.QUICK_BANK_CASES),
    "train_step": Task(
        throughput_training.network_benchmark, throughput_training.NETWORKS, throughput_training.QUICK_CASES
    ),
    "inference": Task(
        throughput_training.network_benchmark,
        (*throughput_training.NETWORKS, *throughput_training.BATCHES),
        throughput_training.QUICK_CASES,
    ),
    **{
        name: Task(throughput_training.layer_benchmark, throughput_training.STAGES, throughput_training.QUICK_CASES)
        for name in LAYER_BENCHMARKS
    },
    **{
        name: Task(
            throughput_training.layer_benchmark, throughput_training.GROUPED_STAGES, throughput_training.QUICK_CASES
        )
        for name in GROUPED_BENCHMARKS
    },
    "occlusion": Task(throughput_explain.occlusion_benchmark, throughput_explain.CASES, throughput_explain.QUICK_CASES),
}


def main(config: Throughput) -> dict[str, Any]:
    """Runs all benchmarks, prints and writes; returns the content of throughput.json."""
    tasks = choose_tasks(config.tasks)
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    threads = pin_cpus(CPUS)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves GPU memory to the other libraries
    out = cli.make_output_dir(config.out)
    modules, missing = baselines_matching.import_libraries(library_names(), threads)
    for line in missing:
        print(line)
    peaks = machine_peaks(
        QUICK_MIN_SECONDS if config.quick else MIN_SECONDS, QUICK_PEAK_SIDE if config.quick else PEAK_SIDE
    )
    rows = run_tasks(tasks, config.quick, modules, threads)
    content = {
        "rows": rows,
        "summary": summarize(rows),
        "peaks": peaks,
        "threads": threads,
        "load_before": load_before,
        "libraries": {name: module.__version__ for name, module in modules.items()},
    } | cli.versions()
    cli.write_json(out / "throughput.json", content)
    blocks = results(content, {name: task.make for name, task in TASKS.items()})
    report.write_html(out, "throughput", config, [*blocks, *missing])
    print(report.as_text(blocks))
    return content


def library_names() -> list[str]:
    """The libraries that any task is compared with on this device."""
    matching = {name for task in baselines_matching.baselines().values() for name in task}
    return sorted(matching | {baseline.library for baseline in BASELINES.values()})


def choose_tasks(names: Sequence[str]) -> dict[str, Task]:
    """The tasks of these names, in the order of TASKS; all without names."""
    for name in names:
        if name not in TASKS:
            raise ValueError(f"--tasks: expected some of {', '.join(map(repr, TASKS))}, got {name!r}")
    return {name: task for name, task in TASKS.items() if not names or name in names}


def run_tasks(tasks: Mapping[str, Task], quick: bool, modules: Mapping[str, Any], threads: int) -> list[dict[str, Any]]:
    """The rows of all cases of some tasks."""
    work = [(name, case) for name, task in tasks.items() for case in (task.quick_cases if quick else task.cases)]
    rows = []
    with Progress("throughput", len(work)) as progress:
        for name, case in work:
            progress.update(len(rows), f"{name} {case}")
            benchmark_case = tasks[name].make(name, case, modules, threads)
            rows.append(run_case(name, str(case), benchmark_case, QUICK_MIN_SECONDS if quick else MIN_SECONDS))
        progress.update(len(rows))
    return rows


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)  # first calls compile, ours and plain JAX's
    cli.run_script(lambda: main(cli.parse_options(Throughput, "throughput", __doc__)))
