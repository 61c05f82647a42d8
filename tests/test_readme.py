"""README's code blocks run. `.ci/run` also runs its set-up commands whole, in a fresh clone."""

import json
import re
import shlex
import statistics
import tomllib
from pathlib import Path

import pytest

from experiments import gallery
from experiments._lib.throughput_report import number
from tests.helpers import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [line for language, code in BLOCKS if language == "sh" for line in code.splitlines()]


def test_only_python_and_sh_blocks():
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    assert README.count("```") == 2 * len(BLOCKS)


@pytest.mark.slow
@pytest.mark.parametrize("code", PYTHON)
def test_python_blocks_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_exactly_two_commands_set_up_and_run():
    whole = [line for line in COMMANDS if "-m venv" in line]
    assert [line.split(" -m ")[-1] for line in whole] == ["experiments.xo", "pytest -n auto"]
    assert all(line.startswith("python3 -m venv .venv && .venv/bin/pip install") for line in whole)


def test_commands_name_what_exists():
    """Each part is a venv, an install of extras that exist, or a module whose help has the options that are used."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    scripts = []
    for words in (shlex.split(part) for line in COMMANDS for part in line.split("&&")):
        if words[0] == ".venv/bin/pip":
            (target,) = (word for word in words[2:] if not word.startswith("-"))
            assert words[1] == "install"
            assert set(target.removeprefix(".[").removesuffix("]").split(",")) <= extras.keys()
        elif words[1:] == ["-m", "pytest", "-n", "auto"]:
            assert any(package.startswith("pytest-xdist") for package in extras["test"])
        elif words[1:3] != ["-m", "venv"]:
            assert words[:2] == [".venv/bin/python", "-m"]
            scripts.append(words[2:])
    helps = [[module, *(word for word in arguments if word.isalpha()), "--help"] for module, *arguments in scripts]
    for words, (help_text, _) in zip(scripts, cli.run_each(ROOT, helps), strict=True):
        assert all(word in help_text for word in words if word.startswith("--"))


def test_pictures_are_those_that_the_gallery_makes():
    pictures = {}
    for path in (ROOT / "README.md", ROOT / "experiments" / "README.md"):
        links = re.findall(r"\]\(([^)]+\.png)\)", path.read_text())
        assert links
        pictures |= {link: path.parent / link for link in links}
    assert all(path.is_file() for path in pictures.values())
    shown = {path.name for path in pictures.values()}
    assert shown == {*gallery.PICTURES, *gallery.SCREENSHOTS}
    assert shown == {path.name for path in gallery.PICTURES_DIR.iterdir()}


SPEED = json.loads((ROOT / "results/throughput.json").read_text())
LIBRARIES = {"torch": "PyTorch", "opencv": "OpenCV", "flax": "Flax", "equinox": "Equinox"}


def measured(task, case):
    (row,) = (row for row in SPEED["rows"] if (row["task"], row["case"]) == (task, case))
    return row


def fastest(row, libraries):
    """Milliseconds of the fastest of some libraries, and its name."""
    times = [(time, re.split(r"[ .]", name)[0]) for name, time in row["peers"].items()]
    milliseconds, name = min(pair for pair in times if pair[1] in libraries)
    return milliseconds, LIBRARIES[name]


def cells(first_cell):
    """The rows of README's table whose first column has this head, as lists of cells."""
    table = README[README.index(f"| {first_cell} |") :].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def check_cell(cell, *expected):
    """A cell shows milliseconds, after the first with the library's name, to three digits."""
    for part, value in zip(cell.split(" / "), expected, strict=True):
        milliseconds, name = value if isinstance(value, tuple) else (value, None)
        shown, *names = part.split(" (")
        assert float(shown) == float(number(milliseconds))
        assert names == ([] if name is None else [f"{name})"])


def test_the_times_of_scores_and_networks_are_measured():
    scores, networks = cells("images, features"), cells("images, features of the stages")
    assert len(scores) == 7
    for case, *times in scores:
        for task, cell in zip(("match", "zncc"), times, strict=True):
            row = measured(task, case.replace("×", "x"))
            check_cell(cell, row["ours_ms"], fastest(row, LIBRARIES))
    assert len(networks) == 3
    for case, step, scan, inference in networks:
        trained, applied = (measured(task, case.replace("×", "x")) for task in ("train_step", "inference"))
        check_cell(step, trained["ours_ms"], fastest(trained, ("torch",)), fastest(trained, ("flax", "equinox")))
        check_cell(scan, trained["methods"]["scan"])
        check_cell(inference, applied["ours_ms"], fastest(applied, LIBRARIES))


def test_the_times_of_parts_are_measured():
    rows = [
        measured("max_pool's gradient", "256x16x16x32, 64"),
        measured("conv", "256x28x28x1, 16"),
        measured("depthwise conv", "32x32x32x32, 32"),
        measured("depthwise conv's gradients", "32x32x32x32, 32"),
        measured("train_step", "256x28x28x1, 16-32"),
    ]
    table = cells("part")
    assert len(table) == len(rows)
    for (_, plain, ours, _), row in zip(table, rows, strict=True):
        is_scan = row["task"] == "train_step"
        check_cell(plain, row["peers"]["jax scan" if is_scan else "jax"])
        check_cell(ours, row["methods"]["scan"] if is_scan else row["ours_ms"])


def ratios(task, libraries):
    """Of the fastest of some libraries to cnn_jax."""
    rows = [row for row in SPEED["rows"] if row["task"] == task]
    return [fastest(row, libraries)[0] / row["ours_ms"] for row in rows]


def spread(values):
    return f"{min(values):.1f} to {max(values):.1f} times"


def test_the_text_says_what_the_tables_show():
    text = re.sub(r"\s+", " ", README)
    scores = {task: ratios(task, LIBRARIES) for task in ("match", "zncc")}
    means = {task: f"{statistics.geometric_mean(values):.1f} times on average" for task, values in scores.items()}
    scans = [row for row in SPEED["rows"] if row["task"] == "train_step"]
    slower = [row["peers"]["jax scan"] / row["methods"]["scan"] for row in scans]
    assert f"`zncc` is {spread(scores['zncc'])} as fast as the best of the others, {means['zncc']}" in text
    assert f"`match` is {spread(scores['match'])} as fast, {means['match']}" in text
    assert f"{spread(ratios('train_step', ('flax', 'equinox')))} as fast as Flax and Equinox" in text
    assert f"{spread(ratios('train_step', ('torch',)))} as fast as the best of PyTorch" in text
    assert f"takes {spread([row['peers']['jax'] / row['ours_ms'] for row in scans])} as long as cnn_jax" in text
    assert f"{min(slower):.0f} to {max(slower):.0f} times as long inside a `lax.scan`" in text
    steps = [number(row["peers_in_16_bits"]["torch bfloat16"]) for row in scans]
    assert f"PyTorch takes {steps[0]}, {steps[1]} and {steps[2]} ms a step" in text
