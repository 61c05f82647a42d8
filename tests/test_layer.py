"""Layer: the contract of every layer, intermediate activations, and layers that users write."""

import copy
import gc
import pickle
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax import nets
from cnn_jax._layer import param_shapes
from cnn_jax.layers import GlobalAvgPool, Layer, Stages

KEY = jax.random.key(0)
IMAGE = jnp.ones((4, 4, 2))
EVERY_LAYER = {
    "Conv": cnn.Conv(2),
    "ConvTranspose": cnn.ConvTranspose(2),
    "DepthwiseConv": cnn.DepthwiseConv(),
    "SeparableConv": cnn.SeparableConv(2),
    "Upsample": cnn.Upsample(),
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
    "Concatenate": cnn.Concatenate(cnn.Activation(jax.nn.relu)),
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
    with pytest.raises(TypeError, match="positional arguments but"):
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


def scale_init(key, shape):
    return {"factor": jnp.ones(shape[-1])}


def scale_apply(params, image, *, train=False, key=None):
    return params["factor"] * image


@jax.jit
def doubled(x):
    return 2 * x


NETWORKS = {
    "own functions": lambda: cnn.Chain(Layer(scale_init, scale_apply, "scale"), cnn.Activation(doubled)),
    "resnet9": nets.resnet9,
    "airbench_net": nets.airbench_net,
    "cosine_net": nets.cosine_net,
    "lenet5": nets.lenet5,
} | {name: lambda layer=layer: cnn.Chain(layer) for name, layer in EVERY_LAYER.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_compare_hash_copy_and_pickle(name):
    net = NETWORKS[name]()
    hash(net)
    copies = [NETWORKS[name](), copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    for other in copies:
        assert other == net
        assert hash(other) == hash(net)
    assert net not in [other() for other_name, other in NETWORKS.items() if other_name != name]


def test_layers_differ_by_kind_and_options():
    layers = [cnn.MaxPool(), cnn.AvgPool(), cnn.MaxPool(3), cnn.Conv(2), cnn.Conv(2, padding="SAME"), cnn.Match(2)]
    layers += [cnn.Match(2, learn={"p": 1}), cnn.Match(2, learn={"p": 2}), cnn.Residual(cnn.Conv(2))]
    layers += [cnn.Chain(cnn.Conv(2)), cnn.Activation(jax.nn.relu), cnn.Activation(jax.nn.gelu)]
    assert len({*layers}) == len(layers)
    assert cnn.Conv(2) != "Conv(2)"


def test_options_written_in_other_ways_are_equal():
    assert cnn.Conv(2, 3, stride=[1, 2], padding=[[1, 1], [0, 0]]) == cnn.Conv(
        2, (3, 3), stride=(1, 2), padding=((1, 1), (0, 0))
    )
    assert cnn.Dropout(0) == cnn.Dropout(0.0)


def test_options_cannot_be_changed():
    for layer in (cnn.Conv(2), Layer(scale_init, scale_apply)):
        with pytest.raises(AttributeError):
            layer.name = "other"
        with pytest.raises(AttributeError):
            del layer.name


def test_a_network_prints_one_line_a_layer():
    net = cnn.Chain(
        cnn.Conv(8, 5, stride=(1, 2), padding=((1, 1), (1, 1)), kernel_init=cnn.initializers.dirac()),
        cnn.Residual(cnn.Activation(jax.nn.relu), cnn.Match(2, score=cnn.zncc)),
        Layer(scale_init, scale_apply, "scale"),
        nets._scaled_head(2, 0.5),
    )
    assert repr(net) == (
        "Chain(\n"
        "  Conv(8, kernel_size=5, stride=(1, 2), padding=((1, 1), (1, 1)), kernel_init=dirac(zeros)),\n"
        "  Residual(\n"
        "    Activation(relu),\n"
        "    Match(2, score=zncc),\n"
        "  ),\n"
        "  Layer(scale_init, scale_apply, name='scale'),\n"
        "  ScaledDense(2, use_bias=False, scale=0.5),\n"
        ")"
    )


def test_programs_of_equal_networks_are_compiled_once():
    traces = []

    def act(image):
        traces.append(image)
        return image

    networks = [cnn.Chain(cnn.MaxPool(), cnn.Activation(act)) for _ in range(2)]
    for net in networks:
        jax.jit(net.apply)({}, IMAGE)
        jax.jit(net.stages)({}, IMAGE)
    assert len(traces) == 2


class Factor(Layer):
    """A user's layer with an option of any kind."""

    factor: Any
    name = "factor"

    def _apply(self, params, image, *, train=False, key=None):
        with jax.numpy_dtype_promotion("standard"):
            return jnp.asarray(image) * self.factor


def test_layers_of_equal_options_of_other_types_compute_with_their_own():
    image = jnp.ones(1, jnp.int32)
    layers = [Factor(2), Factor(2.0), Factor(np.int8(2)), Factor(-0.0), Factor(0.0)]
    dtypes = [str(layer.apply({}, image).dtype) for layer in layers]
    assert dtypes == ["int32", "float32", "int32", "float32", "float32"]
    assert np.signbit(layers[3].apply({}, image))[0] != np.signbit(layers[4].apply({}, image))[0]
    assert len(set(layers)) == len(layers)


def test_options_that_are_arrays_compare_by_identity():
    mean = np.array([1.0, 2.0])
    assert Factor(mean) == Factor(mean) != Factor(mean.copy())
    np.testing.assert_array_equal(Factor(2 * mean).apply({}, np.ones(2)), 2 * mean)


def test_networks_are_freed():
    net = cnn.Chain(cnn.MaxPool(), cnn.Activation(jax.nn.relu))
    equal = cnn.Chain(cnn.MaxPool(), cnn.Activation(jax.nn.relu))
    jax.jit(net.apply)({}, IMAGE)
    assert equal.apply is net.apply
    alive = weakref.ref(net)
    del net
    gc.collect()
    assert alive() is None
    np.testing.assert_array_equal(equal.apply({}, IMAGE), jnp.ones((2, 2, 2)))
    assert equal.apply is equal.apply


def test_parameters_of_users_layers_are_compared_with_init():
    net = cnn.Chain(cnn.Residual(Layer(scale_init, scale_apply, "scale")))
    message = r"params: expected residual1/scale1/factor of shape \(2,\) for an input of .*\(4, 4, 2\), got \(1,\)"
    with pytest.raises(ValueError, match=message):
        net.apply({"residual1": {"scale1": {"factor": jnp.ones(1)}}}, IMAGE)


def test_a_users_init_that_cannot_be_traced_is_not_compared():
    def init(key, shape):
        return {"factor": np.ones(int(jax.random.randint(key, (), 1, 2)))}

    net = cnn.Chain(Layer(init, scale_apply, "scale"))
    np.testing.assert_array_equal(net.apply({"scale1": {"factor": np.float32(2)}}, IMAGE), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": jnp.ones((5, 5, 1, 8))}, r"conv1/kernel of shape \(3, 3, 1, 16\) .*, got \(5, 5, 1, 8\)"),
        ({"bias": jnp.ones(())}, r"conv1/bias of shape \(16,\) .*, got \(\)"),
    ],
)
def test_parameters_of_another_network_are_refused_when_traced(change, message):
    net = cnn.Chain(cnn.Conv(16), cnn.GlobalAvgPool(), cnn.Dense(10))
    params = jax.eval_shape(lambda key: net.init(key, (8, 8, 1)), KEY)
    wrong = params | {"conv1": params["conv1"] | change}
    image = jax.ShapeDtypeStruct((8, 8, 1), jnp.float32)
    for apply in (net.apply, net.stages):
        with pytest.raises(ValueError, match=f"params: expected {message}"):
            jax.eval_shape(apply, wrong, image)


def test_parameters_of_other_dtypes_more_arrays_and_stacked_ones_are_accepted():
    net = cnn.Chain(cnn.Conv(2))
    params = net.init(KEY, (4, 4, 1))
    image = jnp.ones((4, 4, 1))
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    half["conv1"]["mask"] = jnp.ones(3)
    assert jax.eval_shape(net.apply, half, image.astype(jnp.bfloat16)).shape == (2, 2, 2)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), params)
    assert jax.eval_shape(jax.vmap(net.apply, (0, None)), stacked, image).shape == (3, 2, 2, 2)
    with pytest.raises(ValueError, match=r"conv1/bias of shape \(2,\) .*, got \(3, 2\)"):
        net.apply(stacked, image)


def test_a_layer_alone_checks_its_parameters():
    with pytest.raises(TypeError, match=r"params: expected a dict, .* apply takes \(params, image\)"):
        cnn.Conv(2).apply(IMAGE, {})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"params: expected kernel of shape \(3, 3, 2, 2\) .*, got none"):
        cnn.Conv(2).apply({"bias": jnp.ones(2)}, IMAGE)


def test_parameter_shapes_are_those_of_init():
    net = cnn.Chain(cnn.Conv(2), cnn.Flatten(), cnn.Dense(3))
    shapes = param_shapes(net, (5, 6, 1))
    params = net.init(jax.random.key(0), (5, 6, 1))
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(np.shape, params)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))
