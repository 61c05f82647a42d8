"""report.html: one self-contained page with a script's question, results, figures, options, versions and command."""

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
MAX_TABLE_ROWS = 200
MAX_OPTION_CHARACTERS = 2000
MAX_FIGURE_SIDE = 2000  # pixels
MAX_FIGURE_BYTES = 2_500_000  # of all figures together; base64 makes a third more of them
NUMBER = re.compile(r"-|nan|[-+]?inf|[-+]?[\d,.]+(e[-+]?\d+)?( ± [\d.]+)?( ?%| \w+)?( \(.*\))?")
# Control characters, marks that reverse text, lone surrogates and noncharacters: file names may have them.
UNPRINTABLE = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)

Table = Sequence[Sequence[str]]
"""Rows of cells; the first row has the column heads."""
Results = Sequence[str | Table]
"""Paragraphs and tables."""


def write_html(out: Path, name: str, config: Any, results: Results, figures: Mapping[str, str] | None = None) -> None:
    """Writes report.html into a folder.

    Args:
      out: the folder, which has the figures' files.
      name: the script, whose docstring heads the page.
      config: the script's options, a dataclass.
      results: paragraphs and tables.
      figures: for each file its caption, "title: explanation". Files that do not exist are left out.
    """
    question, paragraphs = script_description(name)
    captions = {out / file: caption for file, caption in (figures or {}).items() if (out / file).exists()}
    page = TEMPLATE.render(
        name=name,
        question=question,
        paragraphs=paragraphs,
        results=results,
        figures=[
            (data_uri(file, MAX_FIGURE_BYTES // len(captions)), *caption.partition(": "))
            for file, caption in captions.items()
        ],
        options={option: option_text(value) for option, value in vars(config).items()},
        versions=cli.versions(),
        command=rerun_command(name, config),
        numeric_columns=numeric_columns,
        max_rows=MAX_TABLE_ROWS,
    )
    cli.write_text(out / "report.html", UNPRINTABLE.sub("\ufffd", page))


def as_text(results: Results) -> str:
    """Results for the terminal; tables are Markdown."""
    return "\n".join(block if isinstance(block, str) else f"{markdown(block)}\n" for block in results).rstrip("\n")


def markdown(table: Table) -> str:
    """A Markdown table with aligned columns."""
    columns = [[escape_cell(cell) for cell in column] for column in zip(*table, strict=True)]
    aligned = [align(column, right) for column, right in zip(columns, numeric_columns(table), strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(*aligned, strict=True))


def align(column: Sequence[str], right: bool) -> list[str]:
    """A column's cells at one width, flush left or right, with the rule below the head."""
    width = max(3, *map(len, column))
    head, *cells = [cell.rjust(width) if right else cell.ljust(width) for cell in column]
    rule = "-" * (width - 1) + ":" if right else "-" * width
    return [head, rule, *cells]


def escape_cell(cell: str) -> str:
    """A cell's text on one line, its column separators escaped."""
    return " ".join(cell.split("\n")).replace("|", "\\|")


def numeric_columns(table: Table) -> list[bool]:
    """Which columns hold numbers only and are set flush right; the first column holds the rows' names."""
    return [i > 0 and all(map(NUMBER.fullmatch, cells)) for i, (_, *cells) in enumerate(zip(*table, strict=True))]


def script_description(name: str) -> tuple[str, list[str]]:
    """The question that begins a script's docstring, and the paragraphs after it."""
    script = (HERE.parent / f"{name}.py").read_text(encoding="utf-8")
    question, mark, text = (ast.get_docstring(ast.parse(script)) or "").partition("?")
    paragraphs = cli.PARAGRAPH_BREAK.split(text)
    return question + mark, [textwrap.dedent(paragraph).strip() for paragraph in paragraphs if paragraph.strip()]


def rerun_command(name: str, config: Any) -> str:
    """The command that runs a script again.

    It has the command line's arguments if this process was started as that script and any option differs from its
    default.
    """
    program = getattr(sys.modules["__main__"], "__spec__", None)
    is_main = program is not None and program.name == f"experiments.{name}"
    changed = any(getattr(config, option.name) != option.default for option in dataclasses.fields(config))
    arguments = sys.argv[1:] if is_main and changed else []
    return shlex.join(["python", "-m", f"experiments.{name}", *arguments])


def option_text(value: Any) -> str:
    """An option's value for the page, shortened if it is very long."""
    if value is None or value == ():
        return "none"
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= MAX_OPTION_CHARACTERS else f"{text[:MAX_OPTION_CHARACTERS]} ..."


def data_uri(path: Path, max_bytes: int) -> str:
    """A picture file as a data URI of a PNG, reduced to at most `max_bytes` and MAX_FIGURE_SIDE pixels a side."""
    data = path.read_bytes()
    with Image.open(path) as picture:
        while (size := max(picture.size)) > MAX_FIGURE_SIDE or len(data) > max_bytes:
            side = min(MAX_FIGURE_SIDE, math.ceil(size * min(0.9, math.sqrt(max_bytes / len(data)))))
            picture.thumbnail((side, side))
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            data = buffer.getvalue()
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
