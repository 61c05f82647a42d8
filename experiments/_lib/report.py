"""One page of what a script asked, what came out and how to run it again: report.html, which loads nothing."""

import ast
import base64
import dataclasses
import io
import math
import re
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from . import cli

HERE = Path(__file__).parent
TEMPLATE = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
).get_template("report.html.jinja")
ROWS = 200  # of a table
LONGEST = 2000  # characters of an option's value
SIDE = 2000  # pixels along each side of a figure
BYTES = 2_500_000  # of all figures together, which take a third more as text
NUMBER = re.compile(r"-|nan|[-+]?inf|[-+]?[\d,.]+(e[-+]?\d+)?( ± [\d.]+)?( ?%| \w+)?( \(.*\))?")
NO_TEXT = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)  # names may have it

Table = Sequence[Sequence[str]]
"""Rows of cells, the heads first."""


def write_html(
    out: Path, name: str, config: Any, came_out: Sequence[str | Table], figures: Mapping[str, str] | None = None
) -> None:
    """Writes report.html: a script's docstring, what came out, figures, options, versions and the command.

    `figures` has captions, "title: explanation", for picture files in `out`; those that are not there are left out.
    """
    question, about = asked(name)
    drawn = {out / file: caption for file, caption in (figures or {}).items() if (out / file).exists()}
    page = TEMPLATE.render(
        name=name,
        question=question,
        about=about,
        came_out=came_out,
        figures=[(data_uri(file, BYTES // len(drawn)), *caption.partition(": ")) for file, caption in drawn.items()],
        options={option: shown(value) for option, value in vars(config).items()},
        versions=cli.versions(),
        command=rerun_command(name, config),
        numeric_columns=numeric_columns,
        most_rows=ROWS,
    )
    cli.write_text(out / "report.html", NO_TEXT.sub("\ufffd", page))


def as_text(came_out: Sequence[str | Table]) -> str:
    """What came out, for the terminal: tables in Markdown."""
    return "\n".join(block if isinstance(block, str) else f"{markdown(block)}\n" for block in came_out).rstrip("\n")


def markdown(table: Table) -> str:
    """A table in Markdown, its columns in line."""
    columns = list(zip(*([plain(cell) for cell in row] for row in table), numeric_columns(table), strict=True))
    wide = [max(3, *map(len, cells)) for *cells, _ in columns]
    rule = ["-" * (width - right) + ":" * right for width, (*_, right) in zip(wide, columns, strict=True)]
    aligned = [
        [cell.rjust(width) if right else cell.ljust(width) for cell in cells]
        for width, (*cells, right) in zip(wide, columns, strict=True)
    ]
    heads, *rows = zip(*aligned, strict=True)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))


def plain(cell: str) -> str:
    """A cell whose text does not end it."""
    return " ".join(cell.split("\n")).replace("|", "\\|")


def numeric_columns(table: Table) -> list[bool]:
    """Which columns hold numbers alone, and are set flush right; the first has the names of the rows."""
    return [i > 0 and all(map(NUMBER.fullmatch, cells)) for i, (_, *cells) in enumerate(zip(*table, strict=True))]


def asked(name: str) -> tuple[str, list[str]]:
    """A script's question, with which its docstring begins, and the paragraphs that follow."""
    script = (HERE.parent / f"{name}.py").read_text(encoding="utf-8")
    question, mark, rest = (ast.get_docstring(ast.parse(script)) or "").partition("?")
    paragraphs = re.split(r"\n\s*?\n|\n(?=(?:Claim|Evidence|Source): )", rest)
    return question + mark, [textwrap.dedent(one).strip() for one in paragraphs if one.strip()]


def rerun_command(name: str, config: Any) -> str:
    """The command to run a script again: its arguments, if it was started by itself and asked for more than nothing."""
    program = getattr(sys.modules["__main__"], "__spec__", None)
    started = program is not None and program.name == f"experiments.{name}"
    changed = any(getattr(config, option.name) != option.default for option in dataclasses.fields(config))
    return shlex.join(["python", "-m", f"experiments.{name}", *(sys.argv[1:] if started and changed else ())])


def shown(value: Any) -> str:
    """An option's value, to be read."""
    words = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return "none" if value is None or value == () else words if len(words) <= LONGEST else f"{words[:LONGEST]} ..."


def data_uri(path: Path, most: int) -> str:
    """A picture file as a data URI of a PNG, reduced to at most so many bytes and SIDE pixels along each side."""
    data = path.read_bytes()
    with Image.open(path) as picture:
        while (size := max(picture.size)) > SIDE or len(data) > most:
            side = min(SIDE, math.ceil(size * min(0.9, math.sqrt(most / len(data)))))
            picture.thumbnail((side, side))
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            data = buffer.getvalue()
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
