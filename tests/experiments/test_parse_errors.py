"""experiments._lib.parse_errors: what is wrong with a command line, on one line."""

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from experiments._lib import cli
from experiments._lib.parse_errors import option_values, read_box


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of every type that scripts have."""

    count: int = 1
    """How many."""
    rate: float | None = None
    """How much."""
    ends: tuple[float, float] | None = None
    """From where to where."""
    rates: tuple[float, ...] = ()
    """How much each time."""
    kind: Literal["one", "two"] = "one"
    """Which one."""
    file: Path = Path("file")
    """Where."""
    quick: bool = False
    """How fast."""


LINES = {
    "--count x": "--count: expected a whole number, got x",
    "--count 1.5 --quick": "--count: expected a whole number, got 1.5",
    "--count=x": "--count: expected a whole number, got x",
    "--count": "--count: Missing value. Expected 1 values",
    "--rate x": "--rate: expected a number, got x",
    "--ends 1 --rate 2": "--ends: expected {FLOAT FLOAT}, got 1",
    "--ends -1 x": "--ends: expected {FLOAT FLOAT}, got -1 x",
    "--rates 1 x": "--rates: expected [FLOAT [FLOAT ...]], got 1 x",
    "--kind three": "--kind: invalid choice 'three'. Expected one of ('one', 'two')",
    "--cuont 3": "Unrecognized options: --cuont, 3; perhaps --count INT",
    "--else": "Unrecognized options: --else",
}


@pytest.mark.parametrize("columns", ["60", "200"])
@pytest.mark.parametrize("line", LINES)
def test_the_error_is_one_line_that_names_the_option(line, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as stop:
        cli.parse_options(Options, "name", "What?", line.split())
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: {LINES[line]}; see python -m experiments.name --help\n")


def test_boxes_on_terminals_are_read_without_their_lines_and_colors():
    red = "\x1b[31m"
    rows = ["wrong", "────", "Help:", "   --a INT"]
    box = "\n".join(["╭─ Title ─╮", *(f"{red}│\x1b[0m {row} │" for row in rows), f"{red}╰────╯\x1b[0m"])
    assert read_box(box) == ("wrong", "--a INT")


def test_help_is_printed_as_it_is(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse_options(Options, "name", "What?", ["--help"])
    assert not stop.value.code
    assert "--rate {None}|FLOAT" in capsys.readouterr().out


def test_right_options_are_returned():
    assert cli.parse_options(Options, "name", "What?", ["--ends", "-1", "2"]) == Options(ends=(-1.0, 2.0))


def test_boxes_without_lines_are_read():
    assert read_box(" Title\n -------\n  two\n  rows\n  -------\n  Help:\n      --a INT\n\n") == ("two rows", "--a INT")


def test_the_last_occurrence_of_an_option_counts():
    assert option_values("--a-b", ["--a_b", "1", "--c", "2", "--a-b", "3", "-4"]) == ["3", "-4"]
