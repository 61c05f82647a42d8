"""The loop: when metrics are read, when checkpoints are saved, and how a run resumes and stops."""

import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import _history
from cnn_jax._batches import BatchSource
from cnn_jax._history import MetricsReader
from cnn_jax._run_checkpoint import RunCheckpointer, SavedRun
from cnn_jax._sharding import Placement
from cnn_jax._signals import stop_on_signal
from cnn_jax._train_loop import TrainingInterrupted, TrainLoop, resume, skips_nonfinite
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
    return TrainState(params={"a": jnp.zeros(1)}, opt_state=(), step=jnp.int32(step), key=jax.random.key(0))


def loop_of(steps, *, steps_per_call=1, losses=None, **options):
    """A loop whose step counts, and whose loss is the step or that of `losses`."""

    def run_steps(state, stop_at, arrays):
        step = int(state.step)
        indices = range(step, step + steps_per_call)
        rows = [i + 1 if losses is None else losses[min(i, len(losses) - 1)] for i in indices]
        done = min(steps_per_call, int(stop_at) - step)
        return state._replace(step=jnp.int32(step + done)), {"loss": jnp.array(rows, jnp.float32)}

    loop = TrainLoop(
        run_steps=run_steps,
        source=Counter(),
        placement=Placement(),
        steps=steps,
        steps_per_call=steps_per_call,
        stop_signal=lambda step: None,
        save_every=100,
    )
    return loop._replace(**options)


def run(loop, start=0):
    bar = Bar()
    training = resume(loop, state_at(start), bar)
    training.run()
    return training.state, training.metrics.history(), bar.updates


def run_with_signals(loop):
    with stop_on_signal() as stop_signal:
        run(loop._replace(stop_signal=stop_signal))


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
    monkeypatch.setattr(_history.jax, "block_until_ready", lambda metrics: waited.append(int(metrics["loss"][0])))
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

    def run_steps(state, stop_at, arrays):
        if int(state.step) == 2:
            signal.raise_signal(signal.SIGTERM)
        return loop.run_steps(state, stop_at, arrays)

    with pytest.raises(KeyboardInterrupt, match="stopped by SIGTERM after step 3, saved in DIR"):
        run_with_signals(loop._replace(run_steps=run_steps))
    assert [step for step, *_ in checkpointer.saves] == [3]
    assert checkpointer.waited


def test_without_a_checkpointer_the_exception_has_what_was_learned():
    loop = loop_of(10)

    def run_steps(state, stop_at, arrays):
        if int(state.step) == 2:
            signal.raise_signal(signal.SIGINT)
        return loop.run_steps(state, stop_at, arrays)

    with pytest.raises(TrainingInterrupted, match="stopped by SIGINT after step 3, the exception has") as caught:
        run_with_signals(loop._replace(run_steps=run_steps))
    assert int(caught.value.state.step) == 3
    np.testing.assert_array_equal(caught.value.history["loss"], [1, 2, 3])


def test_a_second_ctrl_c_stops_at_once_with_what_was_learned():
    loop = loop_of(10)

    def run_steps(state, stop_at, arrays):
        if int(state.step) == 2:
            raise KeyboardInterrupt
        return loop.run_steps(state, stop_at, arrays)

    with pytest.raises(TrainingInterrupted, match="stopped after step 2, the exception has its state") as caught:
        run(loop._replace(run_steps=run_steps))
    assert int(caught.value.state.step) == 2


def test_a_state_whose_memory_was_taken_is_not_given_back():
    def run_steps(state, stop_at, arrays):
        state.params["a"].delete()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        run(loop_of(10)._replace(run_steps=run_steps))
    assert not isinstance(caught.value, TrainingInterrupted)


def test_a_run_continues_at_the_step_of_its_state():
    state, history, _ = run(loop_of(7), start=4)
    assert int(state.step) == 7
    np.testing.assert_array_equal(history["loss"], [5, 6, 7])


def test_a_checkpoint_of_fewer_steps_than_the_state_is_refused():
    saved = SavedRun(3, state_at(3), {"loss": np.ones(3, np.float32)}, position=None)
    with pytest.raises(ValueError, match="state: expected at most the 3 steps saved in DIR, got 4"):
        run(loop_of(7, checkpointer=Checkpointer(saved)), start=4)


def test_validations_are_at_multiples_and_at_the_end():
    seen = []

    def validate(params):
        seen.append(params)
        return {"loss": 1 / len(seen), "accuracy": 0.5}

    _, history, updates = run(loop_of(10, validate=validate, validate_every=4))
    np.testing.assert_array_equal(history["validation_step"], [4, 8, 10])
    np.testing.assert_allclose(history["validation_loss"], [1, 1 / 2, 1 / 3])
    np.testing.assert_array_equal(history["validation_accuracy"], [0.5] * 3)
    np.testing.assert_array_equal(history["loss"], range(1, 11))
    assert updates == [1, 4, 4, 8, 8, 10, 10]


def test_the_callback_is_called_at_multiples_after_validations_and_at_the_end():
    calls = []

    def callback(step, state, metrics):
        assert int(state.step) == step
        calls.append((step, metrics))

    validation = {"validate": lambda params: {"loss": 0.5}, "validate_every": 3}
    run(loop_of(8, callback=callback, callback_every=4, **validation))
    assert calls == [
        (3, {"loss": 3.0, "validation_loss": 0.5}),
        (4, {"loss": 4.0}),
        (6, {"loss": 6.0, "validation_loss": 0.5}),
        (8, {"loss": 8.0, "validation_loss": 0.5}),
    ]


def test_the_callback_stops_the_run_and_the_state_is_saved():
    checkpointer = Checkpointer()
    options = {"callback": lambda step, state, metrics: step == 6, "callback_every": 3}
    state, history, _ = run(loop_of(100, checkpointer=checkpointer, **options))
    assert (int(state.step), len(history["loss"])) == (6, 6)
    assert [step for step, *_ in checkpointer.saves] == [6]


@pytest.mark.parametrize("value", [1, "True", np.ones(2, bool), None, np.False_, jnp.array(1)])
def test_values_other_than_true_do_not_stop_the_run(value):
    state, _, _ = run(loop_of(4, callback=lambda step, state, metrics: value, callback_every=1))
    assert state.step == 4


@pytest.mark.parametrize("value", [True, np.True_, np.array(True), jnp.array(True)])
def test_true_of_any_library_stops_the_run(value):
    state, _, _ = run(loop_of(4, callback=lambda step, state, metrics: value, callback_every=1))
    assert state.step == 1


def test_the_state_of_a_callback_is_the_callbacks():
    kept = []

    def callback(step, state, metrics):
        kept.append(state)

    loop = loop_of(3, callback=callback, callback_every=1)

    def run_steps(state, stop_at, arrays):
        new_state, metrics = loop.run_steps(state, stop_at, arrays)
        state.step.delete()  # as a program does that takes the memory of its state
        return new_state, metrics

    run(loop._replace(run_steps=run_steps))
    assert [int(state.step) for state in kept] == [1, 2, 3]


def test_every_validation_with_a_new_lowest_loss_is_saved():
    losses = iter([3.0, 4.0, np.nan, 2.0, 2.0])
    checkpointer = Checkpointer()
    validation = {"validate": lambda params: {"loss": next(losses)}, "validate_every": 2}
    run(loop_of(10, checkpointer=checkpointer, **validation))
    assert [step for step, *_ in checkpointer.saves] == [2, 8, 10]


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (optax.chain(optax.clip(1.0), optax.apply_if_finite(optax.sgd(0.1), 3)), True),
        (
            optax.MultiSteps(optax.sgd(0.1), 2, should_skip_update_fn=optax.skip_not_finite).gradient_transformation(),
            True,
        ),
        (optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(), False),
        (optax.adam(0.1), False),
    ],
)
def test_optimizers_that_leave_out_updates_are_known(optimizer, expected):
    assert skips_nonfinite(optimizer.init({"a": jnp.zeros(1)})) is expected


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_with_its_step(fault):
    losses = [1.0] * 59 + [fault, 1.0, fault, 1.0]
    with pytest.raises(FloatingPointError, match=rf"loss is {fault} at step 60;"):
        run(loop_of(70, losses=losses))


def test_a_loss_that_is_not_finite_may_be_allowed():
    training = resume(loop_of(3, losses=[1.0, np.nan, 2.0]), state_at(0), Bar(), allow_nonfinite=True)
    training.run()
    np.testing.assert_array_equal(training.metrics.history()["loss"], [1, np.nan, 2])


def test_parameters_that_are_not_finite_are_neither_returned_nor_saved():
    checkpointer = Checkpointer()
    for loop in (loop_of(2), loop_of(2, checkpointer=checkpointer)):
        state = state_at(0)._replace(params={"a": jnp.array([np.nan])})
        with pytest.raises(FloatingPointError, match="parameters are not finite after step 2"):
            resume(loop, state, Bar()).run()
    assert checkpointer.saves == []
