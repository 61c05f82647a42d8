"""Stages, maximally activating patches and kernels against plain NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax import explain
from tests.helpers import oracles
from tests.helpers.sample_networks import sample_network

NETWORKS = ["small", *(pytest.param(name, marks=pytest.mark.slow) for name in ("xo_net", "lenet5", "resnet9"))]


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_are_the_activations_that_are_images(name):
    net, params, images = sample_network(name)
    stages = jax.jit(jax.vmap(functools.partial(explain.stages, net, params)))(images)
    activations = jax.jit(jax.vmap(net.stages, (None, 0)))(params, images)
    assert list(stages) == [name for name, activation in activations.items() if activation.ndim == 4]
    for name, stage in stages.items():
        np.testing.assert_allclose(stage, activations[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("padding", "stride", "shape"),
    [
        ("SAME", 2, (6, 7, 2)),
        pytest.param("VALID", 2, (11, 13, 2), marks=pytest.mark.slow),
        pytest.param("SAME", 1, (6, 7, 1), marks=pytest.mark.slow),
    ],
)
def test_top_activating_patches_by_looking_at_every_patch(padding, stride, shape):
    net = cnn.Chain(cnn.Conv(4, (3, 2), padding=padding, stride=stride), cnn.Activation(jnp.tanh), cnn.Flatten())
    images = np.asarray(jax.random.normal(jax.random.key(0), (70, *shape)))  # more than one batch
    params = net.init(jax.random.key(1), shape)
    kernels = np.asarray(params["conv1"]["kernel"], np.float64)
    top = jax.jit(lambda images: explain.top_activating_patches(net, params, images, stage="conv1", count=3))(images)
    assert top.patches.shape == (4, 3, 3, 2, shape[2])
    activations = np.stack([oracles.conv(image, kernels, stride=stride, padding=padding) for image in images])
    for k in range(4):
        maxima = activations[..., k].max(axis=(1, 2))
        np.testing.assert_array_equal(top.indices[k], np.argsort(-maxima)[:3])
        np.testing.assert_allclose(top.values[k], np.sort(-maxima)[:3] * -1, rtol=1e-5)
        for patch, value, i, y, x in zip(*(np.asarray(field[k]) for field in top), strict=True):
            assert activations[i, y, x, k] == activations[i, ..., k].max()
            np.testing.assert_allclose((patch * kernels[..., k]).sum(), value, rtol=1e-5)  # with the border's zeros


def test_top_activating_patches_of_a_deep_stage_have_the_same_activations_alone():
    layers = [cnn.Conv(3), cnn.MaxPool(), cnn.Conv(2), cnn.Activation(jax.nn.relu)]
    body = cnn.Chain(*layers)
    net = cnn.Chain(*layers, cnn.Flatten(), cnn.Dense(2))
    params = net.init(jax.random.key(0), (11, 10, 1))
    images = jax.random.normal(jax.random.key(1), (5, 11, 10, 1))

    @jax.jit
    @jax.vmap
    def compute(images):
        top = explain.top_activating_patches(net, params, images, count=2)  # of relu1, the last stage of images
        body_params = {name: params[name] for name in ("conv1", "conv2")}
        alone = jax.vmap(jax.vmap(body.apply, (None, 0)), (None, 0))(body_params, top.patches)
        return top, alone

    top, alone = jax.tree.map(lambda values: values[0], compute(images[None]))
    assert top.patches.shape == (2, 2, 8, 8, 1)
    assert alone.shape == (2, 2, 1, 1, 2)
    for k in range(2):
        np.testing.assert_allclose(alone[k, :, 0, 0, k], top.values[k], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xo_net", "lenet5", "resnet9"])
def test_top_activating_patches_do_not_depend_on_the_order_of_images(name):
    net, params, images = sample_network(name)
    compute = jax.jit(jax.vmap(lambda images: explain.top_activating_patches(net, params, images, count=2)))
    top = compute(images[None])
    *_, unpooled = (stage for name, stage in explain.stages(net, params, images[0]).items() if "pool" not in name)
    assert top.values.shape == (1, unpooled.shape[-1], 2)
    np.testing.assert_allclose(top.values, compute(images[None, ::-1]).values, rtol=1e-5)


def test_a_feature_without_activation_has_the_first_position():
    net = cnn.Chain(cnn.Conv(2), cnn.Activation(jax.nn.relu), cnn.Flatten())
    params = net.init(jax.random.key(0), (5, 5, 1))
    params["conv1"]["bias"] = jnp.array([-100.0, 0.0])
    images = jax.random.normal(jax.random.key(1), (4, 5, 5, 1))
    top = jax.jit(lambda images: explain.top_activating_patches(net, params, images, count=2))(images)
    np.testing.assert_array_equal(top.values[0], 0)
    np.testing.assert_array_equal([top.y[0], top.x[0]], 0)
    assert np.all(top.values[1] > 0)


def test_kernels_are_images_on_one_scale():
    net = cnn.Chain(cnn.Match(4, (3, 2)), cnn.Residual(cnn.Conv(4, padding="SAME")), cnn.Flatten(), cnn.Dense(2))
    params = net.init(jax.random.key(0), (6, 6, 3))
    images = explain.kernels_as_images(params, stage="match1")
    kernels = np.asarray(params["match1"]["features"])
    assert images.shape == (4, 3, 2, 3)
    np.testing.assert_allclose(images[1] * np.abs(kernels).max(), kernels[..., 1], rtol=1e-6)
    with_another = params | {"conv1": {"kernel": jnp.ones((1, 1, 1, 1))}}
    np.testing.assert_array_equal(explain.kernels_as_images(with_another), images)
    assert explain.kernels_as_images(params, stage="residual1/conv1").shape == (4, 3, 3, 4)
    np.testing.assert_array_equal(explain.kernels_as_images({"conv1": {"kernel": jnp.zeros((1, 1, 1, 2))}}), 0)


@pytest.mark.parametrize("name", NETWORKS)
def test_kernels_are_images_under_jit_and_vmap(name):
    _, params, _ = sample_network(name)
    doubled = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    images = jax.jit(jax.vmap(explain.kernels_as_images))(doubled)
    assert images.shape[1:] == explain.kernels_as_images(params).shape
    np.testing.assert_allclose(images[0], images[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"count": 1.5}, TypeError, "count: .* got 1.5"),
        ({"count": 0}, ValueError, "count: .* got 0"),
        ({}, ValueError, r"count: expected 1 to 3 \(the number of images\), got 9"),
        ({"images": jnp.ones((9, 8, 2))}, ValueError, r"images: expected shape \(N, H, W, C\), got"),
        ({"count": 1, "stage": "x"}, ValueError, r"stage: expected one of \[.*'conv2'\], got 'x'"),
    ],
)
def test_top_activating_patches_names_the_argument(options, error, message):
    net, params, images = sample_network("small")
    with pytest.raises(error, match=message):
        explain.top_activating_patches(**({"net": net, "params": params, "images": images} | options))


def test_kernels_as_images_names_the_layers_with_kernels():
    _, params, _ = sample_network("small")
    with pytest.raises(ValueError, match=r"stage: .*with kernels \['conv1', 'conv2'\], got 'dense1'"):
        explain.kernels_as_images(params, stage="dense1")
    with pytest.raises(ValueError, match=r"stage: .* \[\], got None"):
        explain.kernels_as_images({"a": jnp.ones(3)})
