"""The primitive: what it becomes under vmap, grad, scan and export, and which algorithm each platform gets."""

from functools import partial
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax._algorithms import ALGORITHMS, METHODS
from cnn_jax._correlate import correlate, correlate_image
from cnn_jax._padding import NO_PADDING
from tests.helpers import oracles
from tests.helpers.oracles import assert_same, noise, whole

PLATFORMS = ("cpu", "cuda", "tpu")
PLAIN: dict[str, Any] = {
    "stride": (1, 1),
    "padding": NO_PADDING,
    "dilation": (1, 1),
    "method": "conv",
    "precision": None,
}


def over_kernels_in_images(conv):
    return jax.vmap(lambda image, kernels: jax.vmap(lambda k: conv(image, k))(kernels), (0, None))


def over_images_in_kernels(conv):
    return jax.vmap(lambda images, kernel: jax.vmap(lambda i: conv(i, kernel))(images), (None, 0), 1)


NESTS = [over_kernels_in_images, over_images_in_kernels]


@pytest.mark.parametrize(
    ("nest", "method"),
    [(over_kernels_in_images, method) for method in METHODS]
    + [(over_images_in_kernels, "auto")]
    + [pytest.param(over_images_in_kernels, method, marks=pytest.mark.slow) for method in METHODS if method != "auto"],
)
def test_vmap_equals_loops_and_is_one_dense_convolution(nest, method):
    images, kernels = whole(0, 3, 6, 5, 2), whole(1, 4, 2, 3, 2, 2)
    conv = partial(cnn.conv, stride=2, padding="SAME", method=method)
    looped = [[oracles.conv(i, k, stride=2, padding="SAME") for k in kernels] for i in images]
    assert_same(jax.jit(nest(conv))(images, kernels), looped, method)
    if method in ("auto", "conv"):
        assert oracles.convolutions(nest(conv), images, kernels) == [True]


def test_vmap_over_pairs_equals_a_loop():
    images, kernels = whole(0, 3, 6, 5, 2), whole(1, 3, 2, 3, 2, 2)
    got = jax.jit(jax.vmap(cnn.conv))(images, kernels)
    looped = [oracles.conv(image, kernel) for image, kernel in zip(images, kernels, strict=True)]
    np.testing.assert_array_equal(got, looped)


@pytest.mark.parametrize("nest", NESTS)
def test_the_gradient_of_shared_kernels_is_dense_too(nest):
    def loss(kernels, images):
        return jnp.sum(nest(cnn.conv)(images, kernels) ** 2)

    images, kernels = whole(0, 3, 6, 5, 1), whole(1, 4, 2, 3, 1, 2)
    assert oracles.convolutions(jax.grad(loss), kernels, images) == [True, True]


@pytest.mark.parametrize(("wanted", "count"), [(0, 2), (1, 2), ((0, 1), 3)])
@pytest.mark.parametrize("method", ["auto", "conv"])
def test_a_gradient_costs_one_convolution_for_each_argument_wanted(method, wanted, count):
    def loss(image, kernel):
        return jnp.sum(cnn.conv(image, kernel, method=method) ** 2)

    args = jnp.ones((5, 5, 1)), jnp.ones((3, 3, 1, 2))
    assert oracles.convolutions(jax.grad(loss, wanted), *args) == [True] * count


WINDOWS = [
    ((3, 3), {"padding": "SAME"}),
    ((1, 1), {"stride": 2}),
    ((2, 4), {"stride": (1, 2), "padding": "SAME"}),
    ((5, 3), {"dilation": (1, 2), "padding": ((2, 2), (0, 1))}),
    ((3, 2), {"stride": 3, "dilation": 2, "padding": ((3, 0), (1, 1))}),
]


@pytest.mark.parametrize(
    ("window", "options", "channels"),
    [
        pytest.param(*case, channels, marks=[] if (i, channels[0]) in {(1, 1), (4, 32)} else [pytest.mark.slow])
        for i, case in enumerate(WINDOWS)
        for channels in [(1, 16), (32, 40)]
    ],
)
def test_gradients_of_a_batch_in_a_scan_equal_the_plain_ones(window, options, channels):
    images, kernel = noise(0, 6, 11, 12, channels[0]), 0.1 * noise(1, *window, *channels)

    def ours(images, kernel):
        return jax.vmap(lambda image: cnn.conv(image, kernel, **options))(images)

    def plain(images, kernel):
        stride, dilation = (tuple(np.broadcast_to(options.get(name, 1), 2)) for name in ("stride", "dilation"))
        padding, layout = options.get("padding", "VALID"), ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            images, kernel, stride, padding, rhs_dilation=dilation, dimension_numbers=layout, precision="highest"
        )

    def gradient(conv):
        return jax.grad(lambda images, kernel: jnp.sum(jnp.sin(conv(images, kernel))), (0, 1))

    def second_gradient(conv):
        return jax.grad(lambda i, k: sum(jnp.sum(jnp.cos(g)) for g in gradient(conv)(i, k)), (0, 1))

    def first_and_second(conv, images, kernel):
        return gradient(conv)(images, kernel), second_gradient(conv)(images, kernel)

    def step(carry, _):
        return carry, first_and_second(ours, *carry)

    in_scan = jax.jit(lambda *args: jax.tree.map(lambda g: g[1], jax.lax.scan(step, args, length=2)[1]))
    expected = jax.jit(partial(first_and_second, plain))(images, kernel)
    for got, want in zip(jax.tree.leaves(in_scan(images, kernel)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize("groups", [1, 2])
def test_arrays_of_numpy_have_the_gradients_of_jax_arrays(groups):
    image, kernel = whole(0, 6, 6, 2), whole(1, 3, 3, 2 // groups, 4)
    cotangent = whole(2, 4, 4, 4)
    _, gradients = jax.vjp(partial(cnn.conv, groups=groups), image, kernel)
    expected = oracles.conv_gradients(image, kernel, cotangent, groups=groups)
    for got, want in zip(gradients(cotangent), expected, strict=True):
        assert isinstance(got, jax.Array)
        np.testing.assert_array_equal(got, want)


def test_correlate_image_divides_and_keeps_the_dtype_of_sums():
    image, kernel = whole(0, 5, 6, 2), whole(1, 3, 2, 2, 3)
    got = correlate_image(jnp.asarray(image, "bfloat16"), jnp.asarray(kernel, "bfloat16"), divisor=4, **PLAIN)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, oracles.conv(image, kernel) / 4)


def test_negative_padding_crops_and_lhs_dilation_spreads():
    image, kernel = whole(0, 4, 5, 1), whole(1, 2, 2, 1, 1)
    spread = np.zeros((7, 5, 1), np.float32)
    spread[::2] = image
    options: dict[str, Any] = PLAIN | {"padding": ((-1, 0), (0, -2)), "lhs_dilation": (2, 1), "channels_first": False}
    expected = oracles.conv(spread[1:, :3], kernel)
    for method in ALGORITHMS:
        options["method"] = method
        got = correlate(jnp.asarray(image)[None], jnp.asarray(kernel), **options)
        assert_same(got[0], expected, method)


IMAGES, FEATURES = noise(0, 3, 8, 8), noise(1, 4, 3, 3)
IMAGE, KERNEL = noise(2, 8, 8, 1), noise(3, 3, 3, 1, 2)


def match_all(images, features):
    return jax.vmap(lambda image: jax.vmap(partial(cnn.match, image))(features))(images)


def text(function, arguments, platform):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(("function", "arguments"), [(cnn.conv, (IMAGE, KERNEL)), (match_all, (IMAGES, FEATURES))])
def test_auto_shifts_one_channel_on_cpu_alone(function, arguments):
    convolves = {platform: "stablehlo.convolution" in text(function, arguments, platform) for platform in PLATFORMS}
    assert convolves == {"cpu": False, "cuda": True, "tpu": True}


@pytest.mark.parametrize(("size", "channels", "kernels"), [(8, 64, 2), (14, 16, 32)])
def test_auto_convolves_many_channels_everywhere(size, channels, kernels):
    arguments = noise(0, size, size, channels), noise(1, 3, 3, channels, kernels)
    assert all("stablehlo.convolution" in text(cnn.conv, arguments, platform) for platform in PLATFORMS)


@pytest.mark.parametrize(("method", "convolves"), [("conv", True), ("shift", False), ("im2col", False), ("fft", False)])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_method_that_is_asked_for_is_taken_everywhere(method, convolves, platform):
    lowered = text(partial(cnn.conv, method=method), (IMAGE, KERNEL), platform)
    assert ("stablehlo.convolution" in lowered) == convolves


def test_an_export_with_symbolic_batch_size_convolves():
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, 8, 8, 1), jnp.float32)
    exported = jax.export.export(jax.jit(jax.vmap(cnn.conv, (0, None))))(images, KERNEL)
    assert "stablehlo.convolution" in exported.mlir_module()
    np.testing.assert_allclose(
        exported.call(noise(0, 2, 8, 8, 1), KERNEL)[1], oracles.conv(noise(0, 2, 8, 8, 1)[1], KERNEL), atol=1e-5
    )
