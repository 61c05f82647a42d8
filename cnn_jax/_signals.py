"""Graceful stops: the first SIGINT or SIGTERM asks a loop to end after its current step."""

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol, runtime_checkable

import jax
from jax.experimental import multihost_utils


@runtime_checkable
class StopSignal(Protocol):
    """Returns the signal that asks the run to stop after `step`, or None."""

    def __call__(self, step: int, /) -> signal.Signals | None: ...


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopSignal]:
    """Yields a function that tells after a step whether the run was asked to stop.

    The first SIGINT or SIGTERM is recorded instead of having its usual effect. A second one has its usual effect.
    The previous signal handlers are restored on exit. Only the main thread can install signal handlers; in another
    thread no signal is recorded.

    With several processes, a SIGTERM to any of them stops all of them after the same step. JAX's preemption service
    then decides, and SIGINT keeps its usual effect.

        with stop_on_signal() as stop_signal:
            for step in range(1, steps + 1):
                ...
                if received := stop_signal(step):
                    break
    """
    if jax.process_count() > 1:
        yield functools.lru_cache(maxsize=1)(_preempted)
        return
    recorder = _SignalRecorder()
    try:
        if threading.current_thread() is threading.main_thread():
            recorder.install()
        yield lambda step: recorder.received
    finally:
        recorder.restore()


def _preempted(step: int) -> signal.Signals | None:
    """SIGTERM if JAX chose this step as the one after which all processes stop; asked once per step."""
    return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else None


class _SignalRecorder:
    """A handler of SIGINT and SIGTERM that records the first signal and then restores the previous handlers."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], object] | int] = {}

    def install(self) -> None:
        for kind in (signal.SIGINT, signal.SIGTERM):
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
