"""The training state: how it starts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax._train_state import TrainState, copy_tree, strip_weak_types

PARAMS = {"dense1": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}


KEY = jax.random.key(0)


def test_the_first_state_counts_from_zero():
    state = TrainState.create(PARAMS, optax.sgd(0.1), KEY)
    chex.assert_trees_all_equal(state.params, PARAMS)
    assert (state.step.dtype, int(state.step), state.data_state) == (jnp.int32, 0, None)
    assert state.key is KEY


def test_a_copy_shares_no_memory():
    state = copy_tree(TrainState.create(PARAMS, optax.adam(0.1), KEY))
    jax.tree.map(lambda leaf: leaf.delete(), state)
    np.testing.assert_array_equal(PARAMS["dense1"]["kernel"], 1)
    assert not KEY.is_deleted()


def test_no_array_of_a_state_has_a_weak_type():
    weak = {"a": jnp.asarray(1.0), "key": jax.random.key(0)}
    assert weak["a"].weak_type
    assert not strip_weak_types(weak)["a"].weak_type
    state = TrainState.create({"a": jnp.asarray(1.0)}, optax.adam(0.1), KEY)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state._replace(key=None)))
