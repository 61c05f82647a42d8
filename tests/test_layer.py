"""Layer: the contract of every layer, intermediate activations, and layers that users write."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax import nets
from cnn_jax.layers import GlobalAvgPool, Layer, Stages

KEY = jax.random.key(0)
IMAGE = jnp.ones((4, 4, 2))
EVERY_LAYER = {
    "Conv": cnn.Conv(2),
    "Match": cnn.Match(2),
    "Dense": cnn.Dense(2),
    "MaxPool": cnn.MaxPool(),
    "AvgPool": cnn.AvgPool(),
    "MaxAbsPool": cnn.MaxAbsPool(),
    "GlobalAvgPool": GlobalAvgPool(),
    "Flatten": cnn.Flatten(),
    "Activation": cnn.Activation(jax.nn.relu),
    "Dropout": cnn.Dropout(0.5),
    "BatchNorm": cnn.BatchNorm(),
    "GroupNorm": cnn.GroupNorm(2),
    "LayerNorm": cnn.LayerNorm(),
    "LocalResponseNorm": cnn.LocalResponseNorm(),
    "Chain": cnn.Chain(cnn.MaxPool()),
    "Residual": cnn.Residual(cnn.Activation(jax.nn.relu)),
    "scaled head": nets._scaled_head(2, 0.5),
}
USES_TRAINING = {"BatchNorm", "Dropout"}
VECTORS_ONLY = {"Dense", "scaled head"}


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_a_misspelt_keyword_is_an_error(name):
    misspelt: dict[str, Any] = {"trian": True}
    with pytest.raises(TypeError, match="trian"):
        EVERY_LAYER[name].apply({}, IMAGE, **misspelt)
    with pytest.raises(TypeError, match="trian"):
        EVERY_LAYER[name].stages({}, IMAGE, **misspelt)


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_train_and_key_are_passed_by_name_alone(name):
    by_position: Any = EVERY_LAYER[name].apply
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        by_position({}, IMAGE, False)


@pytest.mark.parametrize("name", [name for name in EVERY_LAYER if name not in USES_TRAINING | VECTORS_ONLY])
def test_layers_without_statistics_and_draws_take_train_and_key_and_ignore_them(name):
    layer = EVERY_LAYER[name]
    params = jax.eval_shape(lambda key: layer.init(key, IMAGE.shape), KEY)
    expected = jax.make_jaxpr(layer.apply)(params, IMAGE)
    trained = jax.make_jaxpr(lambda params, image: layer.apply(params, image, train=True))(params, IMAGE)
    assert str(trained) == str(expected)


def test_a_single_layer_has_one_stage():
    assert list(cnn.Activation(jax.nn.relu).stages({}, jnp.ones(2))) == ["relu"]


def test_an_intercept_replaces_the_output_of_a_single_layer():
    stages = cnn.MaxPool().stages({}, IMAGE, intercept=lambda name, value: value + 1)
    np.testing.assert_array_equal(stages["max_pool"], 2)


def test_layers_of_users_join_chains():
    def init(key, shape):
        return {"factor": jnp.array(3.0)}

    def apply(params, image, *, train=False, key=None):
        return params["factor"] * image

    scale = Layer(init, apply, "scale")
    net = cnn.Chain(scale, scale)
    params = net.init(KEY, ())
    assert list(params) == ["scale1", "scale2"]
    assert net.apply(params, jnp.array(2.0)) == 18


def test_layers_of_users_need_not_know_intercept():
    def apply_with_intermediates(params, image, *, train=False, key=None):
        return Stages(half=image / 2, whole=image)

    def apply(params, image, *, train=False, key=None):
        return image

    layer: Any = Layer
    net = cnn.Chain(layer(lambda key, shape: {}, apply, "halves", apply_with_intermediates))
    assert list(net.stages({}, jnp.ones(2))) == ["halves1/half", "halves1/whole", "halves1"]
    with pytest.raises(TypeError, match="intercept"):
        net.stages({}, jnp.ones(2), intercept=lambda name, value: value)
