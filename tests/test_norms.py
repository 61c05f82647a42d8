"""Normalization layers against NumPy, and one of them against PyTorch's numbers."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.layers import Chain, Residual
from cnn_jax.norms import BatchNorm, GroupNorm, LayerNorm, LocalResponseNorm
from tests.helpers.oracles import noise

KEY = jax.random.key(0)
SHAPE = (5, 6, 4)
IMAGES = noise(0, 7, *SHAPE) * 3 + 2
BATCH_NORM = BatchNorm()


def apply_in_training(net, params, images):
    return jax.vmap(functools.partial(net.apply, train=True), (None, 0), axis_name="batch")(params, images)


@jax.jit
def batch_norm_in_training(params, images):
    return apply_in_training(BATCH_NORM, params, images)


def apply_after_training(net, params, images):
    return jax.jit(jax.vmap(net.apply, (None, 0)))(params, images)


def varied(params):
    """Scales and biases that are not 1 and 0."""
    leaves, tree = jax.tree.flatten(params)
    return jax.tree.unflatten(tree, [np.abs(noise(i, *leaf.shape)) + 1 for i, leaf in enumerate(leaves)])


def standardized(x, axes, epsilon=1e-5):
    x = np.asarray(x, np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


@pytest.fixture(scope="module")
def params():
    return varied(BATCH_NORM.init(KEY, SHAPE))


def test_batch_norm_uses_the_batch_in_training(params):
    expected = standardized(IMAGES, (0, 1, 2)) * params["scale"] + params["bias"]
    np.testing.assert_allclose(batch_norm_in_training(params, IMAGES), expected, atol=1e-4)


def test_batch_norm_uses_the_population_afterwards(params):
    expected = (IMAGES - params["mean"]) / np.sqrt(params["variance"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(apply_after_training(BATCH_NORM, params, IMAGES), expected, atol=1e-4)


@pytest.fixture(scope="module")
def gradients(params):
    """Of a weighted sum of the outputs, in parameters and images."""
    weights = noise(5, *IMAGES.shape)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradient(params, images):
        return jnp.sum(weights * batch_norm_in_training(params, images))

    return weights, *gradient(params, jnp.asarray(IMAGES))


def test_statistics_get_no_gradient(gradients):
    _, of_params, _ = gradients
    assert not np.any(of_params["mean"])
    assert not np.any(of_params["variance"])
    assert np.all(of_params["scale"] != 0)


def test_batch_norms_gradient_is_that_of_the_whole_batch(params, gradients):
    weights, _, of_images = gradients

    @jax.jit
    @jax.grad
    def expected(images):
        mean = images.mean((0, 1, 2), keepdims=True)
        variance = ((images - mean) ** 2).mean((0, 1, 2), keepdims=True)
        return jnp.sum(weights * params["scale"][None, None, None] * (images - mean) / jnp.sqrt(variance + 1e-5))

    np.testing.assert_allclose(of_images, expected(jnp.asarray(IMAGES)), atol=2e-4)


def test_a_large_mean_does_not_hide_a_small_variance():
    images = noise(0, *IMAGES.shape) + np.float32(1000)
    got = batch_norm_in_training(BATCH_NORM.init(KEY, SHAPE), images)
    np.testing.assert_allclose(got, standardized(images, (0, 1, 2)), atol=1e-3)


def test_sixteen_bits_are_added_up_in_32():
    images = jnp.asarray(IMAGES, jnp.bfloat16)
    got = batch_norm_in_training(BATCH_NORM.init(KEY, SHAPE), images)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), standardized(images.astype(jnp.float32), (0, 1, 2)), atol=0.03)


@pytest.mark.parametrize("train", [False, True])
def test_stages_show_the_statistics(params, train):
    net = Chain(BATCH_NORM)
    stages_of_batch = jax.vmap(functools.partial(net.stages, train=train), (None, 0), axis_name="batch")
    stages = jax.jit(stages_of_batch)({"batch_norm1": params}, IMAGES)
    assert list(stages) == [f"batch_norm1/{name}" for name in ("mean", "variance", "normalized")] + ["batch_norm1"]
    axes = (0, 1, 2) if train else (1, 2)
    np.testing.assert_allclose(stages["batch_norm1/mean"], IMAGES.mean(axes) + np.zeros((7, 1)), atol=1e-5)
    np.testing.assert_allclose(stages["batch_norm1/variance"], IMAGES.var(axes) + np.zeros((7, 1)), atol=1e-4)


def test_training_without_an_axis_is_refused(params):
    with pytest.raises(ValueError, match=r"BatchNorm: training needs .*axis_name='batch'.*got no axis"):
        BATCH_NORM.apply(params, IMAGES[0], train=True)
    with pytest.raises(ValueError, match="axis_name='batch'"):
        jax.vmap(functools.partial(BATCH_NORM.apply, train=True), (None, 0))(params, IMAGES)


def test_a_sharded_batch_gives_the_same():
    """Two devices need a process whose environment asks for them."""
    code = """
import jax, jax.numpy as jnp, numpy as np
from cnn_jax import BatchNorm
images = np.random.default_rng(0).normal(size=(8, 5, 6, 4)).astype(np.float32)
net = BatchNorm()
params = net.init(jax.random.key(0), (5, 6, 4))
apply = jax.jit(jax.vmap(lambda image: net.apply(params, image, train=True), axis_name="batch"))
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
sharded = jax.device_put(images, jax.NamedSharding(mesh, jax.P("data")))
assert len(sharded.sharding.device_set) == 2
np.testing.assert_allclose(apply(sharded), apply(images), atol=1e-5)
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("layer", [BatchNorm(), GroupNorm(1), LayerNorm(), LocalResponseNorm()])
def test_integers_become_floats(layer):
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    params = varied(layer.init(KEY, image.shape))
    out = layer.apply(params, image)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, layer.apply(params, image.astype(np.float32)))


@pytest.mark.parametrize("layer", [BatchNorm(), LayerNorm(), GroupNorm(1)])
def test_other_channels_are_refused(layer):
    params = jax.eval_shape(lambda key: layer.init(key, SHAPE), KEY)
    with pytest.raises(ValueError, match=r"params: expected bias of shape \(1,\) for an input of .*, got \(4,\)"):
        jax.eval_shape(layer.apply, params, IMAGES[0, ..., :1])


def test_group_norm():
    net = GroupNorm(2)
    params = varied(net.init(KEY, SHAPE))
    grouped = standardized(IMAGES.reshape(7, 5, 6, 2, 2), (1, 2, 4)).reshape(IMAGES.shape)
    out = apply_after_training(net, params, IMAGES)
    np.testing.assert_allclose(out, grouped * params["scale"] + params["bias"], atol=1e-4)
    np.testing.assert_allclose(apply_in_training(net, params, IMAGES), out, atol=1e-5)


@pytest.mark.parametrize("shape", [SHAPE, (4,)])
def test_layer_norm(shape):
    net = LayerNorm()
    params, images = varied(net.init(KEY, shape)), noise(0, 7, *shape)
    expected = standardized(images, -1) * params["scale"] + params["bias"]
    np.testing.assert_allclose(apply_after_training(net, params, images), expected, atol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_local_response_norm(size):
    net = LocalResponseNorm(size, alpha=0.5, beta=0.75, k=2.0)
    squares = np.pad(IMAGES.astype(np.float64) ** 2, [(0, 0)] * 3 + [(size // 2, (size - 1) // 2)])
    sums = sum(squares[..., i : i + 4] for i in range(size))
    expected = IMAGES / (2 + 0.5 / size * sums) ** 0.75
    np.testing.assert_allclose(apply_after_training(net, {}, IMAGES), expected, rtol=1e-5)


def test_local_response_norm_as_pytorch_computes_it():
    """torch.nn.LocalResponseNorm(2, alpha=1.0, beta=1.0, k=1.0) of the channels 1, 2, 3."""
    out = LocalResponseNorm(2, alpha=1.0, beta=1.0).apply({}, jnp.array([[[1.0, 2.0, 3.0]]]))
    np.testing.assert_allclose(out.ravel(), [0.666667, 0.571429, 0.4], atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        BatchNorm(use_scale=False, use_bias=False),
        GroupNorm(2, use_scale=False, use_bias=False),
        LayerNorm(use_scale=False, use_bias=False),
        LocalResponseNorm(),
    ],
)
def test_layers_without_scale_and_bias(layer):
    net = Chain(layer)
    params = net.init(KEY, SHAPE)
    assert not {"scale", "bias"} & params.get(f"{layer.name}1", {}).keys()
    assert jax.eval_shape(net.apply, params, IMAGES[0]).shape == SHAPE


@pytest.mark.parametrize("make", [BatchNorm, functools.partial(GroupNorm, 2), LayerNorm])
def test_bad_epsilons_and_shapes(make):
    for epsilon in (-1e-5, np.nan, np.inf):
        with pytest.raises(ValueError, match="epsilon: expected a finite number of at least 0"):
            make(epsilon=epsilon)
    with pytest.raises(TypeError, match="epsilon: expected a finite number"):
        make(epsilon="small")
    with pytest.raises(ValueError, match=r"shape: expected that of an image or a vector, got \(\)"):
        make().init(KEY, ())


def test_bad_groups():
    with pytest.raises(ValueError, match="groups: expected a divisor of the 4 channels, got 3"):
        GroupNorm(3).init(KEY, SHAPE)


def test_batch_norm_without_statistics_refuses_to_evaluate():
    net = Chain(Residual(BATCH_NORM))
    params = net.init(KEY, SHAPE)
    message = r"params: expected residual1/batch_norm1/variance .* never taken; call calibrate after training"
    for refuses, images in ((net.apply, IMAGES[0]), (net.stages, IMAGES[0]), (jax.vmap(net.apply, (None, 0)), IMAGES)):
        with pytest.raises(ValueError, match=message):
            refuses(params, images)


def test_batch_norm_without_statistics_gives_nan_in_compiled_programs_and_after_weight_decay():
    params = BATCH_NORM.init(KEY, SHAPE)
    decayed = params | {"variance": params["variance"] * 1e-9}
    assert np.isnan(apply_after_training(BATCH_NORM, decayed, IMAGES)).all()
    with pytest.raises(ValueError, match="never taken"):
        BATCH_NORM.apply(decayed, IMAGES[0])


def test_statistics_of_earlier_versions_are_taken_as_they_are(params):
    with jax.debug_nans(True):
        out = apply_after_training(BATCH_NORM, params | {"variance": jnp.zeros(4)}, IMAGES)
    assert np.isfinite(out).all()
