"""Layers: shapes, the layers without parameters, and what wrong arguments are told."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import matching, pooling
from cnn_jax.layers import (
    Activation,
    AvgPool,
    Chain,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Match,
    MaxAbsPool,
    MaxPool,
    Residual,
)

KEY = jax.random.key(0)
RELU = Activation(jax.nn.relu)
NET = Chain(Conv(2), RELU, MaxPool(), Flatten(), Dense(2))
SHARPENED = {"features": (3, 3, 2, 4), "log_p": (4,)}
IMAGE = np.random.default_rng(0).uniform(-1, 1, (6, 6, 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("layer", "shape", "params", "out"),
    [
        (Conv(4), (6, 6, 2), {"kernel": (3, 3, 2, 4), "bias": (4,)}, (4, 4, 4)),
        (Conv(4, (1, 3), padding="SAME", use_bias=False), (6, 5, 2), {"kernel": (1, 3, 2, 4)}, (6, 5, 4)),
        (Conv(4, stride=2, padding="CEIL"), (6, 6, 1), {"kernel": (3, 3, 1, 4), "bias": (4,)}, (3, 3, 4)),
        (Conv(4, dilation=2), (6, 6, 1), {"kernel": (3, 3, 1, 4), "bias": (4,)}, (2, 2, 4)),
        (Conv(4, groups=2), (6, 6, 2), {"kernel": (3, 3, 1, 4), "bias": (4,)}, (4, 4, 4)),
        (Match(4), (6, 6, 2), {"features": (3, 3, 2, 4)}, (4, 4, 4)),
        (Match(4, (5, 2), stride=(1, 2), padding="SAME"), (6, 6, 1), {"features": (5, 2, 1, 4)}, (6, 3, 4)),
        (Match(4, score=matching.sharpened_cosine, learn={"p": 2.0}), (6, 6, 2), SHARPENED, (4, 4, 4)),
        (Dense(3), (7,), {"kernel": (7, 3), "bias": (3,)}, (3,)),
        (Dense(3, use_bias=False), (7,), {"kernel": (7, 3)}, (3,)),
        (MaxPool(), (7, 7, 2), {}, (3, 3, 2)),
        (MaxPool(3, 2, padding="CEIL"), (8, 8, 2), {}, (4, 4, 2)),
        (AvgPool((2, 1), (2, 1)), (6, 6, 2), {}, (3, 6, 2)),
        (MaxAbsPool(), (6, 6, 2), {}, (3, 3, 2)),
        (GlobalAvgPool(), (6, 6, 2), {}, (2,)),
        (Flatten(), (6, 5, 2), {}, (60,)),
        (RELU, (6, 6, 2), {}, (6, 6, 2)),
        (Dropout(0.5), (6, 6, 2), {}, (6, 6, 2)),
        (Residual(Conv(2, padding="SAME")), (6, 6, 2), {"conv1": {"kernel": (3, 3, 2, 2), "bias": (2,)}}, (6, 6, 2)),
    ],
)
def test_shapes(layer, shape, params, out):
    made = jax.eval_shape(functools.partial(layer.init, shape=shape), KEY)
    assert jax.tree.map(jnp.shape, made) == params
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(made))
    result = jax.eval_shape(layer.apply, made, jax.ShapeDtypeStruct(shape, jnp.float32))
    assert (result.shape, result.dtype) == (out, jnp.float32)


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (MaxPool(3, 1, padding="SAME"), pooling.max_pool),
        (AvgPool(3, 1, padding="SAME"), pooling.avg_pool),
        (MaxAbsPool(3, 1, padding="SAME"), pooling.max_abs_pool),
    ],
)
def test_pooling_layers_pass_their_options_on(layer, function):
    pool = functools.partial(function, window=3, stride=1, padding="SAME")
    assert str(jax.make_jaxpr(layer.apply)({}, IMAGE)) == str(jax.make_jaxpr(lambda _, image: pool(image))({}, IMAGE))


def test_flatten_reads_rows_first():
    np.testing.assert_array_equal(Flatten().apply({}, jnp.arange(4.0).reshape(2, 2, 1)), [0, 1, 2, 3])


@pytest.mark.parametrize("layer", [Flatten(), RELU, Dropout(0.5), Residual(RELU)])
def test_numpy_images_give_jax_arrays(layer):
    assert isinstance(layer.apply({}, IMAGE), jax.Array)


def test_activations_get_jax_arrays():
    seen = []
    Activation(lambda image: seen.append(image) or image).apply({}, IMAGE)
    assert isinstance(seen[0], jax.Array)


def test_dropout_statistics():
    out = np.asarray(Dropout(0.25).apply({}, jnp.ones((100, 100)), train=True, key=KEY))
    assert set(np.unique(out).round(4)) == {0, np.float32(1.3333)}
    assert abs((out == 0).mean() - 0.25) < 0.02
    other = Dropout(0.25).apply({}, jnp.ones((100, 100)), train=True, key=jax.random.key(1))
    assert not np.array_equal(out, other)


def test_dropout_is_the_identity_outside_training():
    np.testing.assert_array_equal(Dropout(0.9).apply({}, IMAGE), IMAGE)
    np.testing.assert_array_equal(Dropout(0.9).apply({}, IMAGE, train=False, key=KEY), IMAGE)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, IMAGE, train=True, key=KEY), IMAGE)


def test_dropout_needs_a_key_in_training():
    with pytest.raises(ValueError, match=r"key.*Dropout.*None"):
        Dropout(0.5).apply({}, jnp.ones(3), train=True)


@pytest.mark.parametrize("rate", [1, 1.5, -0.1, float("nan")])
def test_dropout_rate(rate):
    with pytest.raises(ValueError, match=rf"rate: .*{rate}"):
        Dropout(rate)


DENSE_PARAMS = {"bias": jnp.ones(2), "kernel": jnp.ones((5, 2))}


@pytest.mark.parametrize(
    ("function", "args", "options", "error", "message"),
    [
        (Conv, (0,), {}, ValueError, "features: .*0"),
        (Conv, (2.5,), {}, TypeError, "features: .*2.5"),
        (Conv, (2, 0), {}, ValueError, "kernel_size: .*0"),
        (Conv, (2,), {"stride": 0}, ValueError, "stride: .*0"),
        (Conv, (2,), {"dilation": 0}, ValueError, "dilation: .*0"),
        (Conv, (2,), {"padding": "FULL"}, ValueError, "padding: .*FULL"),
        (Conv, (2,), {"padding": 1}, TypeError, "padding: .*1"),
        (Conv, (3,), {"groups": 2}, ValueError, "groups: expected a divisor of the 3 features, got 2"),
        (Conv(2).init, ((6, 6, 1), KEY), {}, TypeError, "shape: expected ints"),
        (Conv(2).init, (KEY, (6, 6)), {}, ValueError, r"Conv: .*\(H, W, C\).*\(6, 6\)"),
        (Conv(2, groups=2).init, (KEY, (6, 6, 3)), {}, ValueError, "groups: .*3 channels.*2"),
        (Match, (2, (3, -1)), {}, ValueError, "kernel_size: .*-1"),
        (Match, (2,), {"learn": {"p": 0}}, ValueError, r"learn\['p'\]: .* above 0, got 0"),
        (Match, (2,), {"learn": {"p": "2"}}, TypeError, r"learn\['p'\]: expected a finite number above 0, got '2'"),
        (Match, (2,), {"learn": ["p"]}, TypeError, r"learn: expected a dict .*, got \['p'\]"),
        (Match, (2,), {"score": "cosine"}, TypeError, r"score: expected a function such as .*, got 'cosine'"),
        (Match, (2,), {"stride": 0}, ValueError, "stride: .*0"),
        (Match(2).init, (KEY, (6, 0, 1)), {}, ValueError, r"Match: .*\(6, 0, 1\)"),
        (Dense, (0,), {}, ValueError, "features: .*0"),
        (Dense(2).init, (KEY, 5), {}, TypeError, "shape: expected ints .*, got 5"),
        (Dense(2).init, (KEY, (6, 6, 1)), {}, ValueError, r"Dense: .*\(6, 6, 1\).*Flatten"),
        (Dense(2).apply, (DENSE_PARAMS, jnp.ones(4)), {}, ValueError, r"params: .*kernel .*\(4, 2\).*got \(5, 2\)"),
        (Dense(2).apply, (DENSE_PARAMS, jnp.ones((3, 5))), {}, ValueError, r"vector: .*, got \(3, 5\)"),
        (Conv, (2,), {"method": "foo"}, ValueError, "method: .*'foo'"),
        (Conv, (2,), {"groups": 2, "method": "fft"}, ValueError, "groups: expected 1 with method='fft', got 2"),
        (Conv, (2,), {"standardize": 1}, TypeError, "standardize: expected True or False, got 1"),
        (Dense, (2,), {"kernel_init": 3}, TypeError, "kernel_init: expected a function .*, got 3"),
        (MaxPool, (0,), {}, ValueError, "window: .*0"),
        (AvgPool, (2, 0.5), {}, TypeError, "stride: .*0.5"),
        (MaxAbsPool, (), {"padding": "FULL"}, ValueError, "padding: .*FULL"),
        (Dropout, ("x",), {}, TypeError, "rate: expected a number .*, got 'x'"),
        (Dropout, (None,), {}, TypeError, "rate: expected a number .*, got None"),
        (Activation, ("relu",), {}, TypeError, "fn: .*relu"),
        (Chain, (), {}, ValueError, "layers: .*none"),
        (Residual, (), {}, ValueError, "layers: .*none"),
        (Chain, (Conv(2), len), {}, TypeError, "layers: expected Layer, got .*len"),
        (NET.init, ((6, 6, 1), KEY), {}, TypeError, r"init takes \(key, shape\)"),
        (NET.init, (KEY, (6.0, 6, 1)), {}, TypeError, "shape: expected ints"),
        (NET.apply, (jnp.ones((6, 6, 1)), {}), {}, TypeError, r"params: .* apply takes \(params, image\)"),
        (Chain(MaxPool(), Conv(2)).init, (KEY, (4, 4, 1)), {}, ValueError, "kernel: expected at most .*padded image"),
    ],
)
def test_bad_layers_say_what_is_wrong(function, args, options, error, message):
    with pytest.raises(error, match=message):
        function(*args, **options)
