"""Data-parallel training: every device of a mesh takes a share of each batch, and all of them hold the parameters."""

import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

Tree = Any


class Placement(NamedTuple):
    """Where a training's arrays are, as functions of trees of them."""

    replicate: Callable[[Tree], Tree]
    """Puts arrays, which every process has alike, on every device."""
    constrain_replicated: Callable[[Tree], Tree]
    """Within a program: keeps arrays on every device."""
    shard_batch: Callable[[Tree], Tree]
    """Within a program: divides arrays among the devices, along their first axis."""
    from_process_local: Callable[[Tree], Tree]
    """Makes of the part that each process has one array, divided among the devices."""


def placement(mesh: Mesh | None, batch_size: int) -> Placement:
    """The placement on a mesh of devices, of which every axis divides the batch; without a mesh, on the default device.

    Raises:
      ValueError: a batch_size that the devices cannot share evenly.
      TypeError: a mesh that is none.
    """
    if mesh is None:
        return Placement(jax.device_put, _same, _same, jax.device_put)
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh: expected a jax.sharding.Mesh, got {type(mesh).__name__}")
    if batch_size % mesh.size:
        raise ValueError(f"batch_size: expected a multiple of the {mesh.size} devices of mesh, got {batch_size}")
    # The compiler divides the work: the program is that of one device, and BatchNorm's means are the whole batch's.
    automatic = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
    everywhere = NamedSharding(automatic, PartitionSpec())
    shared = NamedSharding(automatic, PartitionSpec(mesh.axis_names))
    join = functools.partial(jax.make_array_from_process_local_data, shared)
    return Placement(
        lambda tree: jax.tree.map(lambda array: put_on_sharding(array, everywhere), tree),
        lambda tree: lax.with_sharding_constraint(tree, everywhere),
        lambda tree: lax.with_sharding_constraint(tree, shared),
        lambda tree: jax.tree.map(lambda array: join(np.asarray(array)), tree),
    )


def put_on_sharding(array: Any, sharding: Sharding) -> jax.Array:
    """An array, or a key, on the devices of a sharding, of which other processes may have some."""
    if not is_prng_key(array):
        return jax.device_put(array, sharding)
    numbers = jax.device_put(jax.random.key_data(array), sharding)
    return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(array))


def to_host(array: Any) -> np.ndarray:
    """A copy that no later step can write into; of a key its numbers, of what every device has this process's own."""
    return np.array(key_data(array).addressable_data(0))


def checksum(array: Any) -> int:
    """The CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def is_prng_key(array: Any) -> bool:
    """Whether an array holds keys."""
    return jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key)


def key_data(array: Any) -> Any:
    """A key's numbers, and other arrays themselves."""
    return jax.random.key_data(array) if is_prng_key(array) else array


def _same(tree: Tree) -> Tree:
    return tree
