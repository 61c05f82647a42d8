"""What does an accelerator do with the library, in eight minutes?

One prepared run for whoever has a GPU, or another accelerator, for some minutes. It needs JAX with the device's
plug-in, and of this project's extras none; it downloads nothing. PyTorch and CuPy are compared where they are
installed. Each stage runs in a process of its own and is stopped at its limit. What it has measured until then is kept.

The results of all stages on an accelerator also go to results/NAME-OF-THE-DEVICE.json.

    python -m experiments.device                                 all stages
    python -m experiments.device --stages matching search        two of them
    python -m experiments.device --quick                         a rehearsal with small sizes, on any device
"""

import argparse
import datetime
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from cnn_jax.progress import Progress

from ._lib import cli
from ._lib.device_setting import Setting
from ._lib.device_stages import STAGES

ROOT = Path(__file__).parents[1]
MINUTES = 8.0
MIN_STAGE_SECONDS = 5.0


def main(args: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the stages and writes; returns the content of metrics.json."""
    options = parse(args)
    if options.stage_lines:
        run_stage(options.stages[0], options.quick, Path(options.stage_lines))
        return {}
    out = cli.make_output_dir(options.out)
    stages = list(dict.fromkeys(options.stages))
    deadline = time.monotonic() + 60 * options.minutes
    content: dict[str, Any] = {"date": datetime.date.today().isoformat(), "commit": commit(), "stages": {}}
    with Progress("device", len(stages)) as progress:
        for number, name in enumerate(stages):
            progress.update(number, name)
            result = call_stage(name, options.quick, deadline - time.monotonic())
            content["machine"] = result.pop("machine", None) or content.get("machine")
            content["stages"][name] = result
            save(content, out, options.quick)
            print(stage_text(name, result), flush=True)
            if not content["machine"]:
                raise ValueError(f"{name} {result['status']}")
        progress.update(len(stages))
    return content


def parse(args: Sequence[str] | None) -> argparse.Namespace:
    """The options. argparse reads them: tyro, which reads those of other scripts, is not on every such machine."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.device", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all stages together (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal with small sizes; nothing goes to results/")
    parser.add_argument("--out", type=Path, default=Path("runs/device"), help="folder for metrics.json (%(default)s)")
    parser.add_argument("--stage-lines", help=argparse.SUPPRESS)  # of the process of a stage: its file of JSON lines
    options = parser.parse_args(args)
    cli.check_positive("--minutes", options.minutes)
    return options


def run_stage(name: str, is_quick: bool, lines: Path) -> None:
    """Runs a stage in this process and appends each result to a file as it comes."""
    if jax.default_backend() == "cpu" and not is_quick:
        raise ValueError("JAX finds no accelerator here; --quick rehearses on the CPU")
    with lines.open("a", encoding="utf-8") as file:
        # The versions start JAX's device before a stage imports other libraries.
        for line in itertools.chain([{"machine": cli.versions()}], STAGES[name].measure(Setting(is_quick))):
            file.write(json.dumps(line) + "\n")
            file.flush()


def call_stage(name: str, is_quick: bool, seconds_left: float) -> dict[str, Any]:
    """The results of a stage that ran in a process of its own."""
    stage = STAGES[name]
    limit = min(stage.seconds, seconds_left)
    if limit < MIN_STAGE_SECONDS:
        return {"status": "not started: no time left", "seconds": 0.0, "results": []}
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines.jsonl"
        lines.touch()
        command = [sys.executable, "-m", "experiments.device", "--stages", name, "--stage-lines", str(lines)]
        flags = " ".join([os.environ.get("XLA_FLAGS", ""), *stage.xla_flags])
        environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ, "XLA_FLAGS": flags}
        start = time.monotonic()
        status = status_of([*command, *(["--quick"] if is_quick else [])], environment, limit)
        seconds = time.monotonic() - start
        whole = [line for line in lines.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    found = [json.loads(line) for line in whole]
    machine = next((line["machine"] for line in found if "machine" in line), None)
    results = [line for line in found if "machine" not in line]
    return {"status": status, "seconds": round(seconds, 1), "results": results, "machine": machine}


def status_of(command: Sequence[str], environment: Mapping[str, str], limit: float) -> str:
    """Runs a command, and says how it ended. What it has started ends with it."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=errors, start_new_session=True)
        try:
            code = process.wait(limit)
        except BaseException as stop:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(stop, subprocess.TimeoutExpired):
                return f"stopped after {limit:.0f} s"
            raise
        errors.seek(0)
        *_, message = errors.read().strip().splitlines() or ["no message"]
    return f"failed with exit code {code}: {message}" if code else "done"


def save(content: Mapping[str, Any], out: Path, is_quick: bool) -> None:
    """Writes what has been measured so far; a run of all stages on an accelerator also into results/."""
    cli.write_json(out / "metrics.json", content)
    device = (content["machine"] or {}).get("device", "cpu")
    if not device.startswith("cpu") and not is_quick and content["stages"].keys() == STAGES.keys():
        name = re.search(r"\((.*)\)", device)
        slug = re.sub(r"\W+", "-", (name[1] if name else device).lower()).strip("-")
        try:
            cli.write_json(ROOT / "results" / f"{slug}.json", content)
        except OSError as error:
            print(f"results/: {cli.one_line_error(error)}; the results are in {out}", file=sys.stderr)


def commit() -> str | None:
    """The commit of this clone, with "+" if files differ from it; None outside of a clone."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def stage_text(name: str, result: Mapping[str, Any]) -> str:
    """A stage's results for the terminal, a line each."""
    lines = [f"{name}: {result['status']}, {result['seconds']} s"]
    for line in result["results"]:
        rest = {key: value for key, value in line.items() if key != "name" and value not in (None, {}, [])}
        lines.append(f"  {line['name']}: " + ", ".join(f"{key} {value_text(value)}" for key, value in rest.items()))
    return "\n".join(lines)


def value_text(value: Any) -> str:
    """A number of three digits, or those of a mapping."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}={value_text(one)}" for key, one in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    cli.run_script(main)
