"""Placement of arrays on one device and on a mesh; keys are arrays too."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from cnn_jax._sharding import Placement, is_prng_key, key_data, make_placement, put_on_sharding, to_host

DEVICE = jax.devices()[0]
MESH = Mesh(np.array([DEVICE]), ("batch",))
TREE = {"a": np.arange(4.0, dtype=np.float32), "b": [jnp.ones((2, 3))]}


@pytest.mark.parametrize("mesh", [None, MESH])
def test_placed_arrays_keep_their_values(mesh):
    placement = make_placement(mesh, 4)
    for place in (placement.replicate, placement.shard_process_local):
        placed = place(TREE)
        chex.assert_trees_all_equal(placed, TREE)
        assert all(leaf.devices() == {DEVICE} for leaf in jax.tree.leaves(placed))


@pytest.mark.parametrize("mesh", [None, MESH])
def test_constraints_keep_values(mesh):
    placement = make_placement(mesh, 4)
    constrained = jax.jit(lambda tree: (placement.constrain_replicated(tree), placement.constrain_sharded(tree)))(TREE)
    chex.assert_trees_all_equal(constrained, (TREE, TREE))


def test_batches_are_sharded_over_all_axes_of_a_mesh():
    placement = make_placement(Mesh(np.array([[DEVICE]]), ("rows", "columns")), 4)
    assert placement.sharded is not None
    assert tuple(placement.sharded.spec) == (("rows", "columns"),)


def test_without_a_mesh_nothing_is_constrained():
    assert Placement().give_back(TREE) is TREE
    assert make_placement(None, 3) == Placement()
    assert Placement().constrain_sharded(TREE) is TREE


def test_a_key_is_placed_as_a_key():
    key = jax.random.key(7)
    placement = make_placement(MESH, 1)
    assert placement.replicated is not None
    placed = put_on_sharding(key, placement.replicated)
    assert is_prng_key(placed)
    np.testing.assert_array_equal(jax.random.key_data(placed), jax.random.key_data(key))


def test_host_copies_survive_the_device_array():
    array = jnp.arange(3)
    copy = to_host(array)
    array.delete()
    np.testing.assert_array_equal(copy, [0, 1, 2])
    np.testing.assert_array_equal(to_host(jax.random.key(7)), key_data(jax.random.key(7)))


def test_bad_arguments_are_refused():
    two = Mesh(np.array([DEVICE, DEVICE]), ("batch",))
    with pytest.raises(ValueError, match=r"batch_size: expected a multiple of the number of devices \(2\), got 3"):
        make_placement(two, 3)
    devices: Any = [DEVICE]
    with pytest.raises(TypeError, match=r"mesh: expected a jax\.sharding\.Mesh, got list"):
        make_placement(devices, 4)
