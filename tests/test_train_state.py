"""The training state: how it starts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax._train_state import init_train_state, strip_weak_types

PARAMS = {"dense1": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}


def test_the_first_state_counts_from_zero_and_shares_no_memory():
    state = init_train_state(PARAMS, optax.sgd(0.1), data_state=jnp.arange(4))
    chex.assert_trees_all_equal(state.params, PARAMS)
    assert (state.step.dtype, int(state.step)) == (jnp.int32, 0)
    jax.tree.map(lambda leaf: leaf.delete(), state.params)
    np.testing.assert_array_equal(PARAMS["dense1"]["kernel"], 1)


def test_no_array_of_a_state_has_a_weak_type():
    weak = {"a": jnp.asarray(1.0), "key": jax.random.key(0)}
    assert weak["a"].weak_type
    assert not strip_weak_types(weak)["a"].weak_type
    state = init_train_state({"a": jnp.asarray(1.0)}, optax.adam(0.1))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
