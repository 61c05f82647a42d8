"""The loop of a training run: dispatches compiled steps, validates, calls back, saves checkpoints, and stops."""

import signal
from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ._batches import BatchSource
from ._history import History, MetricsReader
from ._run_checkpoint import RunCheckpointer
from ._run_steps import RunSteps
from ._sharding import Placement
from ._signals import StopSignal
from ._train_state import TrainState, copy_tree
from .layers import Params
from .progress import Progress


@runtime_checkable
class Callback(Protocol):
    """Is called in the course of `fit`. To stop the run, it returns True."""

    def __call__(self, step: int, state: TrainState, metrics: dict[str, float], /) -> object: ...


@runtime_checkable
class Validate(Protocol):
    """Metrics of parameters on validation data."""

    def __call__(self, params: Params, /) -> Mapping[str, float]: ...


class TrainingInterrupted(KeyboardInterrupt):
    """A signal stopped `fit`: Ctrl-C, or SIGTERM. Nothing that was learned is lost.

        try:
            params, history = fit(net, data, optimizer=optimizer, steps=1000, key=key)
        except TrainingInterrupted as interrupt:
            state = interrupt.state

    `fit(state=state)` continues the run. In a notebook, `sys.last_value.state` is the state after the cell was
    interrupted.
    """

    def __init__(self, message: str, state: TrainState, history: History):
        super().__init__(message)
        self.state = state
        """The state after the last step. With BatchNorm, pass its parameters to `calibrate` before use."""
        self.history = history
        """The metrics so far, as `fit` returns them."""


class TrainLoop(NamedTuple):
    """The parts of a training run that stay the same from step to step."""

    run_steps: RunSteps
    source: BatchSource
    placement: Placement
    steps: int
    steps_per_call: int
    stop_signal: StopSignal
    checkpointer: RunCheckpointer | None = None
    save_every: int = 1
    validate: Validate | None = None
    validate_every: int = 1
    callback: Callback | None = None
    callback_every: int = 1


class TrainRun:
    """A run in progress.

    Args:
      loop: the parts that stay the same.
      state: the state at the start; its memory is overwritten.
      metrics: takes the metrics of all steps.
    """

    def __init__(self, loop: TrainLoop, state: TrainState, metrics: MetricsReader):
        self.metrics = metrics
        self._loop = loop
        self._state = state

    def run(self) -> None:
        """Runs the steps that are left, and does what is due after some of them.

        Raises:
          FloatingPointError: a loss or a parameter is not finite.
          TrainingInterrupted: a signal asked the run to stop; it is saved, if it has checkpoints.
          OSError: a checkpoint cannot be written.
        """
        is_over = False
        try:
            while self.metrics.step < self._loop.steps and not is_over:
                received = self._run_until(self._next_stop())
                self.metrics.read_all()
                is_over = self._do_what_is_due(received)
        except KeyboardInterrupt as interrupt:
            if isinstance(interrupt, TrainingInterrupted) or self._is_lost():
                raise
            message = f"stopped after step {int(self._state.step)}, the exception has its state"
            raise self._interrupted(message) from interrupt

    @property
    def state(self) -> TrainState:
        """The newest state, with the position of the data instead of the order within the epoch."""
        state = self._loop.placement.give_back(self._state._replace(data_state=None))
        return state._replace(data_state=self._loop.source.export_position())  # every process has its own

    def _next_stop(self) -> int:
        """The next step after which something is due."""
        loop = self._loop
        step = self.metrics.step
        periods = [
            loop.save_every if loop.checkpointer else loop.steps,
            loop.validate_every if loop.validate else loop.steps,
            loop.callback_every if loop.callback else loop.steps,
        ]
        return min(loop.steps, *((step // period + 1) * period for period in periods))

    def _run_until(self, stop_at: int) -> signal.Signals | None:
        """Dispatches steps up to step `stop_at`, or until a signal asks to stop. Returns that signal."""
        loop = self._loop
        stop_at_array = loop.placement.replicate(np.array(stop_at, np.int32))
        while self.metrics.step < stop_at:
            steps = min(loop.steps_per_call, stop_at - self.metrics.step)
            self._state, call_metrics = loop.run_steps(self._state, stop_at_array, loop.source.next_arrays())
            self.metrics.add(steps, call_metrics)
            if received := loop.stop_signal(self.metrics.step):
                return received
        return None

    def _do_what_is_due(self, received: signal.Signals | None) -> bool:
        """Validates, calls back and saves after the newest step. Returns whether the run is over."""
        loop = self._loop
        step = self.metrics.step
        is_last = step == loop.steps
        is_validated = loop.validate and not received and (is_last or step % loop.validate_every == 0)
        is_best = self._validate(loop.validate) if loop.validate and is_validated else False
        is_stopped = False
        if loop.callback and not received and (is_last or is_validated or step % loop.callback_every == 0):
            is_stopped = _is_true(loop.callback(step, copy_tree(self.state), self.metrics.latest()))
        received = received or loop.stop_signal(step)
        is_over = is_last or is_stopped or received is not None
        if is_over or is_best or step % loop.save_every == 0:
            self._check_params()
            self._save()
        self.raise_if_asked(received)
        return is_over

    def raise_if_asked(self, received: signal.Signals | None = None) -> None:
        """Raises TrainingInterrupted if a signal asked the run to stop."""
        received = received or self._loop.stop_signal(self.metrics.step)
        if not received:
            return
        where = "the exception has its state"
        if self._loop.checkpointer:
            self._loop.checkpointer.wait()
            where = f"saved in {self._loop.checkpointer.directory}"
        raise self._interrupted(f"stopped by {received.name} after step {self.metrics.step}, {where}")

    def _validate(self, validate: Validate) -> bool:
        """Adds the metrics on the validation data. Returns whether their loss is the lowest so far."""
        self._check_params()
        return self.metrics.add_validation(validate(self._state.params))

    def _save(self) -> None:
        if self._loop.checkpointer:
            history = self.metrics.history()
            position = self._loop.source.position
            state = self._state._replace(key=None)  # identifies the run and is compared as such
            self._loop.checkpointer.save(self.metrics.step, state, history, position)

    def _interrupted(self, message: str) -> TrainingInterrupted:
        return TrainingInterrupted(message, self.state, self.metrics.history())

    def _is_lost(self) -> bool:
        """Whether a call that was broken off has taken the memory of the newest state."""
        return any(leaf.is_deleted() for leaf in jax.tree.leaves(self._state))

    def _check_params(self) -> None:
        if not bool(_are_finite(self._state.params)):
            raise FloatingPointError(
                f"parameters are not finite after step {self.metrics.step}; try a lower learning rate"
            )


def resume(loop: TrainLoop, state: TrainState, bar: Progress, *, allow_nonfinite: bool = False) -> TrainRun:
    """The run after its newest checkpoint, or before its first step if there is none.

    Raises a ValueError for checkpoints of another run, of more steps than the run has, or older than the state, and an
    OSError if checkpoints are to be saved where they cannot be.
    """
    start = int(state.step)
    saved = loop.checkpointer.restore_latest(state._replace(key=None)) if loop.checkpointer else None
    if loop.checkpointer and (saved is None or saved.step < loop.steps):
        loop.checkpointer.check_writable(state._replace(key=None))
    if loop.checkpointer is None or saved is None:
        return TrainRun(loop, state, MetricsReader(bar, start, allow_nonfinite=allow_nonfinite))
    directory = loop.checkpointer.directory
    if saved.step > loop.steps:
        raise ValueError(f"steps: expected at least the {saved.step} steps saved in {directory}, got {loop.steps}")
    if saved.step < start:
        raise ValueError(f"state: expected at most the {saved.step} steps saved in {directory}, got {start}")
    if saved.position is not None:
        loop.source.seek(saved.position)
    metrics = MetricsReader(bar, saved.step, saved.history, allow_nonfinite=allow_nonfinite)
    return TrainRun(loop, saved.state._replace(key=state.key), metrics)


def skips_nonfinite(opt_state: optax.OptState) -> bool:
    """Whether an optimizer leaves out updates that are not finite, by `optax.apply_if_finite` or `skip_not_finite`.

    >>> skips_nonfinite(optax.apply_if_finite(optax.sgd(0.1), 5).init({})), skips_nonfinite(optax.sgd(0.1).init({}))
    (True, False)
    """

    def skips(node: object) -> bool:
        is_multi_steps = isinstance(node, optax.MultiStepsState)
        return isinstance(node, optax.ApplyIfFiniteState) or (is_multi_steps and bool(node.skip_state))

    return any(map(skips, jax.tree.leaves(opt_state, is_leaf=skips)))


def _is_true(value: object) -> bool:
    """Whether a value is True, of Python, NumPy or JAX. Other values, such as what a writer returns, are not."""
    is_scalar = isinstance(value, bool | np.bool_ | np.ndarray | jax.Array) and np.shape(value) == ()
    return is_scalar and np.asarray(value).dtype == bool and bool(value)


@jax.jit
def _are_finite(params: Params) -> jax.Array:
    return jnp.stack([jnp.array(True), *(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params))]).all()
