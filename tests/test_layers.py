"""Layers: shapes, names, stages, errors, and that they stay pure functions."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax
from cnn_jax import matching, nets, pooling
from cnn_jax.convolution import conv
from cnn_jax.layers import (
    Activation,
    AvgPool,
    Chain,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Match,
    MaxAbsPool,
    MaxPool,
    Residual,
)

KEY = jax.random.key(0)
RELU = Activation(jax.nn.relu)
NET = Chain(Conv(2), RELU, MaxPool(), Flatten(), Dense(2))
MATCH = {"features": (3, 3, 2, 4), "log_p": (4,)}
IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 6, 6, 1)).astype(np.float32)


def init(net, shape, seed=0):
    return jax.jit(functools.partial(net.init, shape=shape))(jax.random.key(seed))


def shapes(net, shape):
    return jax.eval_shape(functools.partial(net.init, shape=shape), KEY)


@pytest.fixture(scope="module")
def params():
    return init(NET, (6, 6, 1))


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
        (Match(4, score=matching.sharpened_cosine, learn={"p": 2.0}), (6, 6, 2), MATCH, (4, 4, 4)),
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
    made = shapes(layer, shape)
    assert jax.tree.map(jnp.shape, made) == params
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(made))
    result = jax.eval_shape(layer.apply, made, jax.ShapeDtypeStruct(shape, jnp.float32))
    assert (result.shape, result.dtype) == (out, jnp.float32)


def test_conv_layer_is_conv_and_bias():
    options = {"stride": 2, "padding": "SAME"}
    layer, kernel = Conv(3, **options), np.linspace(-1, 1, 27, dtype=np.float32).reshape(3, 3, 1, 3)
    bias = jnp.array([1.0, 2.0, 3.0])
    expected = np.asarray(conv(IMAGES[0], kernel, **options)) + np.asarray(bias)
    np.testing.assert_allclose(layer.apply({"kernel": jnp.asarray(kernel), "bias": bias}, IMAGES[0]), expected, 1e-5)


def test_conv_takes_an_initializer():
    params = Conv(3, kernel_init=jax.nn.initializers.ones).init(KEY, (6, 6, 1))
    np.testing.assert_array_equal(params["kernel"], 1)
    np.testing.assert_array_equal(params["bias"], 0)


def test_match_layer_is_match_for_every_feature():
    layer = Match(4, padding="SAME")
    params = init(layer, (6, 6, 1))
    assert np.abs(params["features"]).max() <= 1
    score = functools.partial(matching.match, IMAGES[0], padding="SAME")
    expected = jax.vmap(score, -1, -1)(params["features"])
    np.testing.assert_allclose(layer.apply(params, IMAGES[0]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score", [matching.cosine, matching.zncc, matching.squared_difference])
def test_match_layer_takes_any_score(score):
    layer = Match(4, score=score, stride=2)
    params = init(layer, (6, 6, 1))
    expected = jax.vmap(functools.partial(score, IMAGES[0], stride=2), -1, -1)(params["features"])
    np.testing.assert_allclose(layer.apply(params, IMAGES[0]), expected, rtol=1e-5, atol=1e-6)


def test_match_layer_learns_a_scores_options():
    layer = Match(2, score=matching.sharpened_cosine, learn={"p": 2.0, "q": 0.5})
    params = init(layer, (6, 6, 1)) | {"log_p": jnp.log(jnp.array([1.0, 3.0]))}
    score = functools.partial(matching.sharpened_cosine, IMAGES[0], q=0.5)
    for i, p in enumerate((1.0, 3.0)):
        expected = score(params["features"][..., i], p=p)
        np.testing.assert_allclose(layer.apply(params, IMAGES[0])[..., i], expected, rtol=1e-4, atol=1e-6)
    gradient = jax.grad(lambda params: jnp.sum(layer.apply(params, IMAGES[0]) ** 2))(params)
    assert all(np.all(leaf != 0) and np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (MaxPool(3, 1, padding="SAME"), pooling.max_pool),
        (AvgPool(3, 1, padding="SAME"), pooling.avg_pool),
        (MaxAbsPool(3, 1, padding="SAME"), pooling.max_abs_pool),
    ],
)
def test_pooling_layers_hand_their_options_on(layer, function):
    expected = function(IMAGES[0], window=3, stride=1, padding="SAME")
    np.testing.assert_array_equal(layer.apply({}, IMAGES[0]), expected)


def test_dense_and_flatten():
    image = jnp.arange(4.0).reshape(2, 2, 1)
    vector = Flatten().apply({}, image)
    np.testing.assert_array_equal(vector, [0, 1, 2, 3])
    params = {"kernel": jnp.array([[1.0], [0.0], [0.0], [2.0]]), "bias": jnp.array([0.5])}
    np.testing.assert_array_equal(Dense(1).apply(params, vector), [6.5])


def test_chain_names_stages_in_order(params):
    names = []

    @jax.jit
    def run(image):
        stages = NET.stages(params, image)
        names.extend(stages)
        return stages, NET.apply(params, image)

    stages, scores = run(IMAGES[0])
    assert names == ["conv1", "relu1", "max_pool1", "flatten1", "dense1"]
    assert list(params) == ["conv1", "dense1"]
    np.testing.assert_array_equal(stages["dense1"], scores)
    np.testing.assert_array_equal(stages["relu1"], np.maximum(stages["conv1"], 0))


def test_kinds_are_counted_apart():
    net = Chain(RELU, Flatten(), RELU)
    assert list(net.stages({}, jnp.ones((2, 2, 1)))) == ["relu1", "flatten1", "relu2"]


def test_nested_stages_bear_their_path():
    net = Chain(Residual(Conv(1, padding="SAME"), RELU), Chain(Flatten()))
    params = init(net, (4, 4, 1))
    assert list(params) == ["residual1"]
    stages = net.stages(params, IMAGES[0, :4, :4])
    assert list(stages) == [
        "residual1/conv1",
        "residual1/relu1",
        "residual1/sum",
        "residual1",
        "chain1/flatten1",
        "chain1",
    ]
    np.testing.assert_array_equal(stages["residual1"], stages["residual1/sum"])
    np.testing.assert_allclose(stages["residual1"] - stages["residual1/relu1"], IMAGES[0, :4, :4], atol=1e-6)


def test_a_single_layer_has_one_stage():
    assert list(RELU.stages({}, jnp.ones(2))) == ["relu"]


def test_init_is_deterministic_and_differs_between_keys_and_layers():
    net = Chain(Conv(1, padding="SAME"), Conv(1, padding="SAME"))
    make = jax.jit(functools.partial(net.init, shape=(4, 4, 1)))
    one, same, other = make(KEY), make(jax.random.key(0)), make(jax.random.key(1))
    chex.assert_trees_all_equal(one, same)
    assert not np.array_equal(one["conv1"]["kernel"], other["conv1"]["kernel"])
    assert not np.array_equal(one["conv1"]["kernel"], one["conv2"]["kernel"])


def test_jit_vmap_and_grad_together(params):
    def votes(params, images):
        scores = jax.vmap(NET.apply, (None, 0))(params, images)
        return jnp.sum(scores), scores

    gradient, scores = jax.jit(jax.grad(votes, has_aux=True))(params, IMAGES)
    np.testing.assert_allclose(scores[1], NET.apply(params, IMAGES[1]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient["dense1"]["bias"], len(IMAGES))
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)
    assert all(np.isfinite(leaf).all() and np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))


def test_dropout_statistics():
    out = np.asarray(Dropout(0.25).apply({}, jnp.ones((100, 100)), train=True, key=KEY))
    assert set(np.unique(out).round(4)) == {0, np.float32(1.3333)}
    assert abs((out == 0).mean() - 0.25) < 0.02
    other = Dropout(0.25).apply({}, jnp.ones((100, 100)), train=True, key=jax.random.key(1))
    assert not np.array_equal(out, other)


def test_dropout_is_the_identity_outside_training():
    np.testing.assert_array_equal(Dropout(0.9).apply({}, IMAGES[0]), IMAGES[0])
    np.testing.assert_array_equal(Dropout(0.9).apply({}, IMAGES[0], train=False, key=KEY), IMAGES[0])
    np.testing.assert_array_equal(Dropout(0.0).apply({}, IMAGES[0], train=True, key=KEY), IMAGES[0])


def test_dropouts_of_a_chain_draw_independently():
    net = Chain(Dropout(0.5), Dropout(0.5))
    stages = net.stages({}, jnp.ones((100, 100)), train=True, key=KEY)
    kept = float(np.mean(np.asarray(stages["dropout2"]) != 0))
    assert kept == pytest.approx(0.25, abs=0.02)


def test_dropout_needs_a_key():
    with pytest.raises(ValueError, match=r"key.*Dropout.*None"):
        Chain(RELU, Dropout(0.5)).apply({}, jnp.ones(3), train=True)


@pytest.mark.parametrize("rate", [1, 1.5, -0.1, float("nan")])
def test_dropout_rate(rate):
    with pytest.raises(ValueError, match=rf"rate: .*{rate}"):
        Dropout(rate)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conv(0), ValueError, "features: .*0"),
        (lambda: Conv(2.5), TypeError, "features: .*2.5"),
        (lambda: Conv(2, 0), ValueError, "size: .*0"),
        (lambda: Match(2, (3, -1)), ValueError, "size: .*-1"),
        (lambda: Match(2, learn={"p": 0}), ValueError, r"learn\['p'\]: .* above 0, got 0"),
        (lambda: Match(2, learn={"p": "2"}), TypeError, r"learn\['p'\]: expected a finite number above 0, got '2'"),
        (lambda: Match(2, learn=["p"]), TypeError, r"learn: expected a dict .*, got \['p'\]"),
        (lambda: Match(2, stride=0), ValueError, "stride: .*0"),
        (lambda: Conv(2, stride=0), ValueError, "stride: .*0"),
        (lambda: Conv(2, dilation=0), ValueError, "dilation: .*0"),
        (lambda: Conv(2, padding="FULL"), ValueError, "padding: .*FULL"),
        (lambda: Conv(2, padding=1), TypeError, "padding: .*1"),
        (lambda: Conv(3, groups=2), ValueError, "groups: expected a divisor of the 3 features, got 2"),
        (lambda: MaxPool(0), ValueError, "window: .*0"),
        (lambda: AvgPool(2, 0.5), TypeError, "stride: .*0.5"),
        (lambda: MaxAbsPool(padding="FULL"), ValueError, "padding: .*FULL"),
        (lambda: Dropout("x"), TypeError, "rate: expected a number .*, got 'x'"),
        (lambda: Dropout(None), TypeError, "rate: expected a number .*, got None"),
        (
            lambda: Dense(2).apply({"kernel": jnp.ones((5, 2))}, jnp.ones(4)),
            ValueError,
            r"vector: .*\(5,\), got \(4,\)",
        ),
        (
            lambda: Dense(2).apply({"kernel": jnp.ones((5, 2))}, jnp.ones((3, 5))),
            ValueError,
            r"vector: .*, got \(3, 5\)",
        ),
        (lambda: NET.init((6, 6, 1), KEY), TypeError, r"init takes \(key, shape\)"),
        (lambda: Conv(2).init((6, 6, 1), KEY), TypeError, "shape: expected ints"),
        (lambda: Dense(2).init(KEY, 5), TypeError, "shape: expected ints .*, got 5"),
        (lambda: NET.init(KEY, (6.0, 6, 1)), TypeError, "shape: expected ints"),
        (lambda: NET.apply(jnp.ones((6, 6, 1)), {}), TypeError, r"params: .* apply takes \(params, image\)"),
        (lambda: Dense(0), ValueError, "features: .*0"),
        (lambda: Activation("relu"), TypeError, "fn: .*relu"),
        (Chain, ValueError, "layers: .*none"),
        (Residual, ValueError, "layers: .*none"),
        (lambda: Chain(Conv(2), len), TypeError, "layers: expected Layer, got .*len"),
        (lambda: Conv(2).init(KEY, (6, 6)), ValueError, r"Conv: .*\(H, W, C\).*\(6, 6\)"),
        (lambda: Match(2).init(KEY, (6, 0, 1)), ValueError, r"Match: .*\(6, 0, 1\)"),
        (lambda: Conv(2, groups=2).init(KEY, (6, 6, 3)), ValueError, "groups: .*3 channels.*2"),
        (lambda: Dense(2).init(KEY, (6, 6, 1)), ValueError, r"Dense: .*\(6, 6, 1\).*Flatten"),
        (lambda: Chain(MaxPool(), Conv(2)).init(KEY, (4, 4, 1)), ValueError, "kernel: expected at most .*padded image"),
    ],
)
def test_bad_layers_say_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_residual_needs_layers_that_keep_the_shape():
    net = Residual(Conv(1))
    with pytest.raises(ValueError, match=r"Residual: .*\(4, 4, 1\).*\(2, 2, 1\)"):
        jax.eval_shape(net.apply, shapes(net, (4, 4, 1)), jnp.ones((4, 4, 1)))


def test_params_of_another_network_are_refused(params):
    with pytest.raises(ValueError, match=r"params: .*match1.*conv1"):
        Chain(Match(2), Flatten(), Dense(2)).apply(params, IMAGES[0])


def test_missing_params_are_refused(params):
    with pytest.raises(ValueError, match=r"params: .*dense1"):
        NET.apply({"conv1": params["conv1"]}, IMAGES[0])


def test_layers_of_ones_own():
    scale = Layer(lambda key, shape: {"by": jnp.array(3.0)}, lambda params, image, **_: params["by"] * image, "scale")
    net = Chain(scale, scale)
    params = net.init(KEY, ())
    assert list(params) == ["scale1", "scale2"]
    assert net.apply(params, jnp.array(2.0)) == 18


def test_xo_net_is_small_and_votes_for_two_letters():
    net = nets.xo_net()
    params = shapes(net, (28, 28, 1))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) <= 50_000
    assert jax.eval_shape(net.apply, params, jax.ShapeDtypeStruct((28, 28, 1), jnp.float32)).shape == (2,)


def test_xo_net_options():
    net = nets.xo_net(features=(2, 3), classes=5)
    params = shapes(net, (9, 9, 1))
    stages = jax.eval_shape(net.stages, params, jax.ShapeDtypeStruct((9, 9, 1), jnp.float32))
    assert [stage.shape for name, stage in stages.items() if "max_pool" in name] == [(5, 5, 2), (3, 3, 3)]
    assert stages["dense1"].shape == (5,)


def test_what_edit_returns_goes_on():
    net = cnn_jax.Chain(
        cnn_jax.Conv(2, padding="SAME"),
        cnn_jax.BatchNorm(),
        cnn_jax.Residual(cnn_jax.Conv(2, padding="SAME")),
        cnn_jax.Flatten(),
    )
    params, image = net.init(jax.random.key(0), (4, 5, 1)), jax.random.normal(jax.random.key(1), (4, 5, 1))
    seen = []

    def remember(name, value):
        seen.append(name)
        return value

    plain = net.stages(params, image, intercept=remember)
    statistics = {"batch_norm1/mean", "batch_norm1/variance"}
    assert seen == [name for name in plain if name not in statistics]
    jax.tree.map(np.testing.assert_array_equal, plain, net.stages(params, image))

    def without(stage):
        return net.stages(params, image, intercept=lambda name, value: 0 * value if name == stage else value)

    cut = without("residual1/conv1")
    np.testing.assert_array_equal(cut["residual1/conv1"], 0)
    np.testing.assert_array_equal(cut["flatten1"], plain["batch_norm1"].ravel())  # what the residual block is given
    np.testing.assert_array_equal(without("residual1/sum")["flatten1"], 0)
    np.testing.assert_array_equal(without("batch_norm1/normalized")["batch_norm1"], 0)
    np.testing.assert_array_equal(without("conv1")["conv1"], 0)
    assert float(jnp.abs(without("conv1")["batch_norm1"]).max()) == 0  # its mean is 0, too
    single = cnn_jax.MaxPool().stages({}, image, intercept=lambda name, value: value + 1)
    np.testing.assert_array_equal(single["max_pool"], cnn_jax.max_pool(image) + 1)
