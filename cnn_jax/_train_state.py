"""The state that a training step updates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from .layers import Params

DataState = Int[Array, " N"] | None
"""What a batch source keeps on the device: the order of the images in the current epoch, or nothing."""


class TrainState(NamedTuple):
    """The state of a training run after `step` updates."""

    params: Params
    opt_state: optax.OptState
    data_state: DataState
    step: Int[Array, ""]


def init_train_state(
    params: Params, optimizer: optax.GradientTransformation, data_state: DataState = None
) -> TrainState:
    """The state before the first step. Its arrays are copies, because each step donates the state it is given.

    >>> state = init_train_state({"bias": jnp.zeros(2)}, optax.sgd(0.1))
    >>> state.params, state.step
    ({'bias': Array([0., 0.], dtype=float32)}, Array(0, dtype=int32))
    """
    state = TrainState(params=params, opt_state=optimizer.init(params), data_state=data_state, step=jnp.int32(0))
    return strip_weak_types(jax.tree.map(jnp.copy, state))


def strip_weak_types(tree: PyTree) -> PyTree:
    """The same arrays without weak types, so that a loop's carry and the next call have equal types.

    >>> weak = jnp.asarray(1.0)
    >>> weak.weak_type, strip_weak_types(weak).weak_type
    (True, False)
    """
    return jax.tree.map(_strip_weak_type, tree)


def _strip_weak_type(array: Array) -> Array:
    return array if jnp.issubdtype(array.dtype, jax.dtypes.extended) else array.astype(array.dtype)
