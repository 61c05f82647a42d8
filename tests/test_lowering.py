"""Everything compiles for platforms that this machine does not have, and each platform gets its own algorithm."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax.warping import affine, elastic
from tests.helpers.oracles import noise

METHODS = ("auto", "conv", "shift", "im2col", "fft")
PLATFORMS = ("cpu", "cuda", "tpu")
IMAGES, FEATURES = noise(0, 3, 8, 8), noise(1, 4, 3, 3)
IMAGE, KERNEL = noise(2, 8, 8, 1), noise(3, 3, 3, 1, 2)
POOLS = (cnn.max_pool, cnn.min_pool, cnn.avg_pool, cnn.max_abs_pool)
WARPS = {"affine": (affine, (IMAGE, np.eye(2, 3))), "elastic": (elastic, (IMAGE, np.zeros((2, 2, 2))))}


def match_all(images, features):
    return jax.vmap(lambda image: jax.vmap(partial(cnn.match, image))(features))(images)


FUNCTIONS = (
    {f"conv {method}": (partial(cnn.conv, method=method), (IMAGE, KERNEL)) for method in METHODS}
    | {pool.__name__: (partial(pool, padding="CEIL", window=3), (IMAGE,)) for pool in POOLS}
    | {"window_sum": (partial(cnn.window_sum, window=3), (IMAGE,)), "match": (match_all, (IMAGES, FEATURES))}
    | WARPS
)


def text(function, arguments, platform):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_export_serves_all_platforms(name):
    function, arguments = FUNCTIONS[name]
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
    assert exported.platforms == PLATFORMS
    np.testing.assert_allclose(exported.call(*arguments), function(*arguments), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_lower_for_every_platform(name):
    function, arguments = FUNCTIONS[name]
    traced = jax.jit(jax.grad(lambda *a: jnp.sum(function(*a) ** 2))).trace(*arguments)
    for platform in PLATFORMS:
        lowered = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "select_and_scatter" not in lowered  # it would not be the same in every run on GPU


def one_channel(image, kernel):
    return cnn.conv(image, kernel)


@pytest.mark.parametrize(("function", "arguments"), [(one_channel, (IMAGE, KERNEL)), (match_all, (IMAGES, FEATURES))])
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
