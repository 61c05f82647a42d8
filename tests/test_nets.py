"""Named networks: their stages, their sizes, and that they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import costs, nets, norms
from cnn_jax.training import fit

GREY, COLOUR = (28, 28, 1), (32, 32, 3)


@pytest.mark.parametrize(
    ("net", "shape", "parameters", "stages"),
    [
        (nets.lenet5(), GREY, 61_706, {"conv2": (10, 10, 16), "flatten1": (400,), "dense3": (10,)}),
        # With ten biases and without 4,480 means and variances, 6,573,130 as published.
        (nets.resnet9(), COLOUR, 6_577_600, {"residual1/sum": (16, 16, 128), "max_pool4": (1, 1, 512)}),
        (nets.digit_net(features=((4,), (6, 8))), GREY, 846, {"max_pool1": (14, 14, 4), "global_avg_pool1": (8,)}),
        (nets.airbench_net(), COLOUR, 1_973_944, {"conv1": (31, 31, 24), "max_pool4": (1, 1, 256)}),
    ],
)
def test_sizes(net, shape, parameters, stages):
    found = costs.cost(net, shape)
    params = jax.eval_shape(lambda key: net.init(key, shape), jax.random.key(0))
    assert found.parameters == parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert {name: found.stages[name].shape for name in stages} == stages
    assert found.shape == (10,)


@pytest.mark.parametrize("make", [nets.lenet5, nets.digit_net, nets.resnet9, nets.airbench_net])
def test_classes(make):
    shape = COLOUR if make in (nets.resnet9, nets.airbench_net) else GREY
    net = make(classes=3)
    params = jax.eval_shape(lambda key: net.init(key, shape), jax.random.key(0))
    assert jax.eval_shape(net.apply, params, jnp.zeros(shape)).shape == (3,)


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nets.digit_net(features=((4,), (8,))), (8, 8, 1)),
        (nets.airbench_net(features=(8, 8, 8)), (28, 28, 3)),
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
    options = {"optimizer": optax.adam(0.01), "steps": 25, "batch_size": 32, "key": jax.random.key(0)}
    params, _ = fit(net, (images, labels), progress=False, **options)
    params = norms.calibrate(net, params, images)
    read = jnp.argmax(jax.jit(jax.vmap(net.apply, (None, 0)))(params, images), -1)
    assert np.mean(read == labels) > 0.9


@pytest.mark.parametrize("make", [nets.xo_net, nets.digit_net, nets.cosine_net, nets.airbench_net])
def test_bad_features(make):
    with pytest.raises(ValueError, match=r"features: expected at least one, got \(\)"):
        make(features=())
    for wrong in (8, None, ("8",), (1.5,)):
        with pytest.raises(TypeError, match="features: expected"):
            make(features=wrong)


@pytest.mark.parametrize(
    "make", [nets.xo_net, nets.lenet5, nets.digit_net, nets.cosine_net, nets.resnet9, nets.airbench_net]
)
def test_bad_classes(make):
    with pytest.raises(ValueError, match="classes: expected at least 1, got 0"):
        make(classes=0)
    for wrong in (None, 1.5):
        with pytest.raises(TypeError, match=f"classes: expected an int, got {wrong}"):
            make(classes=wrong)
