"""Progress reports on stderr: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

import jax

__all__ = ["Progress"]

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

PLAIN_LINES = 10  # beside the first


class Progress:
    """Shows how much of a loop is done.

    On a terminal it is a bar, if rich is installed. Elsewhere it is a plain line at the first update and after every
    tenth of the total. With several JAX processes only the first one reports.

    Args:
      title: what the loop does.
      total: the number of iterations.
      show: whether to report at all.

    Example:

        with Progress("training", 1000) as progress:
            for step in range(1, 1001):
                ...
                progress.update(step, f"loss {loss:.4f}")

    >>> with Progress("training", 1000, show=False) as progress:
    ...     progress.update(1000)
    """

    def __init__(self, title: str, total: int, *, show: bool = True):
        show = show and jax.process_index() == 0
        self._title = title
        self._total = total
        self._start = time.monotonic()
        self._tenths_shown = -1
        self._bar = _make_bar(title, total) if show and sys.stderr.isatty() else None
        self._plain = show and self._bar is None

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, note: str = "") -> None:
        """Reports that `done` iterations of the total are done, with a note."""
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, note=note)
        tenths = done * PLAIN_LINES // self._total
        if self._plain and tenths > self._tenths_shown:
            self._tenths_shown = tenths
            seconds = time.monotonic() - self._start
            print(f"{self._title}  {done}/{self._total}  {note}  {seconds:.0f} s", file=sys.stderr, flush=True)


def _make_bar(title: str, total: int) -> "RichProgress | None":
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
    except ImportError:
        return None
    bar = RichProgress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    bar.add_task(title, total=total, note="")
    return bar
