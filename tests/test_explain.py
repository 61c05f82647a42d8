"""The public module: its names and their documentation."""

import inspect

import pytest

import cnn_jax
from cnn_jax import explain


def test_names_are_listed_once_and_in_order():
    assert explain.__all__ == sorted(set(explain.__all__), key=lambda name: (name[0].islower(), name))


@pytest.mark.parametrize("name", [name for name in explain.__all__ if name[0].islower()])
def test_functions_have_an_example(name):
    assert ">>> " in (inspect.getdoc(getattr(explain, name)) or "")


def test_receptive_field_is_the_same_function_everywhere():
    assert explain.receptive_field is cnn_jax.receptive_field
