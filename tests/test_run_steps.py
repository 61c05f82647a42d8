"""Several steps as one program: the same as one by one, and never beyond the last one."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax._batches import ArrayBatches
from cnn_jax._run_steps import compile_steps
from cnn_jax._sharding import Placement
from cnn_jax._train_state import TrainState
from cnn_jax._train_step import train_step
from cnn_jax.layers import Chain, Dense, Dropout, Flatten

KEY = jax.random.key(0)
NET = Chain(Flatten(), Dropout(0.5), Dense(2))
IMAGES = np.random.default_rng(0).normal(size=(16, 2, 2)).astype(np.float32)
LABELS = (IMAGES.sum((1, 2)) > 0).astype(np.int32)


def run(steps_per_call, stop_at):
    """The state and the metrics after step `stop_at`, and the number of calls."""
    source = ArrayBatches((IMAGES, LABELS), 4, KEY, None, Placement())
    optimizer = optax.adam(0.1)
    run_steps = compile_steps(train_step(NET, optimizer), source.load, Placement(), steps_per_call)
    state = TrainState.create(NET.init(KEY, (2, 2, 1)), optimizer, jax.random.key(0))
    state = state._replace(data_state=source.initial_data_state)
    rows = []
    calls = 0
    while int(state.step) < stop_at:
        count = min(steps_per_call, stop_at - int(state.step))
        state, metrics = run_steps(state, jnp.int32(stop_at), source.next_arrays())
        rows.append(metrics["loss"][:count])
        calls += 1
    return state._replace(key=None), np.concatenate(rows), calls


@pytest.fixture(scope="module")
def one_by_one():
    return run(1, 7)


def test_one_call_runs_one_step_by_default(one_by_one):
    state, losses, calls = one_by_one
    assert (int(state.step), losses.shape, calls) == (7, (7,), 7)


@pytest.mark.parametrize(("steps_per_call", "calls"), [(3, 3), (10, 1)])
def test_several_steps_in_a_call_change_nothing(one_by_one, steps_per_call, calls):
    state, losses, calls_made = run(steps_per_call, 7)
    assert calls_made == calls
    np.testing.assert_array_equal(losses, one_by_one[1])
    chex.assert_trees_all_equal(state, one_by_one[0])


def test_equal_parts_give_the_same_program():
    optimizer = optax.sgd(0.1)
    programs = {
        compile_steps(train_step(NET, optimizer), ArrayBatches(data, 4, KEY, None, Placement()).load, Placement(), 1)
        for data in ((IMAGES, LABELS), (IMAGES + 1, LABELS))
    }
    assert len(programs) == 1
