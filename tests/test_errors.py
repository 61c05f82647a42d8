"""Texts of errors: other libraries' in one line, and wrong arguments in a few words."""

import jax.numpy as jnp
import pytest

from cnn_jax import Flatten, calibrate, export
from cnn_jax._errors import describe, one_line


def test_an_error_becomes_one_short_line():
    assert one_line(ValueError("first\n   second\tthird")) == "first second third"
    assert one_line(ValueError("x" * 1000)) == "x" * 200
    assert one_line(ValueError()) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (None, "None"),
        ("adam", "'adam'"),
        ("x" * 1000, repr("x" * 1000)[:80]),
        ({"kernel": jnp.zeros(1000)}, "dict"),
        (jnp.zeros(1000), "ArrayImpl"),
        (Flatten, "Flatten, which is to be called"),
        (ValueError, "ValueError, which is to be called"),
    ],
)
def test_a_wrong_argument_is_described_in_a_few_words(value, text):
    assert describe(value) == text


def test_parameters_in_the_place_of_a_network_are_named():
    params = {"dense1": {"kernel": jnp.zeros((2, 2))}}
    with pytest.raises(TypeError, match="net: expected a Layer, such as a Chain, got dict"):
        calibrate(params, Flatten(), jnp.zeros((2, 1, 1)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="net: expected a Layer, such as a Chain, got dict"):
        export(params, Flatten(), (1, 1, 1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="shape: expected ints"):
        export(Flatten(), {}, 3)  # pyright: ignore[reportArgumentType]
