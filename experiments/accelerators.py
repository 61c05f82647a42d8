"""What do the compilers for TPUs and GPUs make of the library's functions? No such device is needed.

XLA compiles ahead of time for a TPU or GPU that is only described to it. The script compiles functions of the library,
and the same written in plain JAX, and prints what is in the programs. It needs Python 3.12 or newer and the extra
`aot`. FLOPs and bytes are the compiler's estimates; that for GPUs gives none.

    python -m experiments.accelerators                              for TPU v5e and H100
    python -m experiments.accelerators --targets v4 v6e --cases zncc   other targets, some cases
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from cnn_jax.progress import Progress

from ._lib import cli, report
from ._lib.accelerator_cases import CASES, Case
from ._lib.ahead_of_time import TARGETS, Device, Program, compile_for, devices_of

# What costs time or repeatability where a program holds it.
COUNTED = (
    "fusion",
    "convolution",
    "copy",
    "transpose",
    "scatter",
    "select-and-scatter",
    "while",
    "sort",
    "fft",
    "all-reduce",
)


@dataclasses.dataclass(frozen=True)
class Accelerators:
    """Compile cnn_jax and plain JAX for accelerators that this machine does not have."""

    targets: tuple[str, ...] = ("v5e", "h100")
    """What to compile for: some of v4, v5e, v5p, v6e, tpu7x and h100."""
    cases: tuple[str, ...] = ()
    """Beginnings of names of cases, such as zncc: only these are compiled. By default all are."""
    out: Path = Path("runs/accelerators")
    """Folder for report.html and metrics.json."""


def main(config: Accelerators) -> dict[str, Any]:
    """Compiles, prints and writes; returns the content of metrics.json."""
    cases = choose_cases(config.cases)
    for name in config.targets or ("",):
        if name not in TARGETS:
            raise ValueError(f"--targets: expected some of {', '.join(TARGETS)}, got {name!r}")
    out = cli.make_output_dir(config.out)
    devices = {name: devices_of(name) for name in config.targets}
    work = [(target, name) for target in config.targets for name in cases]
    rows = []
    with Progress("accelerators", len(work)) as progress:
        for target, name in work:
            progress.update(len(rows), f"{target} {name}")
            rows.append(compile_case(target, devices[target], name, cases[name]))
        progress.update(len(rows))
    content = {"rows": rows} | cli.versions()
    cli.write_json(out / "metrics.json", content)
    blocks = [table(rows), "ours / plain JAX; a dash: the compiler does not tell, or there is no such function in JAX."]
    report.write_html(out, "accelerators", config, blocks)
    print(report.as_text(blocks))
    return content


def choose_cases(names: tuple[str, ...]) -> Mapping[str, Case]:
    """The cases whose names begin with one of these; all without names."""
    for name in names:
        if not any(case.startswith(name) for case in CASES):
            raise ValueError(f"--cases: expected beginnings of {', '.join(map(repr, CASES))}, got {name!r}")
    return {case: CASES[case] for case in CASES if not names or case.startswith(names)}


def compile_case(target: str, devices: Sequence[Device], name: str, case: Case) -> dict[str, Any]:
    """One row of metrics.json."""
    functions = {"ours": case.ours, "jax": case.plain_jax}
    devices = devices if case.divided else devices[:1]
    programs = {
        key: function and compile_for(devices, function, case.arguments, case.divided)
        for key, function in functions.items()
    }
    return {"target": target, "case": name} | {key: program and program._asdict() for key, program in programs.items()}


def table(rows: list[dict[str, Any]]) -> report.Table:
    """A row for each program of ours, with that of plain JAX after a slash."""
    head = ["target", "case", "compile s", "GFLOP", "MB accessed", "MB temporary", "Mcycles", *COUNTED, "custom calls"]
    return [head] + [[row["target"], row["case"], *cells(row)] for row in rows]


def cells(row: dict[str, Any]) -> list[str]:
    """The numbers of a row."""
    programs = [Program(**row[key]) if row[key] else None for key in ("ours", "jax")]
    columns = [
        [program and program.compile_seconds for program in programs],
        [scaled(program and program.flops, 1e9) for program in programs],
        [scaled(program and program.bytes_accessed, 1e6) for program in programs],
        [scaled(program and program.temporary_bytes, 1e6) for program in programs],
        [scaled(program and program.cycles, 1e6) for program in programs],
        *([program and program.operations.get(operation, 0) for program in programs] for operation in COUNTED),
    ]
    calls = " / ".join(call_names(program) for program in programs)
    return [" / ".join(map(number, column)) for column in columns] + [calls]


def scaled(value: float | None, unit: float) -> float | None:
    """A value in a larger unit."""
    return None if value is None else value / unit


def number(value: float | None) -> str:
    """Three digits; a dash for what is not known."""
    return "-" if value is None else f"{value:.3g}"


def call_names(program: Program | None) -> str:
    """The custom calls and how many there are of each."""
    if program is None or not program.custom_calls:
        return "-"
    return ", ".join(f"{count} {name}" for name, count in sorted(program.custom_calls.items()))


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_platforms", "cpu")  # the plug-ins would look for their devices
    cli.run_script(lambda: main(cli.parse_options(Accelerators, "accelerators", __doc__)))
