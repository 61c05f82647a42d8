"""The check that `cost` and `receptive_field` share."""

import pytest

import cnn_jax as cnn
from cnn_jax._function_or_net import check_function


def test_check_function_names_the_argument():
    assert check_function(cnn.conv) is cnn.conv
    with pytest.raises(TypeError, match="function_or_net: expected a function or a Layer, got 5"):
        check_function(5)
