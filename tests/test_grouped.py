"""Grouped convolutions and pairs of images and kernels, under every transformation."""

from functools import partial
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cnn_jax as cnn
from cnn_jax._correlate import correlate_image
from cnn_jax._grouped import ALGORITHMS_ON_CPU, grouped_correlate, grouped_dispatch
from tests.helpers import oracles
from tests.helpers.oracles import LAYOUTS, layouts, noise, seeds, whole

PLATFORMS = ("cpu", "cuda", "tpu")
DILATED: list[dict[str, Any]] = [
    layout | {"dilation": dilation} for layout, dilation in zip(LAYOUTS, [1, (1, 2), 1, (2, 1)], strict=True)
]
PLAIN: dict[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "lhs_dilation": (1, 1)}


def value_and_gradients(image, kernel, cotangent, **options):
    """conv, and its gradients by image and kernel."""
    out, transposed = jax.vjp(partial(cnn.conv, **options), image, kernel)
    return out, *transposed(cotangent)


def assert_equals_the_reference(layout, groups, channels, kernels, seed, method="auto"):
    options = dict(layout)
    shape, window = options.pop("shape"), options.pop("window")
    image = whole(seed, *shape, groups * channels)
    kernel = whole(seed + 1, *window, channels, groups * kernels)
    out = oracles.conv(image, kernel, groups=groups, **options)
    cotangent = whole(seed + 2, *out.shape)
    expected = out, *oracles.conv_gradients(image, kernel, cotangent, groups=groups, **options)
    run = jax.jit(partial(value_and_gradients, groups=groups, method=method, **options))
    for got, want in zip(run(image, kernel, cotangent), expected, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("layout", "sizes"),
    list(zip(DILATED, [(9, 1, 1), (4, 1, 3), (2, 1, 1), (3, 2, 3)], strict=True)),
    ids=["depthwise", "a multiplier", "few groups", "several channels and kernels"],
)
def test_groups_and_their_gradients_equal_the_reference(layout, sizes):
    assert_equals_the_reference(layout, *sizes, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["auto", "conv"])
@given(
    layout=layouts(dilated=True, wide_border=True),
    sizes=st.sampled_from([(2, 1, 1), (8, 1, 1), (5, 1, 2), (3, 3, 1), (2, 2, 3), (16, 1, 1)]),
    seed=seeds,
)
@settings(max_examples=15)
def test_groups_and_their_gradients_equal_the_reference_for_drawn_layouts(method, layout, sizes, seed):
    assert_equals_the_reference(layout, *sizes, seed=seed, method=method)


@pytest.mark.parametrize("algorithm", ALGORITHMS_ON_CPU)
def test_every_algorithm_equals_xlas_convolution(algorithm):
    image, kernel = jnp.asarray(whole(0, 2, 7, 6, 4, 2)), jnp.asarray(whole(1, 3, 2, 4, 2, 3))
    for kernel_gradient in (False, True):
        options: dict[str, Any] = PLAIN | {"kernel_gradient": kernel_gradient, "divisor": 2, "precision": None}
        plain = jax.jit(partial(grouped_dispatch, method="conv", **options))(image, kernel)
        got = jax.jit(partial(ALGORITHMS_ON_CPU[algorithm], **options))(image, kernel)
        np.testing.assert_array_equal(got, plain)


IMAGES, KERNELS = noise(0, 3, 6, 7, 8), noise(1, 2, 3, 2, 1, 8)
DEPTHWISE = partial(cnn.conv, groups=8, padding="SAME")
REFERENCE = partial(oracles.conv, groups=8, padding="SAME")


def test_vmap_over_images_kernels_pairs_and_both_equals_loops():
    @jax.jit
    def mapped(images, kernels):
        over_images = jax.vmap(DEPTHWISE, (0, None))(images, kernels[0])
        over_kernels = jax.vmap(DEPTHWISE, (None, 0))(images[0], kernels)
        pairs = jax.vmap(DEPTHWISE)(images[:2], kernels)
        both = jax.vmap(lambda image: jax.vmap(lambda kernel: DEPTHWISE(image, kernel))(kernels))(images)
        return over_images, over_kernels, pairs, both

    table = np.array([[REFERENCE(image, kernel) for kernel in KERNELS] for image in IMAGES])
    expected = table[:, 0], table[0], np.stack([table[0, 0], table[1, 1]]), table
    for got, want in zip(mapped(IMAGES, KERNELS), expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_vmap_of_a_batch_over_kernels_is_one_grouped_convolution():
    def networks(images, kernels):
        return jax.vmap(lambda kernel: jax.vmap(lambda image: cnn.conv(image, kernel))(images))(kernels)

    def second_layers(images, kernels):
        return jax.vmap(lambda image, kernel: jax.vmap(lambda i: cnn.conv(i, kernel))(image))(images, kernels)

    images, kernels = noise(0, 2, 3, 5, 6, 4), noise(1, 2, 3, 3, 4, 2)
    assert oracles.convolutions(networks, images[0], kernels) == [True]
    assert oracles.convolutions(second_layers, images, kernels) == [False]
    expected = [[oracles.conv(image, kernel) for image in batch] for batch, kernel in zip(images, kernels, strict=True)]
    np.testing.assert_allclose(jax.jit(second_layers)(images, kernels), expected, atol=1e-4)


def test_derivatives_of_every_kind_agree_with_those_of_xlas_convolution():
    def derivatives(conv, images, kernel):
        def loss(images, kernel):
            return jnp.sum(jnp.sin(jax.vmap(conv, (0, None))(images, kernel)))

        gradient = jax.grad(loss, (0, 1))
        tangents = jnp.cos(images), jnp.cos(kernel)
        first = gradient(images, kernel)
        forward = jax.jvp(loss, (images, kernel), tangents)
        second = jax.jvp(gradient, (images, kernel), tangents)[1]
        return first, forward, second

    def plain(image, kernel):
        layout = "NHWC", "HWIO", "NHWC"
        return jax.lax.conv_general_dilated(
            image[None], kernel, (2, 1), "SAME", rhs_dilation=(1, 2), dimension_numbers=layout, feature_group_count=8
        )[0]

    def in_scan(images, kernel):
        def step(carry, _):
            return carry, derivatives(
                partial(cnn.conv, groups=8, padding="SAME", stride=(2, 1), dilation=(1, 2)), *carry
            )

        return jax.tree.map(lambda values: values[1], jax.lax.scan(step, (images, kernel), length=2)[1])

    expected = jax.jit(partial(derivatives, plain))(IMAGES, KERNELS[0])
    for got, want in zip(jax.tree.leaves(jax.jit(in_scan)(IMAGES, KERNELS[0])), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


def test_16_bit_floats_are_summed_in_float32():
    image, kernel = jnp.asarray(whole(0, 5, 6, 8), "bfloat16"), jnp.asarray(whole(1, 3, 3, 1, 8), "bfloat16")
    out, by_image, by_kernel = value_and_gradients(image, kernel, jnp.ones((3, 4, 8), "bfloat16"), groups=8)
    assert {array.dtype for array in (out, by_image, by_kernel)} == {jnp.dtype("bfloat16")}
    weights = jnp.moveaxis(kernel, 3, 2)[..., None]
    sums = grouped_correlate(image[None, ..., None], weights, method="auto", precision=None, **PLAIN)
    assert sums.dtype == jnp.float32
    np.testing.assert_array_equal(sums[0, ..., 0], oracles.conv(image, kernel, groups=8))


def lowered(function, arguments, platform):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_accelerators_convolve_in_groups_and_the_cpu_does_not(platform):
    def loss(image, kernel):
        return jnp.sum(DEPTHWISE(image, kernel) ** 2)

    text = lowered(jax.grad(loss, (0, 1)), (IMAGES[0], KERNELS[0]), platform)
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    counts = [("feature_group_count = 8" in line, "batch_group_count = 8" in line) for line in lines]
    assert sorted(counts) == ([] if platform == "cpu" else [(False, True), (True, False), (True, False)])


@pytest.mark.parametrize("method", ["shift", "im2col", "fft"])
def test_a_method_that_is_asked_for_is_taken_for_pairs(method):
    pairs = jax.vmap(partial(cnn.conv, method=method))
    assert "stablehlo.convolution" not in lowered(pairs, (noise(0, 2, 5, 6, 1), noise(1, 2, 3, 3, 1, 2)), "cuda")


def test_single_kernels_of_pairs_give_maps():
    images, kernels = whole(0, 3, 5, 6, 2), whole(1, 3, 2, 3, 2, 1)
    options: dict[str, Any] = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "method": "auto", "precision": None}
    run = jax.vmap(partial(correlate_image, divisor=2, **options))
    expected = [oracles.conv(image, kernel) / 2 for image, kernel in zip(images, kernels, strict=True)]
    np.testing.assert_array_equal(jax.jit(run)(images, kernels), expected)


@pytest.mark.parametrize("pairs", [False, True])
def test_exports_with_a_symbolic_batch_size(pairs):
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *IMAGES.shape[1:]), jnp.float32)
    kernels = jax.ShapeDtypeStruct((batch, *KERNELS.shape[1:]), jnp.float32) if pairs else KERNELS[1]
    exported = jax.export.export(jax.jit(jax.vmap(DEPTHWISE, (0, 0 if pairs else None))))(images, kernels)
    got = exported.call(IMAGES[:2], KERNELS if pairs else KERNELS[1])
    np.testing.assert_allclose(got[1], REFERENCE(IMAGES[1], KERNELS[1]), atol=1e-5)
