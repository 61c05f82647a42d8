"""Axes of a device mesh: arrays that vary over manual axes, as in `jax.shard_map`, and programs on Explicit axes."""

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar, cast

import jax
from jax import lax
from jax.core import ShapedArray
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec, auto_axes, get_abstract_mesh
from jaxtyping import Array, PyTree

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def vary_like(tree: T, *others: PyTree) -> T:
    """A tree whose arrays vary over every manual axis that some array of the tree or of the others varies over.

    Branches of a conditional must vary over the same axes, and so must a loop's carry before and after a step. A
    constant varies over none. The transpose of the cast is a sum over the devices, which the gradient of an argument
    that they share needs. Outside of `jax.shard_map` with `check_vma=True` it changes nothing.

    >>> vary_like(jax.numpy.zeros(2), jax.numpy.ones(3))
    Array([0., 0.], dtype=float32)
    """
    axes = _varying_axes((tree, others))

    def vary(leaf: Array) -> Array:
        missing = axes - _varying_axes(leaf)
        return lax.pcast(leaf, tuple(sorted(missing)), to="varying") if missing else leaf

    return jax.tree.map(vary, tree) if axes else tree


def _varying_axes(tree: PyTree) -> frozenset[str]:
    return frozenset().union(*(jax.typeof(leaf).manual_axis_type.varying for leaf in jax.tree.leaves(tree)))


def check_summed(**operands: ShapedArray) -> None:
    """Raises NotImplementedError for an array that is a sum over mesh axes that is not taken yet."""
    for name, operand in operands.items():
        axis_type = operand.manual_axis_type
        if axis_type.unreduced or axis_type.reduced:
            raise NotImplementedError(
                f"{name}: expected an array that varies over mesh axes or not, got {axis_type}; cast it by "
                "jax.lax.psum or jax.lax.pcast before, or use jax.shard_map with check_vma=False"
            )


def on_any_mesh(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose arrays may vary over manual axes, or be sharded over Explicit axes.

    All arrays vary over the same manual axes inside of it, so that a derivative inside of it is that of one device. On
    Explicit axes JAX asks for a sharding wherever it does not follow from those of the operands; the function computes
    on Auto axes instead, where the compiler chooses it. Its results are replicated, but for the axes of an outer
    `jax.vmap`, which keep their sharding. Arguments that are not of `jax.Array` are static.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        leaves, structure = jax.tree.flatten((args, kwargs))
        numbers = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

        def run_arrays(*arrays: Array) -> R:
            merged = list(leaves)
            for i, array in zip(numbers, arrays, strict=True):
                merged[i] = array
            args, kwargs = jax.tree.unflatten(structure, merged)
            return cast(Callable[..., R], function)(*args, **kwargs)

        arrays = vary_like([leaves[i] for i in numbers])
        mesh = _explicit_mesh(arrays)
        if mesh is None:
            return run_arrays(*arrays)
        replicated = NamedSharding(mesh, PartitionSpec())
        on_auto_axes = auto_axes(run_arrays, axes=_explicit_axes(mesh), out_sharding=replicated)
        return cast(R, on_auto_axes(*arrays))

    return run


def _explicit_mesh(arrays: Sequence[Array]) -> AbstractMesh | None:
    """The mesh with Explicit axes that the context or an array has."""
    meshes = [get_abstract_mesh(), *(jax.typeof(array).sharding.mesh for array in arrays)]
    return next((mesh for mesh in meshes if _explicit_axes(mesh)), None)


def _explicit_axes(mesh: AbstractMesh) -> tuple[str, ...]:
    return tuple(name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit)
