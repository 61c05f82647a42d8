"""cnn_jax._layer_functions: types of the functions that a layer is made of."""

import numpy as np

import cnn_jax as cnn
from cnn_jax._layer_functions import Apply, Init, Intercept, identity


def test_layers_have_functions_of_these_types():
    layer = cnn.MaxPool()
    assert isinstance(layer.init, Init)
    assert isinstance(layer.apply, Apply)


def test_identity_returns_the_activation_itself():
    activation = np.ones(3)
    assert isinstance(identity, Intercept)
    assert identity("conv1", activation) is activation
