"""Layers with learned kernels: Conv, Match and Dense against what they are made of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import matching
from cnn_jax.layers import Conv, Dense, Match
from tests.helpers import oracles
from tests.helpers.oracles import noise

KEY = jax.random.key(0)
IMAGE = np.random.default_rng(0).uniform(-1, 1, (6, 6, 1)).astype(np.float32)
OTHER_SCORES = ("cosine", "zncc", "squared_difference")


def init(net, shape):
    return jax.jit(functools.partial(net.init, shape=shape))(KEY)


def test_conv_layer_is_conv_and_bias():
    options = {"stride": 2, "padding": "SAME"}
    kernel = np.linspace(-1, 1, 27, dtype=np.float32).reshape(3, 3, 1, 3)
    bias = np.array([1.0, 2.0, 3.0], np.float32)
    out = Conv(3, **options).apply({"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}, IMAGE)
    np.testing.assert_allclose(out, oracles.conv(IMAGE, kernel, **options) + bias, rtol=1e-5)


def test_conv_takes_an_initializer():
    params = Conv(3, kernel_init=jax.nn.initializers.ones).init(KEY, (6, 6, 1))
    np.testing.assert_array_equal(params["kernel"], 1)
    np.testing.assert_array_equal(params["bias"], 0)


def test_match_layer_is_match_for_every_feature():
    layer = Match(4, padding="SAME")
    params = init(layer, (6, 6, 1))
    assert np.abs(params["features"]).max() <= 1
    out = layer.apply(params, IMAGE)
    for k in range(4):
        expected = oracles.match(IMAGE, params["features"][..., k], padding="SAME")
        np.testing.assert_allclose(out[..., k], expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def other_scores():
    """The parameters of a layer of two features, and what it computes by each of the other scores."""
    layers = {name: Match(2, score=getattr(matching, name), stride=2) for name in OTHER_SCORES}
    params = init(layers["zncc"], (6, 6, 1))
    apply = jax.jit(lambda params, image: {name: layer.apply(params, image) for name, layer in layers.items()})
    return params, apply(params, IMAGE)


@pytest.mark.parametrize("score", OTHER_SCORES)
def test_match_layer_takes_any_score(other_scores, score):
    params, outputs = other_scores
    for k in range(2):
        expected, _ = oracles.scores(score, IMAGE, params["features"][..., k], stride=2)
        np.testing.assert_allclose(outputs[score][..., k], expected, rtol=1e-5, atol=1e-5)


def test_match_layer_learns_a_scores_options():
    layer = Match(2, score=matching.sharpened_cosine, learn={"p": 2.0, "q": 0.5})
    exponents = (1.0, 3.0)
    params = init(layer, (6, 6, 1)) | {"log_p": jnp.log(jnp.array(exponents))}

    def energy(params):
        out = layer.apply(params, IMAGE)
        return jnp.sum(out**2), out

    gradient, out = jax.jit(jax.grad(energy, has_aux=True))(params)
    for k, p in enumerate(exponents):
        expected, _ = oracles.scores("sharpened_cosine", IMAGE, params["features"][..., k], p=p, q=0.5)
        np.testing.assert_allclose(out[..., k], expected, rtol=1e-4, atol=1e-6)
    assert all(np.all(leaf != 0) and np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_match_layer_takes_an_initializer():
    layer = Match(2, kernel_init=jax.nn.initializers.ones)
    np.testing.assert_array_equal(layer.init(KEY, (6, 6, 1))["features"], 1)


def test_dense_is_a_weighted_sum_and_bias():
    params = {"kernel": jnp.array([[1.0], [0.0], [0.0], [2.0]]), "bias": jnp.array([0.5])}
    np.testing.assert_array_equal(Dense(1).apply(params, jnp.arange(4.0)), [6.5])


STANDARDIZED = Conv(8, 3, standardize=True)


def scaled_and_standard():
    """Parameters whose kernels have another mean and scale, and the same with standardized kernels."""
    params = jax.tree.map(lambda x: 5 * x + 3, init(STANDARDIZED, (5, 6, 4)))
    return params, params | {"kernel": standard(params["kernel"])}


def standard(kernel):
    kernel = np.asarray(kernel, np.float64)
    return jnp.asarray((kernel - kernel.mean((0, 1, 2))) / kernel.std((0, 1, 2)), jnp.float32)


def test_standardized_kernels_have_mean_0_and_variance_1():
    image = noise(0, 5, 6, 4)
    params, standard_params = scaled_and_standard()
    expected = Conv(8, 3).apply(standard_params, image)
    np.testing.assert_allclose(STANDARDIZED.apply(params, image), expected, rtol=1e-4, atol=1e-4)
    small = params | {"kernel": params["kernel"] / 1000}
    np.testing.assert_allclose(STANDARDIZED.apply(small, image), expected, rtol=1e-3, atol=1e-3)


def test_kernels_of_16_bits_are_standardized_in_32():
    image = noise(0, 5, 6, 4).astype(jnp.bfloat16)
    half = {name: leaf.astype(jnp.bfloat16) for name, leaf in scaled_and_standard()[0].items()}
    expected = Conv(8, 3).apply(half | {"kernel": standard(half["kernel"]).astype(jnp.bfloat16)}, image)
    out = STANDARDIZED.apply(half, image)
    np.testing.assert_allclose(out.astype(jnp.float32), expected.astype(jnp.float32), rtol=0.02, atol=0.1)


def test_standardized_kernels_need_two_weights():
    with pytest.raises(ValueError, match="standardize: expected at least two weights per kernel, got one"):
        Conv(3, 1, standardize=True).init(KEY, (5, 6, 1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_dense_layer_rounds_16_bit_sums_once(dtype):
    """Sums in these dtypes would stay at 256 or 2048."""
    params = {"kernel": jnp.ones((2500, 2), dtype), "bias": jnp.zeros(2, dtype)}
    out = jax.vmap(Dense(2).apply, (None, 0))(params, jnp.ones((3, 2500), dtype))
    assert out.dtype == dtype
    assert (out == jnp.asarray(2500, dtype)).all()
