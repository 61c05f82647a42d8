"""Data parallelism: the training state is replicated on all devices of a mesh, and every batch is sharded over them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, PyTree, Shaped


@dataclasses.dataclass(frozen=True)
class Placement:
    """The devices of a training run. Without shardings everything is on the default device."""

    replicated: NamedSharding | None = None
    """A copy on every device."""
    sharded: NamedSharding | None = None
    """The first axis is divided among all devices."""
    returned: NamedSharding | None = None
    """A copy on every device of the mesh that the user gave, with its types of axes."""

    def replicate(self, tree: PyTree) -> PyTree:
        """Copies arrays to every device. Every process must pass the same values."""
        if self.replicated is None:
            return jax.device_put(tree)
        sharding = self.replicated
        return jax.tree.map(lambda array: put_on_sharding(array, sharding), tree)

    def shard(self, tree: PyTree) -> PyTree:
        """Divides arrays among the devices along their first axis. Every process must pass the same values."""
        if self.sharded is None:
            return jax.device_put(tree)
        sharding = self.sharded
        return jax.tree.map(lambda array: put_on_sharding(array, sharding), tree)

    def give_back(self, tree: PyTree) -> PyTree:
        """Replicated arrays on the mesh that the user gave."""
        if self.returned is None:
            return tree
        sharding = self.returned
        return jax.tree.map(lambda array: put_on_sharding(array, sharding), tree)

    def shard_process_local(self, tree: PyTree) -> PyTree:
        """Assembles global sharded arrays from the rows that each process holds."""
        if self.sharded is None:
            return jax.device_put(tree)
        sharding = self.sharded
        return jax.tree.map(
            lambda rows: jax.make_array_from_process_local_data(sharding, np.asarray(rows)),
            tree,
        )

    def constrain_replicated(self, tree: PyTree) -> PyTree:
        """Keeps the arrays of a compiled program replicated."""
        return tree if self.replicated is None else lax.with_sharding_constraint(tree, self.replicated)

    def constrain_sharded(self, tree: PyTree) -> PyTree:
        """Keeps the arrays of a compiled program sharded along their first axis."""
        return tree if self.sharded is None else lax.with_sharding_constraint(tree, self.sharded)


def make_placement(mesh: Mesh | None, batch_size: int) -> Placement:
    """The placement that shards batches over all axes of `mesh`, or that of the default device if `mesh` is None.

    Raises:
      ValueError: batch_size is not a multiple of the number of devices.
      TypeError: mesh is not a Mesh.
    """
    if mesh is None:
        return Placement()
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh: expected a jax.sharding.Mesh, got {type(mesh).__name__}")
    if batch_size % mesh.size:
        raise ValueError(f"batch_size: expected a multiple of the number of devices ({mesh.size}), got {batch_size}")
    # With Auto axes the compiler partitions the program of one device, so BatchNorm's means are the whole batch's.
    auto_mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
    return Placement(
        replicated=NamedSharding(auto_mesh, PartitionSpec()),
        sharded=NamedSharding(auto_mesh, PartitionSpec(mesh.axis_names)),
        returned=NamedSharding(mesh, PartitionSpec()),
    )


def put_on_sharding(array: Shaped[Array | np.ndarray, "..."], sharding: Sharding) -> Array:
    """Copies an array or a PRNG key to the devices of a sharding, which may belong to several processes."""
    if not is_prng_key(array):
        return jax.device_put(array, sharding)
    data = jax.device_put(jax.random.key_data(array), sharding)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))


def to_host(array: Shaped[Array, "..."]) -> np.ndarray:
    """Copies an array to host memory, where donation cannot overwrite it; a PRNG key becomes its raw data.

    Of an array on several devices the copy on this process's first device is read.

    >>> to_host(jnp.arange(3))
    array([0, 1, 2], dtype=int32)
    """
    return np.array(key_data(array).addressable_data(0))


def is_prng_key(array: Shaped[Array | np.ndarray, "..."]) -> bool:
    """Whether an array holds PRNG keys.

    >>> is_prng_key(jax.random.key(0))
    True
    """
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)


def key_data(array: Shaped[Array, "..."]) -> Array:
    """The raw data of a PRNG key; other arrays are returned unchanged.

    >>> key_data(jax.random.key(3))
    Array([0, 3], dtype=uint32)
    """
    return jax.random.key_data(array) if is_prng_key(array) else array
