"""Checks and shapes that `cost` and `receptive_field` share."""

import jax
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax._function_or_net import check_function, parameter_shapes


def test_check_function_names_the_argument():
    assert check_function(cnn.conv) is cnn.conv
    with pytest.raises(TypeError, match="function_or_net: expected a function or a Layer, got 5"):
        check_function(5)


def test_parameter_shapes_are_those_of_init():
    net = cnn.Chain(cnn.Conv(2), cnn.Flatten(), cnn.Dense(3))
    shapes = parameter_shapes(net, [5, 6, 1])
    params = net.init(jax.random.key(0), (5, 6, 1))
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(np.shape, params)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))
