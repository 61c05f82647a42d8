"""Progress reports on stderr: a bar on a terminal, plain lines in notebooks and logs."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

import jax

__all__ = ["Progress"]

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

PLAIN_LINES = 10  # beside the first and those after a time
# A plain line follows another after this time at the latest, and after this share of the time since the start, so that
# the log of a long run stays short: some 60 lines in an hour, 90 in a day.
PLAIN_SECONDS = 5.0
PLAIN_SHARE = 0.1
UPDATE_SECONDS = 1.0  # between updates that the user sees


class Progress:
    """Shows how much of a loop is done.

    On a terminal it is a bar, if rich is installed. In a notebook, and wherever else stderr is no terminal, it is a
    plain line at the first update, after every tenth of the total, and after five seconds without one, or a tenth of
    the time so far if that is longer. With several JAX processes only the first one reports.

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
        self._updated = self._start
        self._line_shown = self._start
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
        self._updated = time.monotonic()
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, note=note)
        if self._plain and self._is_line_due(done):
            self._line_shown = self._updated
            self._tenths_shown = self._tenths(done)
            seconds = self._updated - self._start
            print(f"{self._title}  {done}/{self._total}  {note}  {seconds:.0f} s", file=sys.stderr, flush=True)

    def is_due(self) -> bool:
        """Whether the user sees an update, and the last one was more than a second ago."""
        is_shown = self._plain or self._bar is not None
        return is_shown and time.monotonic() - self._updated > UPDATE_SECONDS

    def _is_line_due(self, done: int) -> bool:
        longest_silence = max(PLAIN_SECONDS, PLAIN_SHARE * (self._updated - self._start))
        return self._tenths(done) > self._tenths_shown or self._updated - self._line_shown > longest_silence

    def _tenths(self, done: int) -> int:
        return done * PLAIN_LINES // self._total


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
