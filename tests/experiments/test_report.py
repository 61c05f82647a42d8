"""experiments._lib.report: pages are valid whatever is in them. That scripts write them is tested with each script."""

import base64
import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments._lib import report
from tests.helpers.cli import check_report, decode_data_uri, png

HOSTILE = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "</title></style><!-- & &amp; &#0;",
    "größer ≤ 日本語 🙂",
    "w" * 3000,
    "\x00\x1b\udcff\ufffe\r\n{{ name }} `x` ]]>",
]


@dataclasses.dataclass(frozen=True)
class Config:
    out: Path = Path("out")
    words: tuple[str, ...] = ()
    number: int | None = None


def test_whatever_is_written_is_escaped_and_valid(tmp_path):
    figures = {f"{i}.png": text for i, text in enumerate(HOSTILE)}
    for name in figures:
        png(tmp_path / name, np.zeros((3, 4), np.uint8))
    config = Config(tmp_path, tuple(HOSTILE))
    report.write_html(tmp_path, "xo", config, [*HOSTILE, [HOSTILE, HOSTILE]], figures | {"missing.png": "none"})
    texts = check_report(tmp_path, figures=len(HOSTILE))
    for text in HOSTILE[:5]:
        assert text in texts["p"]
        assert text in texts["th"]
        assert text in texts["td"] or text == HOSTILE[0]  # the first cell has the row's name
        assert any(text in caption for caption in texts["figcaption"])
    assert texts["p"][-1] == "\ufffd\ufffd\ufffd\ufffd\n{{ name }} `x` ]]>"
    assert any(value.startswith(HOSTILE[0]) and value.endswith(" ...") for value in texts["dd"])


def test_a_docstring_is_shown_whole(tmp_path):
    report.write_html(tmp_path, "xo", Config(), [])
    texts = check_report(tmp_path, figures=0)
    assert texts["h1"] == ["Can a small network tell X from O, however the letter is drawn?"]
    assert texts["b"] == ["Claim:", "Evidence:"]
    assert "python -m experiments.xo" in texts["code"]
    assert [line.split()[:4] for line in texts["pre"][0].splitlines()][1:] == [
        ["python", "-m", "experiments.xo", word] for word in ("classify", "evaluate")
    ]
    assert texts["h2"] == ["Results", "Options", "Versions", "Run it again"]


def test_the_command_is_the_one_that_was_given(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["find.py", "a b.png", "--template", "it's.png"])
    asked = Config(words=("a b.png",))
    assert report.rerun_command("find", asked) == "python -m experiments.find"  # not what pytest was given
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=SimpleNamespace(name="experiments.find")))
    assert report.rerun_command("find", asked) == """python -m experiments.find 'a b.png' --template 'it'"'"'s.png'"""
    assert report.rerun_command("xo", asked) == "python -m experiments.xo"
    assert report.rerun_command("find", Config()) == "python -m experiments.find"


def test_however_much_there_is_a_page_stays_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (500, 800, 3), np.uint8)
    figures = {f"{i}.png": f"picture {i}" for i in range(6)}
    for name in figures:
        png(tmp_path / name, noise)
    table = [["name", "number"], *([f"row {i}", str(i)] for i in range(10_000))]
    report.write_html(tmp_path, "find", Config(words=("name",) * 100_000), [table], figures)
    texts = check_report(tmp_path, figures=6)
    assert len(texts["tr"]) == 1 + report.MAX_TABLE_ROWS
    assert "and 9,800 more rows" in texts["p"]


def test_pictures_are_reduced_only_if_they_must_be(tmp_path):
    small = png(tmp_path / "small.png", np.zeros((30, 40), np.uint8))
    source = report.data_uri(small, 1000)
    assert source.endswith(base64.b64encode(small.read_bytes()).decode())
    wide = png(tmp_path / "wide.png", np.zeros((10, 2 * report.MAX_FIGURE_SIDE), np.uint8))
    assert decode_data_uri(report.data_uri(wide, 10**6)).size == (report.MAX_FIGURE_SIDE, 5)
    noise = png(tmp_path / "noise.png", np.random.default_rng(0).integers(0, 256, (300, 400), np.uint8))
    reduced = decode_data_uri(report.data_uri(noise, 50_000))
    assert 100 < reduced.width < 400
    assert reduced.height == pytest.approx(0.75 * reduced.width, abs=1)


@pytest.mark.parametrize(
    "cell", ["-", "1", "-0.5", "1,024", "98.72 %", "1.2e+06", "3.5 hours", "0.8 ± 0.01", "40 (3%)"]
)
def test_numbers_are_set_flush_right(cell):
    assert report.numeric_columns([["head", "head"], ["1", cell]]) == [False, True]


@pytest.mark.parametrize("cell", ["", "word", "16x3x3, 4", "1-2-3", "nine 9"])
def test_words_are_not(cell):
    assert report.numeric_columns([["head", "head", "head"], ["1", cell, "2"], ["1", "2", "3"]]) == [False, False, True]


def test_tables_for_the_terminal():
    table = [["is", "read as X"], ["X", "12"], ["somewhat long", "3"]]
    assert report.as_text(["before", table, "after"]).splitlines() == [
        "before",
        "| is            | read as X |",
        "| ------------- | --------: |",
        "| X             |        12 |",
        "| somewhat long |         3 |",
        "",
        "after",
    ]


def test_cells_do_not_end_a_table_in_the_terminal():
    heads, rule, row = report.markdown([["a|b", "n"], ["c\nd", "nan"]]).splitlines()
    assert heads == "| a\\|b |   n |"
    assert rule == "| ---- | --: |"  # nan is a number
    assert row == "| c d  | nan |"


def test_what_turns_the_text_around_it_is_not_shown(tmp_path):
    report.write_html(tmp_path, "xo", Config(), ["a\u202eb\u2066c"])
    assert "a\ufffdb\ufffdc" in check_report(tmp_path, figures=0)["p"]
