"""Chain and Residual: names of stages and parameters, keys, intercepts, and parameters that do not fit."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.layers import (
    Activation,
    Chain,
    Concatenate,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Layer,
    Match,
    MaxPool,
    Residual,
)
from cnn_jax.norms import BatchNorm

KEY = jax.random.key(0)
RELU = Activation(jax.nn.relu)
NET = Chain(Conv(2), RELU, MaxPool(), Flatten(), Dense(2))
IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 6, 6, 1)).astype(np.float32)


def init(net, shape, seed=0):
    return jax.jit(functools.partial(net.init, shape=shape))(jax.random.key(seed))


@pytest.fixture(scope="module")
def params():
    return init(NET, (6, 6, 1))


@functools.cache
def jitted_stages():
    return jax.jit(NET.stages)


def test_chain_names_stages_in_order(params):
    stages = jitted_stages()(params, IMAGES[0])
    assert list(stages) == ["conv1", "relu1", "max_pool1", "flatten1", "dense1"]
    assert list(params) == ["conv1", "dense1"]
    np.testing.assert_array_equal(stages["relu1"], np.maximum(stages["conv1"], 0))
    logits = jax.jit(NET.apply)(params, IMAGES[0])
    np.testing.assert_array_equal(stages["dense1"], logits)


def test_kinds_are_counted_apart():
    net = Chain(RELU, Flatten(), RELU)
    assert list(net.stages({}, jnp.ones((2, 2, 1)))) == ["relu1", "flatten1", "relu2"]


def test_nested_stages_bear_their_path():
    net = Chain(Residual(Conv(1, padding="SAME"), RELU), Chain(Flatten()))
    params = init(net, (4, 4, 1))
    assert list(params) == ["residual1"]
    stages = jax.jit(net.stages)(params, IMAGES[0, :4, :4])
    assert list(stages) == [
        "residual1/conv1",
        "residual1/relu1",
        "residual1/sum",
        "residual1",
        "chain1/flatten1",
        "chain1",
    ]
    np.testing.assert_array_equal(stages["residual1"], stages["residual1/sum"])
    np.testing.assert_allclose(stages["residual1"] - stages["residual1/relu1"], IMAGES[0, :4, :4], atol=1e-6)


def test_init_is_deterministic_and_differs_between_keys_and_layers():
    net = Chain(Conv(1, padding="SAME"), Conv(1, padding="SAME"))
    make = jax.jit(functools.partial(net.init, shape=(4, 4, 1)))
    params, same_key, other_key = make(KEY), make(jax.random.key(0)), make(jax.random.key(1))
    chex.assert_trees_all_equal(params, same_key)
    assert not np.array_equal(params["conv1"]["kernel"], other_key["conv1"]["kernel"])
    assert not np.array_equal(params["conv1"]["kernel"], params["conv2"]["kernel"])


def test_jit_vmap_and_grad_together(params):
    def summed_logits(params, images):
        logits = jax.vmap(NET.apply, (None, 0))(params, images)
        return jnp.sum(logits), logits

    gradient, logits = jax.jit(jax.grad(summed_logits, has_aux=True))(params, IMAGES)
    expected = jitted_stages()(params, IMAGES[1])["dense1"]
    np.testing.assert_allclose(logits[1], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient["dense1"]["bias"], len(IMAGES))
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)
    assert all(np.isfinite(leaf).all() and np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


def test_dropouts_of_a_chain_draw_independently():
    net = Chain(Dropout(0.5), Dropout(0.5))
    stages = net.stages({}, jnp.ones((100, 100)), train=True, key=KEY)
    kept_by_both = float(np.mean(np.asarray(stages["dropout2"]) != 0))
    assert kept_by_both == pytest.approx(0.25, abs=0.02)


def test_the_key_reaches_no_layer_when_there_is_none():
    with pytest.raises(ValueError, match=r"key.*Dropout.*None"):
        Chain(RELU, Dropout(0.5)).apply({}, jnp.ones(3), train=True)


def test_residual_needs_layers_that_keep_the_shape():
    net = Residual(Conv(1))
    params = jax.eval_shape(functools.partial(net.init, shape=(4, 4, 1)), KEY)
    with pytest.raises(ValueError, match=r"Residual: .*\(4, 4, 1\).*\(2, 2, 1\)"):
        jax.eval_shape(net.apply, params, jnp.ones((4, 4, 1)))


def test_concatenate_keeps_its_input_before_the_output_of_its_layers():
    net = Concatenate(Conv(3, padding="SAME"), RELU)
    params = init(net, (4, 4, 1))
    image = IMAGES[0, :4, :4]
    stages = net.stages(params, image)
    assert list(stages) == ["conv1", "relu1", "concatenation"]
    out = net.apply(params, image)
    np.testing.assert_array_equal(out[..., :1], image)
    np.testing.assert_array_equal(out[..., 1:], stages["relu1"])


def test_concatenate_needs_layers_that_keep_rows_and_columns():
    with pytest.raises(ValueError, match=r"Concatenate: .*\(4, 4\), got \(2, 2\)"):
        Concatenate(MaxPool()).apply({}, jnp.ones((4, 4, 1)))


def test_params_of_another_network_are_refused(params):
    with pytest.raises(ValueError, match=r"params: .*match1.*conv1"):
        Chain(Match(2), Flatten(), Dense(2)).apply(params, IMAGES[0])


def test_missing_params_are_refused(params):
    with pytest.raises(ValueError, match=r"params: expected dense1/bias of shape \(2,\) .*, got none"):
        jax.eval_shape(NET.apply, {"conv1": params["conv1"]}, IMAGES[0])


@pytest.fixture(scope="module")
def intercepted():
    """The stages of a nested network whose stage of a given name is multiplied by 0, by name."""
    net = Chain(Conv(2, padding="SAME"), BatchNorm(), Residual(Conv(2, padding="SAME")), Flatten())
    params = init(net, (4, 5, 1))
    params["batch_norm1"]["variance"] = jnp.ones(2)
    image = jax.random.normal(jax.random.key(1), (4, 5, 1))
    names = list(jax.eval_shape(net.stages, params, image))
    factors = {name: jnp.float32(1) for name in names}
    seen = []

    @jax.jit
    def stages(factors):
        def multiply(name, value):
            seen.append(name)
            return factors[name] * value

        return net.stages(params, image, intercept=multiply)

    plain = jax.jit(net.stages)(params, image)
    unchanged = stages(factors)
    return plain, unchanged, seen, lambda name: stages(factors | {name: jnp.float32(0)})


def test_an_intercept_sees_every_stage_but_statistics(intercepted):
    plain, unchanged, seen, _ = intercepted
    statistics = {"batch_norm1/mean", "batch_norm1/variance"}
    assert seen == [name for name in plain if name not in statistics]
    chex.assert_trees_all_close(plain, unchanged, rtol=1e-5)  # another program, which may add in another order


def test_what_an_intercept_returns_goes_on(intercepted):
    _, unchanged, _, without = intercepted
    cut = without("residual1/conv1")
    np.testing.assert_array_equal(cut["residual1/conv1"], 0)
    # The input of the residual block, up to the order of sums.
    np.testing.assert_allclose(cut["flatten1"], unchanged["batch_norm1"].ravel(), rtol=1e-5)
    np.testing.assert_array_equal(without("residual1/sum")["flatten1"], 0)
    np.testing.assert_array_equal(without("batch_norm1/normalized")["batch_norm1"], 0)
    np.testing.assert_array_equal(without("conv1")["conv1"], 0)
    assert float(jnp.abs(without("conv1")["batch_norm1"]).max()) == 0  # its mean is 0, too


@pytest.mark.parametrize("own", [jnp.ones(3), (jnp.ones(3),), ()], ids=["array", "tuple", "empty tuple"])
def test_parameters_of_a_users_layer_may_be_any_tree(own):
    received = []

    def apply(params, image, *, train=False, key=None):
        received.append(params)
        return image

    net = Chain(Layer(lambda key, shape: own, apply, "own"), Flatten())
    params = net.init(jax.random.key(0), (1, 1, 1))
    chex.assert_trees_all_equal(params, {"own1": own})
    net.apply(params, jnp.ones((1, 1, 1)))
    assert jax.tree.structure(received[-1]) == jax.tree.structure(own)
