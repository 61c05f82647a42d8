"""Graceful stops: the first SIGINT or SIGTERM asks a loop to end after its current step."""

import contextlib
import functools
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol, runtime_checkable

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@runtime_checkable
class StopSignal(Protocol):
    """Returns the signal that asks the run to stop after `step`, or None."""

    def __call__(self, step: int, /) -> signal.Signals | None: ...


@contextlib.contextmanager
def stop_on_signal(*, several_processes: bool = True) -> Iterator[StopSignal]:
    """Yields a function that tells after a step whether the run was asked to stop.

    The first SIGINT or SIGTERM is recorded instead of having its usual effect, and a line on stderr says so at once,
    even while the main thread compiles. A second one has its usual effect. The previous signal handlers are restored on
    exit. Only the main thread can install signal handlers; in another thread no signal is recorded.

    With several processes, a SIGTERM to any of them stops all of them after the same step. JAX's preemption service
    then decides, and SIGINT keeps its usual effect. Without `several_processes` both signals keep theirs there.

        with stop_on_signal() as stop_signal:
            for step in range(1, steps + 1):
                ...
                if received := stop_signal(step):
                    break
    """
    if jax.process_count() > 1:
        yield functools.lru_cache(maxsize=1)(_preempted) if several_processes else _never
        return
    recorder = _SignalRecorder()
    with contextlib.ExitStack() as stack:
        stack.callback(recorder.restore)
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(_announced_signals())
            recorder.install()
        yield lambda step: recorder.received


def _preempted(step: int) -> signal.Signals | None:
    """SIGTERM if JAX chose this step as the one after which all processes stop; asked once per step."""
    return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else None


def _never(step: int) -> None:
    """The stop signal of a run that no signal stops."""


@contextlib.contextmanager
def _announced_signals() -> Iterator[None]:
    """Says on stderr that a signal arrived. A thread does so, because handlers wait until compiled code returns."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    previous_fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_announce, args=(reader, previous_fd), daemon=True)
    try:
        thread.start()
        yield
    finally:
        signal.set_wakeup_fd(previous_fd)
        writer.close()
        thread.join()
        reader.close()


def _announce(reader: socket.socket, previous_fd: int) -> None:
    """Reads the numbers of signals until the other end is closed; the first one that stops the run is announced."""
    announced = False
    while numbers := reader.recv(1):
        if previous_fd >= 0:
            with contextlib.suppress(OSError):
                os.write(previous_fd, numbers)
        if numbers[0] in SIGNALS and not announced:
            announced = True
            name = signal.Signals(numbers[0]).name
            print(f"{name}: stopping after the current step; a second one stops at once", file=sys.stderr, flush=True)


class _SignalRecorder:
    """A handler of SIGINT and SIGTERM that records the first signal and then restores the previous handlers."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], object] | int] = {}

    def install(self) -> None:
        for kind in SIGNALS:
            previous = signal.getsignal(kind)
            if previous is not None:  # a handler that was not installed from Python cannot be restored
                self._previous[kind] = previous
                signal.signal(kind, self._record)

    def restore(self) -> None:
        while self._previous:
            kind, handler = self._previous.popitem()
            signal.signal(kind, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self.restore()
