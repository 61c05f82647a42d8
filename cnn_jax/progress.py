"""Progress of long work on stderr: a bar on a terminal, elsewhere a plain line at the start and after every tenth."""

import sys
import time
from types import TracebackType

import jax

PLAIN_LINES = 10


class Progress:
    """Shows how far a loop has come.

    with Progress("training", 1000) as progress:
        progress.update(done, "loss 0.1")
    """

    def __init__(self, title: str, total: int, *, show: bool = True):
        self.title, self.total, self.start, self.tenth = title, total, time.monotonic(), -1
        show = show and jax.process_index() == 0  # of several processes the first speaks
        self.bar = _bar(title, total) if show and sys.stderr.isatty() else None
        self.plain = show and self.bar is None

    def __enter__(self) -> "Progress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, done: int, note: str = "") -> None:
        """Says that `done` of the total are done; the note stands beside it."""
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=done, note=note)
        tenth = done * PLAIN_LINES // self.total
        if self.plain and tenth > self.tenth:
            self.tenth = tenth
            seconds = time.monotonic() - self.start
            print(f"{self.title}  {done}/{self.total}  {note}  {seconds:.0f} s", file=sys.stderr, flush=True)


def _bar(title: str, total: int):
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError:
        return None
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
    bar.add_task(title, total=total, note="")
    return bar
