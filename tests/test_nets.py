"""Named networks: their stages, their sizes, and that they learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import costs, nets, norms
from cnn_jax.training import fit

GRAY, COLOR = (28, 28, 1), (32, 32, 3)


def eval_params(net, shape):
    return jax.eval_shape(functools.partial(net.init, shape=shape), jax.random.key(0))


@pytest.mark.parametrize(
    ("net", "shape", "parameters", "stages"),
    [
        (nets.lenet5(), GRAY, 61_706, {"conv2": (10, 10, 16), "flatten1": (400,), "dense3": (10,)}),
        # With ten biases and without 4,480 means and variances, 6,573,130 as published.
        (nets.resnet9(), COLOR, 6_577_600, {"residual1/sum": (16, 16, 128), "max_pool4": (1, 1, 512)}),
        (nets.digit_net(features=((4,), (6, 8))), GRAY, 846, {"max_pool1": (14, 14, 4), "global_avg_pool1": (8,)}),
        (nets.airbench_net(), COLOR, 1_973_944, {"conv1": (31, 31, 24), "max_pool4": (1, 1, 256)}),
    ],
)
def test_sizes(net, shape, parameters, stages):
    net_cost = costs.cost(net, shape)
    assert net_cost.parameters == parameters == sum(leaf.size for leaf in jax.tree.leaves(eval_params(net, shape)))
    assert {name: net_cost.stages[name].shape for name in stages} == stages
    assert net_cost.shape == (10,)


def test_xo_net_is_small_and_has_two_logits():
    params = eval_params(nets.xo_net(), GRAY)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) <= 50_000
    assert jax.eval_shape(nets.xo_net().apply, params, jax.ShapeDtypeStruct(GRAY, jnp.float32)).shape == (2,)


def test_xo_net_options():
    net = nets.xo_net(features=(2, 3), classes=5)
    stages = jax.eval_shape(net.stages, eval_params(net, (9, 9, 1)), jax.ShapeDtypeStruct((9, 9, 1), jnp.float32))
    assert [stage.shape for name, stage in stages.items() if "max_pool" in name] == [(5, 5, 2), (3, 3, 3)]
    assert stages["dense1"].shape == (5,)


@pytest.mark.parametrize("make", [nets.lenet5, nets.digit_net, nets.cosine_net, nets.resnet9, nets.airbench_net])
def test_classes(make):
    shape = COLOR if make in (nets.resnet9, nets.airbench_net) else GRAY
    net = make(classes=3)
    assert jax.eval_shape(net.apply, eval_params(net, shape), jnp.zeros(shape)).shape == (3,)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nets.digit_net(features=((4,), (8,))), (8, 8, 1)),
        pytest.param(nets.airbench_net(features=(8, 8, 8)), (28, 28, 3), marks=pytest.mark.slow),
    ],
)
def test_they_learn_where_a_spot_is(net, shape):
    """Left or right, in few steps, and still after the batch's statistics gave way to the population's."""
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=64).astype(np.int32)
    images = generator.normal(size=(64, *shape)).astype(np.float32) / 10
    half = shape[1] // 2
    for image, label in zip(images, labels, strict=True):
        image[:, half * label : half * label + half] += 1
        image[:, half * (1 - label) : half * (1 - label) + half] -= 1
    params, _ = fit(
        net,
        (images, labels),
        optimizer=optax.adam(0.01),
        steps=25,
        batch_size=32,
        key=jax.random.key(0),
        progress=False,
    )
    params = norms.calibrate(net, params, images)
    predicted = jnp.argmax(jax.jit(jax.vmap(net.apply, (None, 0)))(params, images), -1)
    assert np.mean(predicted == labels) > 0.9


@pytest.mark.parametrize("make", [nets.xo_net, nets.digit_net, nets.cosine_net, nets.airbench_net])
def test_bad_features(make):
    with pytest.raises(ValueError, match=r"features: expected at least one, got \(\)"):
        make(features=())
    for features in (8, None, ("8",), (1.5,)):
        with pytest.raises(TypeError, match="features: expected"):
            make(features=features)


@pytest.mark.parametrize(
    "make", [nets.xo_net, nets.lenet5, nets.digit_net, nets.cosine_net, nets.resnet9, nets.airbench_net]
)
def test_bad_classes(make):
    with pytest.raises(ValueError, match="classes: expected at least 1, got 0"):
        make(classes=0)
    for classes in (None, 1.5):
        with pytest.raises(TypeError, match=f"classes: expected an int, got {classes}"):
            make(classes=classes)
