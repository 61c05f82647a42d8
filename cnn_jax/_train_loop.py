"""The loop of a training run: dispatches compiled steps, reads their metrics, and saves checkpoints."""

import contextlib
import signal
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ._batches import BatchSource
from ._run_checkpoint import RunCheckpointer
from ._run_steps import RunSteps
from ._sharding import Placement
from ._signals import StopSignal, stop_on_signal
from ._train_state import TrainState
from ._train_step import Metrics
from .layers import Params
from .progress import Progress

# Metrics stay on the device and are read after this number of steps.
STEPS_PER_REPORT = 50
# Calls dispatched at once: enough to keep the device busy while Python runs, few enough to stop soon when asked to.
CALLS_IN_FLIGHT = 2


class TrainLoop(NamedTuple):
    """The parts of a training run that stay the same from step to step."""

    run_steps: RunSteps
    source: BatchSource
    placement: Placement
    key: Array
    steps: int
    steps_per_call: int
    checkpointer: RunCheckpointer | None
    save_every: int


class MetricsReader:
    """Collects the metrics of dispatched steps, and reads them late, so that the device need not wait for Python.

    Args:
      bar: shows the newest metrics that were read.
      step: steps done by an earlier part of the run.
      history: metrics of these steps.
    """

    def __init__(self, bar: Progress, step: int = 0, history: Mapping[str, np.ndarray] | None = None):
        self.step = step
        """Steps dispatched."""
        self._bar = bar
        self._steps_read = step
        self._rows = [history] if history else []
        self._pending: list[tuple[int, Metrics]] = []

    def add(self, steps: int, metrics: Metrics) -> None:
        """Takes the metrics of a call that runs `steps` steps."""
        self._pending.append((steps, metrics))
        # All but the newest metrics are read, so that the device has work meanwhile. The first are read at once, to
        # show that training has begun; those of slow steps are read when the user awaits them.
        if not self._rows or self.step - self._steps_read >= STEPS_PER_REPORT or self._bar.is_due():
            self._read(max(len(self._pending) - 1, 1))
        elif len(self._pending) > CALLS_IN_FLIGHT:
            jax.block_until_ready(self._pending[-CALLS_IN_FLIGHT][1])
        self.step += steps

    def read_all(self) -> None:
        """Waits for the metrics of all dispatched steps. Raises a FloatingPointError for a loss that is not finite."""
        self._read(len(self._pending))

    def history(self) -> dict[str, np.ndarray]:
        """The metrics of all steps that were read, one value per step."""
        joined = {name: np.concatenate([rows[name] for rows in self._rows]) for name in self._rows[0]}
        self._rows = [joined]  # so that the next call joins new rows only
        return joined

    def _read(self, calls: int) -> None:
        if not calls:
            return
        for steps, metrics in jax.device_get(self._pending[:calls]):
            rows = {name: values[:steps] for name, values in metrics.items()}
            self._rows.append(rows)
            _check_losses(rows["loss"], self._steps_read + 1)
            self._steps_read += steps
        del self._pending[:calls]
        note = "  ".join(f"{name} {values[-1]:.4f}" for name, values in self._rows[-1].items())
        self._bar.update(self._steps_read, note)


def resume(loop: TrainLoop, state: TrainState, bar: Progress) -> tuple[TrainState, MetricsReader]:
    """The state and metrics of the newest checkpoint, or those before the first step if there is none.

    Raises a ValueError for checkpoints of another run, or of more steps than the run has, and an OSError if checkpoints
    are to be saved where they cannot be.
    """
    saved = loop.checkpointer.restore_latest(state) if loop.checkpointer else None
    if loop.checkpointer and (saved is None or saved.step < loop.steps):
        loop.checkpointer.check_writable(state)
    if loop.checkpointer is None or saved is None:
        return state, MetricsReader(bar)
    if saved.step > loop.steps:
        directory = loop.checkpointer.directory
        raise ValueError(f"steps: expected at least the {saved.step} steps saved in {directory}, got {loop.steps}")
    if saved.position is not None:
        loop.source.seek(saved.position)
    return saved.state, MetricsReader(bar, saved.step, saved.history)


def run_loop(loop: TrainLoop, state: TrainState, metrics: MetricsReader) -> TrainState:
    """Runs the steps that are left, and saves a checkpoint every `save_every` steps and at the end.

    Raises:
      FloatingPointError: a loss or a parameter is not finite.
      KeyboardInterrupt: a signal asked the run to stop; it is saved.
      OSError: a checkpoint cannot be written.
    """
    with stop_on_signal() if loop.checkpointer else contextlib.nullcontext(_never) as stop_signal:
        while metrics.step < loop.steps:
            state, received = _run_until(_next_save(loop, metrics.step), loop, state, metrics, stop_signal)
            metrics.read_all()
            _check_parameters(state.params, metrics.step)
            if loop.checkpointer:
                loop.checkpointer.save(metrics.step, state, metrics.history(), loop.source.position)
                _stop_if_asked(received or stop_signal(metrics.step), loop.checkpointer, metrics.step)
    return state


def _next_save(loop: TrainLoop, step: int) -> int:
    """The step after which the next checkpoint is saved; without checkpoints, the last step."""
    if loop.checkpointer is None:
        return loop.steps
    return min((step // loop.save_every + 1) * loop.save_every, loop.steps)


def _run_until(
    stop_at: int, loop: TrainLoop, state: TrainState, metrics: MetricsReader, stop_signal: StopSignal
) -> tuple[TrainState, signal.Signals | None]:
    """Dispatches steps up to step `stop_at`, or until a signal asks to stop. Returns the state and that signal."""
    stop_at_array = loop.placement.replicate(np.array(stop_at, np.int32))
    while metrics.step < stop_at:
        steps = min(loop.steps_per_call, stop_at - metrics.step)
        state, call_metrics = loop.run_steps(state, stop_at_array, loop.source.next_arrays(), loop.key)
        metrics.add(steps, call_metrics)
        received = stop_signal(metrics.step)
        if received:
            return state, received
    return state, None


def _stop_if_asked(received: signal.Signals | None, checkpointer: RunCheckpointer, step: int) -> None:
    if received:
        checkpointer.wait()
        raise KeyboardInterrupt(f"stopped by {received.name} after step {step}, saved in {checkpointer.directory}")


def _never(step: int) -> None:
    """The stop signal of a run that cannot be saved."""


def _check_losses(losses: np.ndarray, first_step: int) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        step = first_step + bad[0]
        raise FloatingPointError(
            f"loss is {losses[bad[0]]} at step {step}; try a lower learning rate, or look for NaN in the data"
        )


def _check_parameters(params: Params, step: int) -> None:
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        raise FloatingPointError(f"parameters are not finite after step {step}; try a lower learning rate")
