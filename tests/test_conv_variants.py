"""Transposed, depthwise and separable convolution layers, and networks that go down and up again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import conv, conv_transpose, evaluate, fit
from cnn_jax.layers import (
    Activation,
    Chain,
    Concatenate,
    Conv,
    ConvTranspose,
    DepthwiseConv,
    MaxPool,
    SeparableConv,
    Upsample,
)
from tests.helpers.oracles import noise

KEY = jax.random.key(0)
RELU = Activation(jax.nn.relu)
IMAGE = noise(0, 6, 5, 3)


def init(net, shape):
    return jax.jit(functools.partial(net.init, shape=shape))(KEY)


@pytest.mark.parametrize(
    ("layer", "params", "out"),
    [
        (ConvTranspose(4), {"kernel": (2, 2, 3, 4), "bias": (4,)}, (12, 10, 4)),
        (ConvTranspose(4, 3, stride=(1, 2), padding="SAME", use_bias=False), {"kernel": (3, 3, 3, 4)}, (6, 10, 4)),
        (DepthwiseConv(), {"kernel": (3, 3, 1, 3), "bias": (3,)}, (4, 3, 3)),
        (DepthwiseConv((1, 3), multiplier=2, stride=2, use_bias=False), {"kernel": (1, 3, 1, 6)}, (3, 2, 6)),
        (
            SeparableConv(4, padding="SAME"),
            {"depthwise_conv1": {"kernel": (3, 3, 1, 3)}, "conv1": {"kernel": (1, 1, 3, 4), "bias": (4,)}},
            (6, 5, 4),
        ),
    ],
)
def test_shapes(layer, params, out):
    made = jax.eval_shape(functools.partial(layer.init, shape=IMAGE.shape), KEY)
    assert jax.tree.map(jnp.shape, made) == params
    assert jax.eval_shape(layer.apply, made, IMAGE).shape == out


def test_conv_transpose_layers_pass_their_options_on():
    net = ConvTranspose(4, 3, stride=2, padding="SAME")
    params = init(net, IMAGE.shape) | {"bias": np.arange(4, dtype=np.float32)}
    expected = conv_transpose(IMAGE, params["kernel"], stride=2, padding="SAME") + params["bias"][None, None]
    np.testing.assert_array_equal(net.apply(params, IMAGE), expected)


@pytest.mark.parametrize("options", [{"dilation": 2}, {"stride": 2, "padding": "SAME"}])
def test_depthwise_kernels_see_one_channel_each(options):
    net = DepthwiseConv(2, multiplier=2, **options)
    params = init(net, IMAGE.shape)
    out = net.apply(params, IMAGE)
    for feature in range(6):
        channel = IMAGE[..., feature // 2 : feature // 2 + 1]
        expected = conv(channel, params["kernel"][..., feature : feature + 1], **options)
        np.testing.assert_allclose(out[..., feature], expected[..., 0], atol=1e-5)


def test_a_separable_convolution_is_a_convolution_with_kernels_of_rank_one():
    net = SeparableConv(4)
    params = init(net, IMAGE.shape)
    kernel = params["depthwise_conv1"]["kernel"][:, :, 0, :, None] * params["conv1"]["kernel"]
    np.testing.assert_allclose(net.apply(params, IMAGE), conv(IMAGE, kernel), atol=1e-5)


def test_separable_layers_print_and_compare_by_their_options():
    assert repr(SeparableConv(4, (3, 3), stride=[2, 2])) == "SeparableConv(4, stride=2)"
    assert SeparableConv(4, 3) == SeparableConv(4, (3, 3)) != SeparableConv(4, 5)


@pytest.mark.parametrize(
    ("function", "args", "options", "error", "message"),
    [
        (ConvTranspose, (0,), {}, ValueError, "features: .*0"),
        (ConvTranspose, (2,), {"padding": "FULL"}, ValueError, "padding: .*FULL"),
        (ConvTranspose(2).init, (KEY, (6, 6)), {}, ValueError, r"ConvTranspose: .*\(H, W, C\).*\(6, 6\)"),
        (ConvTranspose, (2,), {"method": "foo"}, ValueError, "method: .*'foo'"),
        (ConvTranspose, (2,), {"kernel_init": None}, TypeError, "kernel_init: expected a function .*, got None"),
        (DepthwiseConv, (), {"use_bias": "no"}, TypeError, "use_bias: expected True or False, got 'no'"),
        (DepthwiseConv, (), {"multiplier": 0}, ValueError, "multiplier: .*0"),
        (DepthwiseConv, (0,), {}, ValueError, "kernel_size: .*0"),
        (DepthwiseConv().init, (KEY, (6, 6)), {}, ValueError, r"DepthwiseConv: .*\(H, W, C\).*\(6, 6\)"),
        (SeparableConv, (0,), {}, ValueError, "features: .*0"),
        (SeparableConv, (2,), {"dilation": 0}, ValueError, "dilation: .*0"),
        (Upsample, (0,), {}, ValueError, "scale: .*0"),
        (Upsample, (2, "cubic"), {}, ValueError, "method: expected one of .*nearest.*, got 'cubic'"),
        (Upsample().apply, ({}, np.ones(3)), {}, ValueError, r"image: expected shape \(H, W\)"),
    ],
)
def test_bad_layers_say_what_is_wrong(function, args, options, error, message):
    with pytest.raises(error, match=message):
        function(*args, **options)


def squared_error(output, image):
    return jnp.mean((output - image) ** 2)


@pytest.mark.slow
def test_an_autoencoder_learns_to_copy_bars():
    """Every image has one white row or column; the code has half as many numbers as the image."""
    bars = -np.ones((16, 8, 8, 1), np.float32)
    for i in range(8):
        bars[i, i] = 1
        bars[8 + i, :, i] = 1
    encoder = [Conv(8, padding="SAME"), RELU, MaxPool(), Conv(8, padding="SAME"), MaxPool()]
    decoder = [ConvTranspose(16), RELU, ConvTranspose(1)]
    net = Chain(*encoder, *decoder)
    options = {"optimizer": optax.adam(0.03), "steps": 100, "batch_size": 16, "progress": False}
    params, history = fit(net, (bars, bars), key=KEY, loss=squared_error, **options)
    assert jax.eval_shape(net.apply, params, bars[0]).shape == (8, 8, 1)
    assert history["loss"][-1] < 0.05 * np.var(bars)


def u_net(features, classes):
    """A U-Net of as many levels as there are numbers of features; each level is a block inside of the one above."""
    inner = []
    for count in reversed(features):
        block = [Conv(count, padding="SAME"), RELU]
        up = [MaxPool(), *inner, ConvTranspose(count)]
        inner = [*block, Concatenate(*up), *block] if inner else block
    return Chain(*inner, Conv(classes, 1))


def pixel_loss(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@pytest.mark.slow
def test_a_u_net_segments_squares():
    """The squares are as bright as the noise around them is on average; only their evenness tells them."""
    generator = np.random.default_rng(0)
    labels = np.zeros((32, 16, 16), np.int32)
    for label, (y, x) in zip(labels, generator.integers(0, 10, (32, 2)), strict=True):
        label[y : y + 6, x : x + 6] = 1
    images = np.where(labels == 1, 0, generator.choice([-1, 1], labels.shape))[..., None].astype(np.float32)
    net = u_net((8, 16), classes=2)
    stages = jax.eval_shape(net.stages, jax.eval_shape(lambda: net.init(KEY, (16, 16, 1))), images[0])
    assert stages["concatenate1/conv_transpose1"].shape == (16, 16, 8)
    assert stages["concatenate1"].shape == (16, 16, 16)
    options = {"optimizer": optax.adam(0.03), "steps": 80, "batch_size": 32, "progress": False}
    params, _ = fit(net, (images, labels), key=KEY, loss=pixel_loss, **options)
    predicted = jax.jit(jax.vmap(net.apply, (None, 0)))(params, images).argmax(-1)
    assert np.mean(predicted == labels) > 0.99


def draw_shapes(key):
    """An image of a square (class 1), a disk (2) and a diamond (3), any of which may cover others, in noise."""
    place_key, size_key, gray_key, noise_key = jax.random.split(key, 4)
    y, x = jnp.mgrid[:64.0, :64.0]
    centers = jax.random.uniform(place_key, (3, 2), minval=8, maxval=56)
    radii = jax.random.uniform(size_key, (3,), minval=6, maxval=14)
    grays = jax.random.uniform(gray_key, (3,), minval=0.4, maxval=1)
    image = jnp.full((64, 64), -0.5)
    labels = jnp.zeros((64, 64), jnp.int32)
    for i in range(3):
        down = jnp.abs(y - centers[i, 0])
        right = jnp.abs(x - centers[i, 1])
        distance = (jnp.maximum(down, right), jnp.hypot(down, right), down + right)[i]
        image = jnp.where(distance < radii[i], grays[i], image)
        labels = jnp.where(distance < radii[i], i + 1, labels)
    return (image + 0.1 * jax.random.normal(noise_key, image.shape))[..., None], labels


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_a_u_net_of_four_levels_tells_shapes_apart():
    net = u_net((8, 16, 32, 64), classes=4)
    images, labels = jax.vmap(draw_shapes)(jax.random.split(jax.random.key(1), 256))
    steps = 1500
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
    params, _ = fit(
        net, draw_shapes, optimizer=optimizer, steps=steps, batch_size=16, key=KEY, loss=pixel_loss, progress=False
    )
    assert evaluate(net, params, (images, labels))["accuracy"] >= 0.99
