"""Graceful stops: the first signal is recorded, a second one has its usual effect, handlers are restored."""

import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from cnn_jax._signals import stop_on_signal

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def received(monkeypatch):
    """Signals that reach the handlers of the surrounding program, here recorded."""
    received = []
    before = {kind: signal.signal(kind, lambda number, frame: received.append(number)) for kind in SIGNALS}
    yield received
    for kind, handler in before.items():
        signal.signal(kind, handler)


def handlers():
    return [signal.getsignal(kind) for kind in SIGNALS]


@pytest.mark.parametrize("kind", SIGNALS)
def test_the_first_signal_asks_to_stop_and_does_nothing_else(received, kind):
    with stop_on_signal() as stop_signal:
        assert stop_signal(1) is None
        signal.raise_signal(kind)
        assert stop_signal(2) is kind
        assert stop_signal(3) is kind
    assert received == []


def test_a_second_signal_has_its_usual_effect(received):
    with stop_on_signal() as stop_signal:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop_signal(1) is signal.SIGTERM
    assert received == [signal.SIGINT]


@pytest.mark.parametrize("signals", [[], [signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]])
def test_the_previous_handlers_are_restored(signals):
    before = handlers()
    with pytest.raises(KeyError), stop_on_signal():  # noqa: PT012
        assert handlers() != before
        for kind in signals:
            signal.raise_signal(kind)
        raise KeyError
    assert handlers() == before


def test_another_thread_changes_no_handler():
    before = handlers()
    seen = []

    def run():
        with stop_on_signal() as stop_signal:
            seen.append((handlers(), stop_signal(1)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(before, None)]


def test_a_signal_is_announced_while_the_main_thread_is_in_compiled_code(monkeypatch):
    happened = []
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=happened.append, flush=lambda: None))
    numbers = np.random.default_rng(0).random(30_000_000)
    with stop_on_signal() as stop_signal:
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
        np.sort(numbers)  # returns to Python, and to its handlers of signals, only at the end
        happened.append("sorted")
        while not stop_signal(1):
            time.sleep(0.01)
    assert happened == ["SIGINT: stopping after the current step; a second one stops at once", "\n", "sorted"]


def test_only_the_first_signal_is_announced_and_other_wake_ups_pass(capfd):
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    before = signal.set_wakeup_fd(write_end)
    try:
        with stop_on_signal():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        assert signal.set_wakeup_fd(before) == write_end
    finally:
        signal.set_wakeup_fd(before)
    assert os.read(read_end, 3) == bytes([signal.SIGTERM] * 2)
    assert capfd.readouterr().err.count("SIGTERM: stopping") == 1
    os.close(read_end)
    os.close(write_end)


def test_several_processes_stop_after_the_step_that_jax_chooses(monkeypatch):
    asked = []

    def reached(step):
        asked.append(step)
        return step == 3

    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("jax.experimental.multihost_utils.reached_preemption_sync_point", reached)
    before = handlers()
    with stop_on_signal() as stop_signal:
        assert handlers() == before
        assert [stop_signal(step) for step in (1, 2, 2, 3)] == [None, None, None, signal.SIGTERM]
    assert asked == [1, 2, 3]  # once a step, because every question is a step of the protocol
    with stop_on_signal(several_processes=False) as stop_signal:
        assert stop_signal(4) is None


def test_handlers_are_restored_if_a_signal_interrupts_their_installation(monkeypatch):
    before = handlers()
    install = signal.signal

    def interrupted(kind, handler):
        if kind == signal.SIGTERM and handler != before[1]:
            raise KeyboardInterrupt
        return install(kind, handler)

    with monkeypatch.context() as patched:
        patched.setattr(signal, "signal", interrupted)
        with pytest.raises(KeyboardInterrupt), stop_on_signal():
            pass
    assert handlers() == before
