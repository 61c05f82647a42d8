"""The state that a training step updates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from ._fit_arguments import check_optimizer
from ._object_checks import check_key
from .layers import Params

DataState = Int[Array, " N"] | None
"""The position in a stream; within `fit`, the order of stored images in the current epoch."""


class TrainState(NamedTuple):
    """The state of a training run after `step` updates: a pytree.

    >>> state = TrainState.create({"bias": jnp.zeros(2)}, optax.sgd(0.1), jax.random.key(0))
    >>> state.params, state.step
    ({'bias': Array([0., 0.], dtype=float32)}, Array(0, dtype=int32))
    """

    params: Params
    opt_state: optax.OptState
    step: Int[Array, ""]
    """The number of updates."""
    key: Array
    """The key of the run, which no step changes. Step s draws its randomness from the key and s."""
    data_state: DataState = None
    """The position in a stream, by which `fit` continues it. Other data need no position but the step."""

    @classmethod
    def create(cls, params: Params, optimizer: optax.GradientTransformation, key: Array) -> "TrainState":
        """The state before the first step.

        Args:
          params: the initial parameters.
          optimizer: the optax optimizer that will update them.
          key: a `jax.random.key`.

        Raises:
          TypeError: the optimizer is not an optax optimizer, or the key not one random key.
        """
        check_optimizer(optimizer)
        check_key(key)
        state = cls(params=params, opt_state=optimizer.init(params), step=jnp.int32(0), key=key)
        return strip_weak_types(state)


class RunKeys(NamedTuple):
    """The keys that a run's key is split into."""

    init: Array
    """Draws the initial parameters."""
    data: Array
    """Orders, draws and augments the examples."""
    step: Array
    """Draws the randomness of the network in training."""


def split_run_key(key: Array) -> RunKeys:
    """The keys of the parts of a run.

    >>> len(set(map(int, jax.vmap(jax.random.bits)(jax.numpy.stack(split_run_key(jax.random.key(0)))))))
    3
    """
    init_key, data_key, step_key = jax.random.split(key, 3)
    return RunKeys(init=init_key, data=data_key, step=step_key)


def copy_tree(tree: PyTree) -> PyTree:
    """The same arrays in other memory, which a program may overwrite (donation)."""
    return jax.tree.map(jnp.copy, tree)


def strip_weak_types(tree: PyTree) -> PyTree:
    """The same arrays without weak types, so that a loop's carry and the next call have equal types.

    >>> weak = jnp.asarray(1.0)
    >>> weak.weak_type, strip_weak_types(weak).weak_type
    (True, False)
    """
    return jax.tree.map(_strip_weak_type, tree)


def _strip_weak_type(value: Array) -> Array:
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jax.dtypes.extended) else array.astype(array.dtype)
