"""Progress reports: plain lines, bars, and silence."""

import io
import sys

import jax
import pytest

from cnn_jax.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_plain_line_at_the_start_and_after_every_tenth(capsys):
    with Progress("work", 200) as progress:
        for done in range(1, 201):
            progress.update(done, "note")
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [1, *range(20, 201, 20)]
    assert lines[-1].startswith("work  200/200  note")


def test_a_line_for_each_of_few_steps(capsys):
    with Progress("work", 3) as progress:
        for done in range(1, 4):
            progress.update(done)
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("work", 7) as progress:
        progress.update(7, "a note")
    assert all(text in terminal.getvalue() for text in ("work", "7/7", "a note"))


def test_plain_lines_on_a_terminal_without_rich(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with Progress("work", 7) as progress:
        progress.update(7)
    assert terminal.getvalue().startswith("work  7/7")


@pytest.mark.parametrize(("show", "process"), [(False, 0), (True, 1)])
def test_silence_where_it_is_asked_for_and_in_all_processes_but_the_first(monkeypatch, capfd, show, process):
    monkeypatch.setattr(jax, "process_index", lambda: process)
    with Progress("work", 7, show=show) as progress:
        progress.update(7)
    assert capfd.readouterr() == ("", "")
