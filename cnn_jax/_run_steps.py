"""Several training steps as one compiled program that reads its batches from a source."""

import functools
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree

from ._batch_loaders import Loader
from ._metrics import Metrics
from ._programs import cached
from ._sharding import Placement
from ._train_state import TrainState
from ._train_step import MAX_PROGRAMS, TrainStep


@runtime_checkable
class RunSteps(Protocol):
    """Runs up to `steps_per_call` steps, none beyond step `stop_at`. The metrics have one row per step."""

    def __call__(self, state: TrainState, stop_at: Int[Array, ""], arrays: PyTree, /) -> tuple[TrainState, Metrics]: ...


@runtime_checkable
class SourceStep(Protocol):
    """One training step on a source's next batch, loaded from the given arrays."""

    def __call__(self, state: TrainState, arrays: PyTree, /) -> tuple[TrainState, Metrics]: ...


@cached(MAX_PROGRAMS)
def compile_steps(train_step: TrainStep, load: Loader, placement: Placement, steps_per_call: int) -> RunSteps:
    """Compiles several steps into one program. The same arguments give the same program.

    Args:
      train_step: one update on a batch.
      load: builds the batches within the program, from the arrays that each call is given.
      placement: where the batches are sharded and the state is replicated.
      steps_per_call: the largest number of steps of one call.

    Returns:
      `run_steps(state, stop_at, arrays) -> (state, metrics)`, which donates the memory of its state.
    """
    step = jax.jit(_load_and_step(train_step, load, placement))

    @functools.partial(jax.jit, donate_argnames="state")
    def run_steps(state: TrainState, stop_at: Array, arrays: PyTree) -> tuple[TrainState, Metrics]:
        if steps_per_call == 1:
            state, metrics = step(state, arrays)
            return state, jax.tree.map(lambda value: value[None], metrics)
        return _loop_steps(step, steps_per_call, state, stop_at, arrays)

    return run_steps


def _load_and_step(train_step: TrainStep, load: Loader, placement: Placement) -> SourceStep:
    def step(state: TrainState, arrays: PyTree) -> tuple[TrainState, Metrics]:
        images, labels, data_state = load(arrays, state.data_state, state.step)
        images, labels = placement.constrain_sharded((images, labels))
        new_state, metrics = train_step(state._replace(data_state=data_state), images, labels)
        return placement.constrain_replicated(new_state), metrics

    return step


def _loop_steps(
    step: SourceStep, steps_per_call: int, state: TrainState, stop_at: Array, arrays: PyTree
) -> tuple[TrainState, Metrics]:
    def body(i: Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, rows = carry
        state, metrics = step(state, arrays)
        return state, jax.tree.map(lambda row, value: row.at[i].set(value), rows, metrics)

    metrics = jax.eval_shape(step, state, arrays)[1]
    rows = jax.tree.map(lambda metric: jnp.zeros(steps_per_call, metric.dtype), metrics)
    return lax.fori_loop(0, jnp.minimum(steps_per_call, stop_at - state.step), body, (state, rows))
