"""The training state: how it starts, and how it is saved and restored."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax._train_state import TrainState, copy_tree, from_checkpoint, strip_weak_types, to_checkpoint

PARAMS = {"dense1": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}
OPTIMIZER = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.adam(0.1))


KEY = jax.random.key(0)


def test_the_first_state_counts_from_zero():
    state = TrainState.create(PARAMS, optax.sgd(0.1), KEY)
    chex.assert_trees_all_equal(state.params, PARAMS)
    assert (state.step.dtype, int(state.step), state.data_state) == (jnp.int32, 0, None)
    assert state.key is KEY


def test_a_copy_shares_no_memory():
    state = copy_tree(TrainState.create(PARAMS, OPTIMIZER, KEY))
    jax.tree.map(lambda leaf: leaf.delete(), state)
    np.testing.assert_array_equal(PARAMS["dense1"]["kernel"], 1)
    assert not KEY.is_deleted()


def test_no_array_of_a_state_has_a_weak_type():
    weak = {"a": jnp.asarray(1.0), "key": jax.random.key(0)}
    assert weak["a"].weak_type
    assert not strip_weak_types(weak)["a"].weak_type
    state = TrainState.create({"a": jnp.asarray(1.0)}, optax.adam(0.1), KEY)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state._replace(key=None)))


def test_a_checkpoint_has_dicts_and_lists_and_gives_the_state_back():
    for data_state in (jnp.arange(4), None):
        state = TrainState.create(PARAMS, OPTIMIZER, KEY)._replace(data_state=data_state)
        saved = to_checkpoint(state)
        nodes = jax.tree_util.tree_leaves_with_path(saved)
        kinds = {type(entry) for path, _ in nodes for entry in path}
        assert kinds == {jax.tree_util.DictKey, jax.tree_util.SequenceKey}
        restored = from_checkpoint(saved, like=state)
        assert isinstance(restored, TrainState)
        assert restored.key is KEY
        chex.assert_trees_all_equal(restored._replace(key=None), state._replace(key=None))
