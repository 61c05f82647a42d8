"""cnn_jax._layer_functions: types of the functions that a layer is made of."""

import inspect

import jax.numpy as jnp
import pytest

import cnn_jax as cnn
from cnn_jax._layer_functions import Apply, ApplyWithIntermediates, Init, identity


@pytest.mark.parametrize(("method", "kind"), [("init", Init), ("apply", Apply), ("stages", ApplyWithIntermediates)])
def test_layers_have_functions_of_these_types(method, kind):
    parameters = inspect.signature(getattr(cnn.Flatten(), method)).parameters.values()
    _, *expected = inspect.signature(kind.__call__).parameters.values()  # the first one is self
    assert [(p.name, p.default) for p in parameters] == [(p.name, p.default) for p in expected]


def test_identity_returns_the_activation_itself():
    activation = jnp.ones(3)
    assert identity("conv1", activation) is activation
