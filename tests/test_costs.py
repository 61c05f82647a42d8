"""Costs against closed forms worked out by hand."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax import cost, nets
from cnn_jax._algorithms import METHODS
from tests.helpers.sample_networks import NESTED


def array(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def positions(size, window, stride=1, dilation=1, padding="VALID"):
    """How many positions a window has along one axis, by looking at each."""
    extent = (window - 1) * dilation + 1
    last = size if padding == "SAME" else size - extent + 1
    return len(range(0, last, stride))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 3},
        {"stride": 2, "dilation": 2},
        {"padding": "SAME"},
        {"padding": "SAME", "stride": 2, "dilation": 3},
    ],
)
def test_convolutions_count_every_tap_of_every_position(method, options):
    conv = functools.partial(cnn.conv, method=method, **options)
    out = [positions(size, window, **options) for size, window in ((20, 3), (15, 5))]
    convolution = cost(conv, array(20, 15, 4), array(3, 5, 4, 6))
    assert convolution.shape == (*out, 6)
    assert convolution.multiply_adds == math.prod(out) * 6 * 3 * 5 * 4
    assert convolution.bytes == 4 * (20 * 15 * 4 + 3 * 5 * 4 * 6 + math.prod(out) * 6)
    assert (convolution.parameters, convolution.stages) == (0, {})


def test_explicit_padding_counts_its_zeros():
    conv = functools.partial(cnn.conv, padding=((2, 1), (0, 4)))
    assert cost(conv, array(8, 8, 1), array(3, 3, 1, 1)).multiply_adds == 9 * 10 * 9


def test_groups_divide_the_work():
    kernel = array(3, 3, 2, 6)
    assert cost(functools.partial(cnn.conv, groups=3), array(9, 9, 6), kernel).multiply_adds == 49 * 6 * 9 * 2


@pytest.mark.parametrize("method", METHODS)
def test_banks_and_batches_of_scores(method):
    match = functools.partial(cnn.match, method=method)
    bank = jax.vmap(match, (None, 0))
    single = cost(match, array(28, 28), array(5, 3))
    assert single == (0, 24 * 26 * 15, 4 * (28 * 28 + 15 + 24 * 26), (24, 26), {})
    batch = cost(jax.vmap(bank, (0, None)), array(10, 28, 28), array(8, 5, 3))
    assert batch.shape == (10, 8, 24, 26)
    assert batch.multiply_adds == 80 * single.multiply_adds
    transposed = cost(jax.vmap(jax.vmap(match, (0, None)), (None, 0)), array(10, 28, 28), array(8, 5, 3))
    assert transposed.multiply_adds == batch.multiply_adds


def test_pairs_of_images_and_small_features():
    pairs = jax.vmap(cnn.match)
    assert cost(pairs, array(6, 28, 28), array(6, 5, 3)).multiply_adds == 6 * 24 * 26 * 15


@pytest.mark.parametrize("score", [cnn.cosine, cnn.zncc, cnn.squared_difference, cnn.sharpened_cosine])
def test_other_scores_slide_once(score):
    assert cost(score, array(20, 20, 3), array(4, 4, 3)).multiply_adds == 17 * 17 * 16 * 3
    assert cost(functools.partial(score, stride=2), array(20, 20), array(4, 4)).multiply_adds == 9 * 9 * 16


def test_elementwise_work_and_pooling_are_moved_but_not_counted():
    pooled = cost(cnn.max_pool, array(2448, 3264))
    assert pooled == (0, 0, 4 * 2448 * 3264 * 5 // 4, (1224, 1632), {})
    assert cost(lambda image: image.astype("bfloat16"), array(4, 4)).bytes == 16 * (4 + 2)


def test_trees_keys_and_numbers():
    def shuffled(tree, key, scale):
        return {"first": tree["a"] * jax.random.normal(key, (3,)), "second": (scale * tree["b"], tree["b"])}

    key = jax.eval_shape(lambda: jax.random.key(0))
    tree_cost = cost(shuffled, {"a": array(3), "b": array(2, 2)}, key, 2.0)
    assert tree_cost.shape == {"first": (3,), "second": ((2, 2), (2, 2))}
    assert tree_cost.bytes >= 4 * (3 + 4 + 1 + 3 + 4)


def test_nothing_is_computed():
    calls = []

    def function(image):
        jax.debug.callback(lambda: calls.append(1))
        return image @ image

    assert cost(function, array(10**6, 10**6)).multiply_adds == 10**18
    assert cost(function, np.ones((2, 2), np.float32)).multiply_adds == 8
    assert calls == []


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"padding": "SAME", "dilation": 2}])
@pytest.mark.parametrize("groups", [1, 4])
def test_gradients_cost_twice_the_forward_pass(options, groups):
    conv = functools.partial(cnn.conv, groups=groups, **options)
    image = array(65, 65, 8)
    kernel = array(3, 3, 8 // groups, 8)
    forward = cost(conv, image, kernel).multiply_adds

    def loss(image, kernel):
        return (conv(image, kernel) ** 2).sum()

    both = cost(jax.value_and_grad(loss, (0, 1)), image, kernel).multiply_adds
    assert both == pytest.approx(3 * forward, rel=0.1)
    assert cost(jax.value_and_grad(loss, 1), image, kernel).multiply_adds == 2 * forward


def test_a_training_step_costs_three_forward_passes_less_the_gradient_of_the_image():
    net = nets.xo_net()
    shape = (28, 28, 1)
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), shape))

    def loss(params, images):
        return (jax.vmap(net.apply, (None, 0))(params, images) ** 2).sum()

    step = cost(jax.value_and_grad(loss), params, array(32, *shape))
    forward = cost(net, shape)
    first = forward.stages["conv1"].multiply_adds  # needs no gradient of its image
    assert step.multiply_adds == 32 * (3 * forward.multiply_adds - first)


def test_a_network_stage_by_stage():
    total = cost(NESTED, (10, 12, 2))
    assert {name: (stage.parameters, stage.multiply_adds, stage.shape) for name, stage in total.stages.items()} == {
        "conv1": (9 * 2 * 4 + 4, 120 * 9 * 2 * 4, (10, 12, 4)),
        "residual1/conv1": (9 * 16 + 4, 120 * 9 * 16, (10, 12, 4)),
        "residual1/relu1": (0, 0, (10, 12, 4)),
        "residual1/conv2": (16 + 4, 120 * 16, (10, 12, 4)),
        "residual1/sum": (0, 0, (10, 12, 4)),
        "residual1": (0, 0, (10, 12, 4)),
        "max_pool1": (0, 0, (5, 6, 4)),
        "dropout1": (0, 0, (5, 6, 4)),
        "match1": (9 * 4 * 5, 12 * 9 * 4 * 5, (3, 4, 5)),
        "flatten1": (0, 0, (60,)),
        "dense1": (122, 120, (2,)),
    }
    assert list(total.stages)[:2] == ["conv1", "residual1/conv1"]
    image_bytes = 4 * 120 * 4
    assert total.stages["residual1/conv1"].bytes == 2 * image_bytes + 4 * 148
    assert total.stages["residual1/sum"].bytes == 3 * image_bytes
    assert total.stages["residual1"].bytes == total.stages["dropout1"].bytes == 0
    assert total.bytes == 4 * (10 * 12 * 2 + total.parameters + 2)
    assert total.shape == (2,)


@pytest.mark.parametrize("net", [NESTED, nets.xo_net(), cnn.Conv(3), cnn.Residual(cnn.Conv(2, padding="SAME"))])
def test_stages_add_up(net):
    shape = (28, 30, 2)
    total = cost(net, list(shape))
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), shape))
    for field in ("parameters", "multiply_adds"):
        assert sum(getattr(stage, field) for stage in total.stages.values()) == getattr(total, field)
    assert total.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert total[1:4] == cost(net.apply, params, array(*shape))[1:4]
    assert list(total.stages) == list(jax.eval_shape(net.stages, params, array(*shape)))


def test_stages_are_told_apart_under_jit():
    stages = jax.jit(NESTED.stages, static_argnames=("train", "key"))
    jitted = cnn.Layer(NESTED.init, NESTED.apply, apply_with_intermediates=stages)
    assert cost(jitted, (10, 12, 2)) == cost(NESTED, (10, 12, 2))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((5, array(8, 8)), TypeError, "function_or_net: .* got 5"),
        ((jnp.square, "image"), TypeError, "args: .* got 'image'"),
        ((jnp.square, [1, None, {"a": object()}]), TypeError, "args: .* got <object"),
        ((nets.xo_net(),), TypeError, "args: expected one shape .* got 0"),
        ((nets.xo_net(), 28, 28), TypeError, "args: expected one shape .* got 2"),
        ((nets.xo_net(), 28), TypeError, "shape: .* got 28"),
        ((nets.xo_net(), (28, 28, 1.0)), TypeError, "shape: .* got "),
        ((nets.xo_net(), (28, 0, 1)), ValueError, "shape: .* got "),
        ((nets.xo_net(), (28, 28)), ValueError, "Conv: expected an image shape"),
        ((cnn.match, array(8, 8), array(9, 9)), ValueError, "feature"),
    ],
)
def test_cost_names_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        cost(*arguments)
