"""Comparison of parameters with the shapes that a layer makes."""

import jax.numpy as jnp
import pytest

from cnn_jax._params import ParamsError, check_params

EXPECTED = {"inner": {"b": jnp.ones(2), "a": jnp.ones((2, 3))}, "c": jnp.ones(())}


def test_equal_shapes_and_further_arrays_pass():
    check_params(EXPECTED | {"more": jnp.ones(5)}, EXPECTED, ())
    check_params({}, {}, ())


def test_nothing_is_compared_where_the_shapes_are_unknown():
    check_params({"anything": jnp.ones(5)}, None, ())


def test_the_first_difference_is_named_by_its_path():
    wrong = {"inner": {"a": jnp.ones((3, 2)), "b": jnp.ones(3)}, "c": 1.0}
    with pytest.raises(ParamsError, match=r"^params: expected inner/b of shape \(2,\) .* \(4, 4\), got \(3,\)$"):
        check_params(wrong | {"inner": {"b": jnp.ones(3), "a": jnp.ones((2, 3))}}, EXPECTED, (4, 4))
    with pytest.raises(ParamsError, match=r"inner/a of shape \(2, 3\)"):
        check_params(wrong, EXPECTED, (4, 4))


def test_an_inner_layers_error_takes_the_name_of_the_outer_one():
    with pytest.raises(ParamsError, match=r"^params: expected chain1/conv1/kernel of shape .*, got none$"):
        raise ParamsError("kernel", "of shape (1,), got none").inside("conv1").inside("chain1")
