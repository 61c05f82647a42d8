"""The loop: when metrics are read, when checkpoints are saved, and how a run resumes and stops."""

import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import _train_loop
from cnn_jax._batches import BatchSource
from cnn_jax._run_checkpoint import RunCheckpointer, SavedRun
from cnn_jax._sharding import Placement
from cnn_jax._train_loop import MetricsReader, TrainLoop, resume, run_loop
from cnn_jax._train_state import TrainState
from cnn_jax.progress import Progress


class Counter(BatchSource):
    """A source with a position, the number of calls; its batches are not needed here."""

    def __init__(self):
        self.calls = 0
        self.position = 0

    @property
    def example_arrays(self):
        return ()

    def next_arrays(self):
        self.seek(self.calls + 1)
        return ()

    def load(self, arrays, data_state, step):
        raise AssertionError("the loop does not load batches")

    def seek(self, position):
        self.calls = position
        self.position = position


class Checkpointer(RunCheckpointer):
    """Keeps what it is given, and has `saved` to restore."""

    def __init__(self, saved=None):
        self.directory = Path("DIR")
        self.saved = saved
        self.saves = []
        self.waited = False
        self.checked = 0

    def restore_latest(self, like):
        return self.saved

    def save(self, step, state, history, position=None):
        self.saves.append((step, int(state.step), len(history["loss"]), position))

    def wait(self):
        self.waited = True

    def check_writable(self, state):
        self.checked += 1


class Bar(Progress):
    """Records its updates."""

    def __init__(self):
        super().__init__("training", 1, show=False)
        self.updates = []

    def update(self, done, note=""):
        self.updates.append(done)


def state_at(step):
    return TrainState(params={"a": jnp.zeros(1)}, opt_state=(), data_state=None, step=jnp.int32(step))


def loop_of(steps, *, steps_per_call=1, checkpointer=None, save_every=100, losses=None):
    """A loop whose step counts, and whose loss is the step or that of `losses`."""

    def run_steps(state, stop_at, arrays, key):
        step = int(state.step)
        indices = range(step, step + steps_per_call)
        rows = [i + 1 if losses is None else losses[min(i, len(losses) - 1)] for i in indices]
        done = min(steps_per_call, int(stop_at) - step)
        return state._replace(step=jnp.int32(step + done)), {"loss": jnp.array(rows, jnp.float32)}

    return TrainLoop(
        run_steps=run_steps,
        source=Counter(),
        placement=Placement(),
        key=jax.random.key(0),
        steps=steps,
        steps_per_call=steps_per_call,
        checkpointer=checkpointer,
        save_every=save_every,
    )


def run(loop):
    bar = Bar()
    state, metrics = resume(loop, state_at(0), bar)
    state = run_loop(loop, state, metrics)
    return state, metrics.history(), bar.updates


@pytest.mark.parametrize("steps_per_call", [1, 4, 50])
def test_every_step_has_its_metrics(steps_per_call):
    state, history, _ = run(loop_of(14, steps_per_call=steps_per_call))
    assert int(state.step) == 14
    np.testing.assert_array_equal(history["loss"], range(1, 15))


def test_metrics_are_read_at_the_start_then_now_and_then_and_at_the_end():
    _, _, updates = run(loop_of(120))
    assert updates == [1, 51, 101, 120]


def test_no_more_than_two_calls_are_in_flight(monkeypatch):
    waited = []
    monkeypatch.setattr(_train_loop.jax, "block_until_ready", lambda metrics: waited.append(int(metrics["loss"][0])))
    metrics = MetricsReader(Bar())
    for step in range(1, 7):
        metrics.add(1, {"loss": jnp.array([float(step)])})
    assert waited == [3, 4, 5]  # the first was read at once


def test_checkpoints_are_saved_at_multiples_and_at_the_end():
    checkpointer = Checkpointer()
    run(loop_of(11, steps_per_call=3, checkpointer=checkpointer, save_every=4))
    assert [(step, saved_step, rows) for step, saved_step, rows, _ in checkpointer.saves] == [
        (4, 4, 4),
        (8, 8, 8),
        (11, 11, 11),
    ]


def test_the_position_after_the_last_batch_is_saved():
    checkpointer = Checkpointer()
    run(loop_of(5, checkpointer=checkpointer, save_every=2))
    assert [(step, position) for step, _, _, position in checkpointer.saves] == [(2, 2), (4, 4), (5, 5)]


def test_a_run_resumes_with_its_state_history_and_position():
    past = np.array([10.0, 20.0, 30.0], np.float32)
    saved = SavedRun(step=3, state=state_at(3), history={"loss": past}, position=7)
    checkpointer = Checkpointer(saved)
    _, history, _ = run(loop_of(6, checkpointer=checkpointer, save_every=4))
    np.testing.assert_array_equal(history["loss"], [10, 20, 30, 4, 5, 6])
    assert checkpointer.saves == [(4, 4, 4, 8), (6, 6, 6, 10)]


def test_a_finished_run_runs_no_step():
    saved = SavedRun(3, state_at(3), {"loss": np.ones(3, np.float32)}, position=None)
    checkpointer = Checkpointer(saved)
    state, history, updates = run(loop_of(3, checkpointer=checkpointer))
    assert (int(state.step), len(history["loss"]), checkpointer.saves, updates) == (3, 3, [], [])


def test_a_longer_run_than_asked_for_is_refused():
    saved = SavedRun(3, state_at(3), {"loss": np.ones(3, np.float32)}, position=None)
    with pytest.raises(ValueError, match="steps: expected at least the 3 steps saved in DIR, got 2"):
        run(loop_of(2, checkpointer=Checkpointer(saved)))


def test_a_signal_stops_after_the_step_and_saves():
    checkpointer = Checkpointer()
    loop = loop_of(10, checkpointer=checkpointer)

    def run_steps(state, stop_at, arrays, key):
        if int(state.step) == 2:
            signal.raise_signal(signal.SIGTERM)
        return loop.run_steps(state, stop_at, arrays, key)

    with pytest.raises(KeyboardInterrupt, match="stopped by SIGTERM after step 3, saved in DIR"):
        run(loop._replace(run_steps=run_steps))
    assert [step for step, *_ in checkpointer.saves] == [3]
    assert checkpointer.waited


def test_without_a_checkpointer_a_signal_has_its_usual_effect():
    loop = loop_of(10)
    handler = signal.getsignal(signal.SIGINT)  # a shell may have made background processes ignore it

    def run_steps(state, stop_at, arrays, key):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.signal(signal.SIGINT, handler)
        return loop.run_steps(state, stop_at, arrays, key)

    with pytest.raises(KeyboardInterrupt) as error:
        run(loop._replace(run_steps=run_steps))
    assert str(error.value) == ""


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_with_its_step(fault):
    losses = [1.0] * 59 + [fault, 1.0, fault, 1.0]
    with pytest.raises(FloatingPointError, match=rf"loss is {fault} at step 60;"):
        run(loop_of(70, losses=losses))


def test_parameters_that_are_not_finite_are_neither_returned_nor_saved():
    checkpointer = Checkpointer()
    for loop in (loop_of(2), loop_of(2, checkpointer=checkpointer)):
        state = state_at(0)._replace(params={"a": jnp.array([np.nan])})
        with pytest.raises(FloatingPointError, match="parameters are not finite after step 2"):
            run_loop(loop, state, MetricsReader(Bar()))
    assert checkpointer.saves == []
