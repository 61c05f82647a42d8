"""Normalising layers against NumPy, one of them against PyTorch's numbers, and the population's statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import layers
from cnn_jax.layers import Activation, Chain, Conv, Dense, Dropout, Flatten, Residual
from cnn_jax.norms import BatchNorm, GroupNorm, LayerNorm, LocalResponseNorm, calibrate
from tests.helpers.oracles import noise

KEY = jax.random.key(0)
IMAGES = noise(0, 7, 5, 6, 4) * 3 + 2


def trained(net, params, images, **options):
    apply = functools.partial(net.apply, train=True, **options)
    return jax.jit(jax.vmap(apply, (None, 0), axis_name="batch"))(params, images)


def plain(net, params, images):
    return jax.vmap(net.apply, (None, 0))(params, images)


def varied(params):
    """Scales and biases that are not 1 and 0."""
    leaves, tree = jax.tree.flatten(params)
    return jax.tree.unflatten(tree, [np.abs(noise(i, *leaf.shape)) + 1 for i, leaf in enumerate(leaves)])


def normalized(x, axes, epsilon=1e-5):
    x = np.asarray(x, np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def test_batch_norm_uses_the_batch_in_training():
    net = BatchNorm()
    params = varied(net.init(KEY, (5, 6, 4)))
    expected = normalized(IMAGES, (0, 1, 2)) * params["scale"] + params["bias"]
    np.testing.assert_allclose(trained(net, params, IMAGES), expected, atol=1e-4)


def test_batch_norm_uses_the_population_afterwards():
    net = BatchNorm()
    params = varied(net.init(KEY, (5, 6, 4)))
    expected = (IMAGES - params["mean"]) / np.sqrt(params["variance"] + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(plain(net, params, IMAGES), expected, atol=1e-4)


def test_statistics_get_no_gradient():
    net = BatchNorm()
    params = varied(net.init(KEY, (5, 6, 4)))
    gradient = jax.grad(lambda p: jnp.sum(trained(net, p, IMAGES) ** 3))(params)
    assert not np.any(gradient["mean"])
    assert not np.any(gradient["variance"])
    assert np.all(gradient["scale"] != 0)


def test_batch_norms_gradient_is_that_of_the_whole_batch():
    net = BatchNorm(use_scale=False, use_bias=False)
    params, weights = net.init(KEY, (5, 6, 4)), jnp.asarray(noise(5, *IMAGES.shape))

    def whole(images):
        mean = images.mean((0, 1, 2), keepdims=True)
        variance = ((images - mean) ** 2).mean((0, 1, 2), keepdims=True)
        return jnp.sum(weights * (images - mean) / jnp.sqrt(variance + 1e-5))

    got = jax.grad(lambda images: jnp.sum(weights * trained(net, params, images)))(jnp.asarray(IMAGES))
    np.testing.assert_allclose(got, jax.grad(whole)(jnp.asarray(IMAGES)), atol=1e-4)


def test_a_large_mean_does_not_hide_a_small_variance():
    images = noise(0, 7, 5, 6, 1) + np.float32(1000)
    net = BatchNorm()
    np.testing.assert_allclose(trained(net, net.init(KEY, (5, 6, 1)), images), normalized(images, (0, 1, 2)), atol=1e-3)


def test_sixteen_bits_are_added_up_in_32():
    net = BatchNorm()
    images = jnp.asarray(IMAGES, jnp.bfloat16)
    got = trained(net, net.init(KEY, (5, 6, 4)), images)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), normalized(images.astype(jnp.float32), (0, 1, 2)), atol=0.03)


@pytest.mark.parametrize("train", [False, True])
def test_stages_show_the_statistics(train):
    net = Chain(BatchNorm())
    params = net.init(KEY, (5, 6, 4))
    stages = jax.vmap(functools.partial(net.stages, train=train), (None, 0), axis_name="batch")(params, IMAGES)
    assert list(stages) == [f"batch_norm1/{name}" for name in ("mean", "variance", "normalized")] + ["batch_norm1"]
    axes = (0, 1, 2) if train else (1, 2)
    np.testing.assert_allclose(stages["batch_norm1/mean"], IMAGES.mean(axes) + np.zeros((7, 1)), atol=1e-5)
    np.testing.assert_allclose(stages["batch_norm1/variance"], IMAGES.var(axes) + np.zeros((7, 1)), atol=1e-4)


def test_training_without_an_axis_is_refused():
    net = BatchNorm()
    params = net.init(KEY, (5, 6, 4))
    with pytest.raises(ValueError, match=r"BatchNorm: in training.*axis_name='batch'"):
        net.apply(params, IMAGES[0], train=True)
    with pytest.raises(ValueError, match="axis_name='batch'"):
        jax.vmap(functools.partial(net.apply, train=True), (None, 0))(params, IMAGES)


def test_a_sharded_batch_gives_the_same():
    """Two devices need a process of their own: see the environment of this one's script."""
    import os
    import subprocess
    import sys

    code = """
import jax, jax.numpy as jnp, numpy as np
from cnn_jax import BatchNorm
images = np.random.default_rng(0).normal(size=(8, 5, 6, 4)).astype(np.float32)
net = BatchNorm()
params = net.init(jax.random.key(0), (5, 6, 4))
apply = jax.jit(jax.vmap(lambda image: net.apply(params, image, train=True), axis_name="batch"))
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
spread = jax.device_put(images, jax.NamedSharding(mesh, jax.P("data")))
assert len(spread.sharding.device_set) == 2
np.testing.assert_allclose(apply(spread), apply(images), atol=1e-5)
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


NET = Chain(
    Conv(3),
    BatchNorm(),
    Activation(jax.nn.relu),
    Residual(Conv(3, padding="SAME"), BatchNorm(use_scale=False)),
    Dropout(0.5),
    *[layer for _ in range(9) for layer in (Conv(3, 1), BatchNorm())],
    Flatten(),
    Dense(2),
)


@pytest.mark.parametrize("batch_size", [3, 500])
def test_calibrated_layers_normalise_the_population(batch_size):
    """Every BatchNorm's output, before scale and bias, has mean 0 and variance 1 over all images; dropout is off."""
    params = calibrate(NET, NET.init(KEY, (5, 6, 4)), IMAGES, batch_size=batch_size)
    params = jax.jit(lambda params: params)(params)  # whatever the order of names
    stages = jax.vmap(NET.stages, (None, 0))(params, IMAGES)
    names = [name for name in stages if name.endswith("/normalized")]
    assert len(names) == 11
    for name in names:
        np.testing.assert_allclose(stages[name].mean((0, 1, 2)), 0, atol=1e-3, err_msg=name)
        np.testing.assert_allclose(stages[name].var((0, 1, 2)), 1, atol=2e-3, err_msg=name)


@pytest.mark.parametrize(("mean", "deviation"), [(8, 1e-3), (100, 0.1), (1e4, 1)])
def test_a_large_mean_does_not_hide_the_populations_variance(mean, deviation):
    images = (mean + deviation * noise(0, 50, 4, 4, 1).astype(np.float64)).astype(np.float32)
    net = BatchNorm()
    params = calibrate(net, net.init(KEY, (4, 4, 1)), images, batch_size=7)
    np.testing.assert_allclose(params["variance"], images.astype(np.float64).var(), rtol=0.02)


@pytest.mark.parametrize("layer", [BatchNorm(), GroupNorm(1), LayerNorm(), LocalResponseNorm()])
def test_integers_become_floats(layer):
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    params = layer.init(KEY, image.shape)
    out = layer.apply(params, image)
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, layer.apply(params, image.astype(np.float32)))


def test_other_channels_are_refused():
    for layer in (BatchNorm(), LayerNorm(), GroupNorm(1)):
        with pytest.raises(ValueError, match="image: expected the 4 channels of the parameters, got 1"):
            layer.apply(layer.init(KEY, (5, 6, 4)), IMAGES[0, ..., :1])


def test_calibration_takes_grey_images_and_leaves_other_parameters():
    net = Chain(Conv(2), BatchNorm(), Flatten(), Dense(2))
    params = net.init(KEY, (5, 6, 1))
    new = calibrate(net, params, IMAGES[..., 0])
    assert np.any(new["batch_norm1"]["mean"] != params["batch_norm1"]["mean"])
    assert not np.any(params["batch_norm1"]["mean"])
    np.testing.assert_array_equal(new["conv1"]["kernel"], params["conv1"]["kernel"])
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got -1"):
        calibrate(net, params, IMAGES[..., 0], batch_size=-1)
    plain_net = Chain(Conv(2), Flatten(), Dense(2))
    params = plain_net.init(KEY, (5, 6, 1))
    assert calibrate(plain_net, params, IMAGES[..., 0]) is params
    with pytest.raises(ValueError, match="images: expected at least one"):
        calibrate(net, new, IMAGES[:0])


def test_group_norm():
    net = GroupNorm(2)
    params = varied(net.init(KEY, (5, 6, 4)))
    grouped = normalized(IMAGES.reshape(7, 5, 6, 2, 2), (1, 2, 4)).reshape(IMAGES.shape)
    np.testing.assert_allclose(plain(net, params, IMAGES), grouped * params["scale"] + params["bias"], atol=1e-4)
    np.testing.assert_allclose(trained(net, params, IMAGES), plain(net, params, IMAGES), atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 6, 4), (4,)])
def test_layer_norm(shape):
    net = LayerNorm()
    params, images = varied(net.init(KEY, shape)), noise(0, 7, *shape)
    expected = normalized(images, -1) * params["scale"] + params["bias"]
    np.testing.assert_allclose(plain(net, params, images), expected, atol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_local_response_norm(size):
    net = LocalResponseNorm(size, alpha=0.5, beta=0.75, k=2.0)
    squares = np.pad(IMAGES.astype(np.float64) ** 2, [(0, 0)] * 3 + [(size // 2, (size - 1) // 2)])
    around = sum(squares[..., i : i + 4] for i in range(size))
    np.testing.assert_allclose(plain(net, {}, IMAGES), IMAGES / (2 + 0.5 / size * around) ** 0.75, rtol=1e-5)


def test_local_response_norm_as_pytorch_computes_it():
    """torch.nn.LocalResponseNorm(2, alpha=1.0, beta=1.0, k=1.0) of the channels 1, 2, 3."""
    out = LocalResponseNorm(2, alpha=1.0, beta=1.0).apply({}, jnp.array([[[1.0, 2.0, 3.0]]]))
    np.testing.assert_allclose(out.ravel(), [0.666667, 0.571429, 0.4], atol=1e-5)


def test_layers_without_parameters():
    for layer in (
        BatchNorm(use_scale=False, use_bias=False),
        GroupNorm(2, use_scale=False, use_bias=False),
        LocalResponseNorm(),
    ):
        assert not {"scale", "bias"} & layer.init(KEY, (5, 6, 4)).keys()
        assert layers.Chain(layer).apply(layers.Chain(layer).init(KEY, (5, 6, 4)), IMAGES[0]).shape == (5, 6, 4)


@pytest.mark.parametrize("make", [BatchNorm, functools.partial(GroupNorm, 2), LayerNorm])
def test_bad_epsilons_and_shapes(make):
    for epsilon in (-1e-5, np.nan, np.inf):
        with pytest.raises(ValueError, match="epsilon: expected a finite number of at least 0"):
            make(epsilon=epsilon)
    with pytest.raises(TypeError, match="epsilon: expected a finite number"):
        make(epsilon="small")
    with pytest.raises(ValueError, match=r"shape: expected that of an image or a vector, got \(\)"):
        make().init(KEY, ())


def test_calibration_wants_images():
    net = BatchNorm()
    params = net.init(KEY, (5, 6, 4))
    listed = calibrate(net, params, list(IMAGES))
    np.testing.assert_allclose(listed["mean"], IMAGES.mean((0, 1, 2)), rtol=1e-5)
    for wrong in (IMAGES[0, 0], IMAGES[None], 3.0):
        with pytest.raises(ValueError, match=r"images: expected shape \(N, H, W\) or \(N, H, W, C\)"):
            calibrate(net, params, wrong)


def test_a_batch_norm_that_no_stage_shows_is_refused():
    inner = Chain(Conv(2), BatchNorm())
    hidden = layers.Layer(inner.init, inner.apply, "hidden")
    net = Chain(BatchNorm(), hidden)
    with pytest.raises(ValueError, match=r"BatchNorm at params\['hidden1'\]\['batch_norm1'\]"):
        calibrate(net, net.init(KEY, (5, 6, 4)), IMAGES)
    shown = Chain(BatchNorm(), layers.Layer(inner.init, inner.apply, "shown", inner.parts))
    params = calibrate(shown, shown.init(KEY, (5, 6, 4)), IMAGES)
    assert np.all(params["shown1"]["batch_norm1"]["mean"] != 0)


def test_bad_groups():
    with pytest.raises(ValueError, match="groups: expected a divisor of the 4 channels, got 3"):
        GroupNorm(3).init(KEY, (5, 6, 4))


def test_standardized_kernels():
    net = Conv(8, 3, standardize=True)
    params = jax.tree.map(lambda x: 5 * x + 3, net.init(KEY, (5, 6, 4)))
    kernel = np.asarray(params["kernel"], np.float64)
    standard = (kernel - kernel.mean((0, 1, 2))) / kernel.std((0, 1, 2))
    expected = Conv(8, 3).apply({"kernel": jnp.asarray(standard, jnp.float32), "bias": params["bias"]}, IMAGES[0])
    np.testing.assert_allclose(net.apply(params, IMAGES[0]), expected, rtol=1e-4, atol=1e-4)
    small = params | {"kernel": params["kernel"] / 1000}
    np.testing.assert_allclose(net.apply(small, IMAGES[0]), expected, rtol=1e-3, atol=1e-3)
    half = {name: leaf.astype(jnp.bfloat16) for name, leaf in params.items()}
    rounded = np.asarray(half["kernel"], np.float64)
    standard = (rounded - rounded.mean((0, 1, 2))) / rounded.std((0, 1, 2))
    expected = Conv(8, 3).apply(half | {"kernel": jnp.asarray(standard, jnp.bfloat16)}, IMAGES[0].astype(jnp.bfloat16))
    got = net.apply(half, IMAGES[0].astype(jnp.bfloat16))
    np.testing.assert_allclose(got.astype(jnp.float32), expected.astype(jnp.float32), rtol=0.02, atol=0.1)
    with pytest.raises(ValueError, match="standardize: expected kernels of several numbers"):
        Conv(3, 1, standardize=True).init(KEY, (5, 6, 1))
