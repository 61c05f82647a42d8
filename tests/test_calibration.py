"""The population's statistics of BatchNorm, as `calibrate` sets them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.layers import Activation, Chain, Conv, Dense, Dropout, Flatten, Layer, Residual
from cnn_jax.norms import BatchNorm, calibrate
from cnn_jax.training import fit
from tests.helpers.oracles import noise

KEY = jax.random.key(0)
IMAGES = noise(0, 7, 5, 6, 4) * 3 + 2
# More than nine BatchNorms: in the order of names, batch_norm10 comes before batch_norm2.
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


@pytest.mark.parametrize("batch_size", [pytest.param(3, marks=pytest.mark.slow), 500])
def test_calibrated_layers_standardize_the_population(batch_size):
    """Over all images every BatchNorm's output, before scale and bias, has mean 0 and variance 1; dropout is off."""
    params = jax.jit(lambda key: NET.init(key, (5, 6, 4)))(KEY)
    params = calibrate(NET, params, IMAGES, batch_size=batch_size)
    params = jax.jit(lambda params: params)(params)  # whatever the order of names
    stages = jax.jit(jax.vmap(NET.stages, (None, 0)))(params, IMAGES)
    names = [name for name in stages if name.endswith("/normalized")]
    assert len(names) == 11
    for name in names:
        np.testing.assert_allclose(np.mean(stages[name], (0, 1, 2)), 0, atol=1e-3, err_msg=name)
        np.testing.assert_allclose(np.var(stages[name], (0, 1, 2)), 1, atol=2e-3, err_msg=name)


@pytest.mark.parametrize(("mean", "deviation"), [(8, 1e-3), (100, 0.1), (1e4, 1)])
def test_a_large_mean_does_not_hide_the_populations_variance(mean, deviation):
    images = (mean + deviation * noise(0, 49, 4, 4, 1).astype(np.float64)).astype(np.float32)
    net = BatchNorm()
    params = calibrate(net, net.init(KEY, (4, 4, 1)), images, batch_size=7)
    np.testing.assert_allclose(params["variance"], images.astype(np.float64).var(), rtol=0.02)


def test_the_last_batch_may_be_smaller():
    images = noise(0, 8, 4, 4, 1)
    net = BatchNorm()
    params = calibrate(net, net.init(KEY, (4, 4, 1)), images, batch_size=7)
    np.testing.assert_allclose(params["mean"], images.mean(), atol=1e-6)
    np.testing.assert_allclose(params["variance"], images.var(), rtol=1e-5)


GRAY_NET = Chain(Conv(2), BatchNorm(), Flatten(), Dense(2))


def test_calibration_takes_gray_images_and_leaves_other_parameters():
    params = GRAY_NET.init(KEY, (5, 6, 1))
    calibrated = calibrate(GRAY_NET, params, IMAGES[..., 0])
    assert np.any(calibrated["batch_norm1"]["mean"] != params["batch_norm1"]["mean"])
    assert not np.any(params["batch_norm1"]["mean"])
    np.testing.assert_array_equal(calibrated["conv1"]["kernel"], params["conv1"]["kernel"])


def test_a_network_without_batch_norm_keeps_its_parameters():
    net = Chain(Conv(2), Flatten(), Dense(2))
    params = net.init(KEY, (5, 6, 1))
    assert calibrate(net, params, IMAGES[..., 0]) is params


def test_a_list_of_images_is_taken():
    net = BatchNorm()
    calibrated = calibrate(net, net.init(KEY, (5, 6, 4)), list(IMAGES))
    np.testing.assert_allclose(calibrated["mean"], IMAGES.mean((0, 1, 2)), rtol=1e-5)


def test_bad_images_and_batch_sizes():
    params = jax.eval_shape(lambda key: GRAY_NET.init(key, (5, 6, 1)), KEY)
    with pytest.raises(ValueError, match="batch_size: expected at least 1, got -1"):
        calibrate(GRAY_NET, params, IMAGES[..., 0], batch_size=-1)
    with pytest.raises(ValueError, match="images: expected at least one"):
        calibrate(GRAY_NET, params, IMAGES[:0])
    for images in (IMAGES[0, 0], IMAGES[None], 3.0):
        with pytest.raises(ValueError, match=r"images: expected shape \(N, H, W\) or \(N, H, W, C\)"):
            calibrate(GRAY_NET, params, images)


def test_a_batch_norm_whose_input_is_hidden_is_refused():
    inner = Chain(Conv(2), BatchNorm())
    net = Chain(BatchNorm(), Layer(inner.init, inner.apply, "hidden"))
    with pytest.raises(
        ValueError, match=r"BatchNorm at params\['hidden1'\]\['batch_norm1'\] is inside a Layer without"
    ):
        calibrate(net, net.init(KEY, (5, 6, 4)), IMAGES)
    with pytest.raises(ValueError, match="inside a Layer without"):
        fit(net, (IMAGES, IMAGES), optimizer=optax.sgd(0.1), steps=1, batch_size=2, key=KEY, loss=optax.l2_loss)
    shown = Chain(BatchNorm(), Layer(inner.init, inner.apply, "shown", inner.stages))
    params = calibrate(shown, shown.init(KEY, (5, 6, 4)), IMAGES)
    assert np.all(params["shown1"]["batch_norm1"]["mean"] != 0)


def test_parameters_of_a_users_layer_may_have_the_names_of_statistics():
    def init(key, shape):
        return {"mean": jnp.ones(shape[-1]), "variance": jnp.ones(shape[-1])}

    def apply(params, image, *, train=False, key=None):
        return image * params["variance"][None, None] + params["mean"][None, None]

    net = Chain(BatchNorm(), Layer(init, apply, "gaussian"))
    params = calibrate(net, net.init(KEY, (5, 6, 4)), IMAGES)
    np.testing.assert_array_equal(params["gaussian1"]["mean"], 1)


def test_a_mask_is_not_dropped():
    net = BatchNorm()
    with pytest.raises(TypeError, match="images: expected a plain array, got a MaskedArray"):
        calibrate(net, net.init(KEY, (5, 6, 4)), np.ma.masked_less(IMAGES, 0))
