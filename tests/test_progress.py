"""Progress reports: plain lines, also in a notebook, bars, and silence."""

import io
import itertools
import os
import sys
import time
from pathlib import Path

import jax
import pytest

from cnn_jax import progress as progress_module
from cnn_jax.progress import Progress

ROOT = Path(progress_module.__file__).parents[1]
KERNEL_SECONDS = 120  # to start on a busy machine


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        seconds = 1000.0

    monkeypatch.setattr(time, "monotonic", lambda: Clock.seconds)
    return Clock


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


def test_a_plain_line_after_five_seconds_and_later_after_a_tenth_of_the_time(capsys, clock):
    with Progress("work", 10**6) as progress:
        for done in range(1, 3601):  # an hour, a step in a second
            clock.seconds += 1
            progress.update(done)
    seconds = [int(line.split()[-2]) for line in capsys.readouterr().err.splitlines()]
    assert seconds[:3] == [1, 7, 13]
    assert all(after - before <= max(6, 0.1 * after + 1) for before, after in itertools.pairwise(seconds))
    assert seconds[-1] > 3200
    assert len(seconds) < 60


def test_an_update_is_due_after_a_second_if_somebody_sees_it(clock):
    with Progress("work", 100) as shown, Progress("work", 100, show=False) as hidden:
        for progress in (shown, hidden):
            progress.update(1)
            assert not progress.is_due()
        clock.seconds += 1.1
        assert shown.is_due()
        assert not hidden.is_due()
        shown.update(2)
        assert not shown.is_due()


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


CELL = """
import pathlib, time
from cnn_jax.progress import Progress
seen = pathlib.Path({seen!r})
with Progress("work", 1000) as progress:
    progress.update(1, "a note")
    while not seen.exists():
        time.sleep(0.01)
    progress.update(1000, "the last note")
"""


@pytest.mark.filterwarnings("default")  # of Jupyter's own packages
def test_a_notebook_shows_lines_while_its_cell_runs(tmp_path):
    """The cell ends only when its first line was seen."""
    pytest.importorskip("ipykernel")
    manager = pytest.importorskip("jupyter_client.manager").KernelManager(kernel_name="python3")
    manager.start_kernel(env=os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path)}, cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=KERNEL_SECONDS)
        request = client.execute(CELL.format(seen=str(tmp_path / "seen")))
        text = ""
        while "the last note" not in text:
            message = client.get_iopub_msg(timeout=KERNEL_SECONDS)
            if message["parent_header"].get("msg_id") == request and message["msg_type"] == "stream":
                text += message["content"]["text"]
                (tmp_path / "seen").touch()
            assert message["msg_type"] != "error", message["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert [line.split("  ")[:3] for line in text.splitlines()] == [
        ["work", "1/1000", "a note"],
        ["work", "1000/1000", "the last note"],
    ]
