"""Casts between the axes of a mesh. tests/test_transforms.py tests the functions that use them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from cnn_jax._mesh_axes import on_any_mesh, vary_like

NUMBERS = np.arange(8.0, dtype=np.float32)


def mesh_of(kind: AxisType) -> jax.sharding.Mesh:
    return jax.make_mesh((2,), ("b",), axis_types=(kind,))


def test_a_constant_varies_like_an_array():
    def on_device(numbers):
        constants, none = vary_like((jnp.zeros(2), None), numbers)
        assert none is None
        assert jax.typeof(constants).manual_axis_type.varying == {"b"}
        assert jax.typeof(vary_like(jnp.zeros(2))).manual_axis_type.varying == frozenset()
        return constants + numbers[:2]

    out = jax.shard_map(on_device, mesh=mesh_of(AxisType.Auto), in_specs=P("b"), out_specs=P("b"))(NUMBERS)
    np.testing.assert_array_equal(out, [0, 1, 4, 5])


def test_outside_of_a_map_nothing_is_cast():
    array = jnp.ones(3)
    assert vary_like(array, NUMBERS) is array


def test_a_derivative_inside_of_a_function_is_that_of_one_device():
    @on_any_mesh
    def slope(shared, own):
        return jax.grad(lambda shared: shared * own.sum())(shared)

    def on_device(shared, own):
        return slope(shared, own)[None]

    mapped = jax.shard_map(on_device, mesh=mesh_of(AxisType.Auto), in_specs=(P(), P("b")), out_specs=P("b"))
    np.testing.assert_array_equal(mapped(jnp.float32(2), NUMBERS), [6, 22])


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_function_computes_on_auto_axes(kind):
    @on_any_mesh
    def reversed_in_pairs(numbers, *, step):
        assert AxisType.Explicit not in jax.typeof(numbers).sharding.mesh.axis_types
        return numbers.reshape(-1, 2)[:, ::step].ravel()

    numbers = jax.device_put(NUMBERS, NamedSharding(mesh_of(kind), P("b")))
    out = jax.jit(lambda numbers: reversed_in_pairs(numbers, step=-1))(numbers)
    np.testing.assert_array_equal(out, [1, 0, 3, 2, 5, 4, 7, 6])
