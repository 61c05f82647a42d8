"""How the rows of throughput.json are summarized and shown."""

import itertools
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from . import report
from .throughput_training import OURS_SCAN_STEPS, PLAIN_JAX_SCAN_STEPS

BUSY_LOAD = 1.0  # load average, over the last minute, above which other programs disturb the timing
BASELINE_GROUPS = {
    "PyTorch": ("torch", "torch channels last", "torch.compile"),
    "Flax and Equinox": ("flax", "equinox"),
    "plain JAX": ("jax",),
}
GROUPED_TASKS = ("train_step", "inference")

Row = Mapping[str, Any]


def summarize(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """The geometric mean and the smallest of each task's ratios, best baseline / ours; of networks also by group."""
    ratios: dict[str, list[float]] = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        rows_of_task = [row for row in rows if row["task"] == task]
        ratios[task] = [row["ratio"] for row in rows_of_task if row["ratio"]]
        if task in GROUPED_TASKS:
            for group, names in BASELINE_GROUPS.items():
                ratios[f"{task}, {group}"] = group_ratios(rows_of_task, names)
    return {
        name: {"geometric_mean": statistics.geometric_mean(values), "smallest": min(values)}
        for name, values in ratios.items()
        if values
    }


def group_ratios(rows: Sequence[Row], names: Collection[str]) -> list[float]:
    """Time of the best of some baselines / ours, for the rows that have any of them."""
    ratios = []
    for row in rows:
        times = [milliseconds for name, milliseconds in row["peers"].items() if name in names]
        if times:
            ratios.append(min(times) / row["ours_ms"])
    return ratios


def results(content: Mapping[str, Any], kinds: Mapping[str, Any]) -> report.Results:
    """The content of throughput.json as paragraphs and tables.

    Args:
      content: the content.
      kinds: for each task its kind; consecutive rows of one kind share a table.
    """
    rows = content["rows"]
    groups = itertools.groupby(rows, key=lambda row: kinds[row["task"]])
    blocks: list[str | report.Table] = [table(list(group), content["peaks"]) for _, group in groups]
    blocks += [f"{row['task']} {row['case']}: {name} {why}" for row in rows for name, why in row["skipped"].items()]
    blocks += [
        f"{task}: the fastest baseline takes {ratio['geometric_mean']:.2f} times as long as cnn_jax (geometric mean), "
        f"at least {ratio['smallest']:.2f} times"
        for task, ratio in content["summary"].items()
    ]
    blocks += notes(content["peaks"])
    if content["load_before"] > BUSY_LOAD:
        blocks.append(
            f"warning: the load average was {content['load_before']:.1f} before the run; timings are unreliable"
        )
    return blocks


def notes(peaks: Mapping[str, float]) -> list[str]:
    """What the tables' columns mean."""
    return [
        f"scan: a step of cnn_jax, in one lax.scan of {OURS_SCAN_STEPS}. jax: plain JAX. jax scan: its step, in a scan "
        f"of {PLAIN_JAX_SCAN_STEPS}. jax loop: one covered image after the other.",
        "find: the template is at any angle. 72 angles and opencv loop compare steps of 5 degrees at every place; ours "
        "and opencv pyramid search coarse to fine. eager: called without jax.jit.",
        "torch bfloat16 multiplies numbers of 16 bits: it is not compared, and not counted among the baselines.",
        "Times are milliseconds, medians of the rounds. spread: from the fastest to the slowest round of ours. first "
        "call: in seconds; it compiles.",
        "GFLOP/s are those of the direct algorithm; a dash says that ours needed fewer, as Fourier transforms and "
        "searches from coarse to fine do. GB/s count inputs and outputs once. "
        f"In brackets: share of this machine's peaks, {peaks['gflops']:.0f} GFLOP/s (matrix product) and "
        f"{peaks['gbytes_per_s']:.1f} GB/s (sum).",
    ]


def table(rows: Sequence[Row], peaks: Mapping[str, float]) -> report.Table:
    """The rows, times in milliseconds."""
    baselines = list(dict.fromkeys(name for row in rows for name in row["peers"]))
    in_16_bits = list(dict.fromkeys(name for row in rows for name in row["peers_in_16_bits"]))
    methods = list(dict.fromkeys(name for row in rows for name in row["methods"]))
    head = ["task", "images, features", "ours", "spread", *baselines, "fastest baseline / ours", *in_16_bits, *methods]
    has_auto = any(row["auto"] for row in rows)
    head += ["auto", "auto / best"] if has_auto else []
    has_jax = any("jax" in row["peers"] for row in rows)
    head += ["first call", "jax's first call"] if has_jax else ["first call"]
    head += ["images/s", "GFLOP/s", "GB/s"]
    return [head] + [
        [
            row["task"],
            row["case"],
            number(row["ours_ms"]),
            f"{row['spread']:.0%}",
            *(number(row["peers"].get(name)) for name in baselines),
            number(row["ratio"]),
            *(number(row["peers_in_16_bits"].get(name)) for name in in_16_bits),
            *(number(row["methods"].get(name)) for name in methods),
            *((row["auto"], number(row["regret"])) if has_auto else ()),
            *(f"{seconds:.2f}" if seconds else "-" for seconds in first_calls(row, has_jax)),
            number(row["images_per_s"]),
            *(rate_text(row[rate], peaks[rate]) for rate in ("gflops", "gbytes_per_s")),
        ]
        for row in rows
    ]


def first_calls(row: Row, has_jax: bool) -> list[float | None]:
    """Seconds of the first call of cnn_jax, and of plain JAX if the table has a column for it."""
    return [row["first_call_s"], row["peers_first_call_s"].get("jax")] if has_jax else [row["first_call_s"]]


def rate_text(rate: float, peak: float) -> str:
    """A rate and its share of the peak; a dash for more than the peak."""
    return "-" if rate > peak else f"{number(rate)} ({rate / peak:.0%})"


def number(value: float | None) -> str:
    """Three digits; a dash for None."""
    if value is None:
        return "-"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
