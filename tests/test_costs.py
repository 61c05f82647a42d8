"""Costs against closed forms worked out by hand."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import cnn_jax as cnn
from cnn_jax import cost, nets


def array(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


def sliding(size, window, stride=1, dilation=1, padding="VALID"):
    """How many positions a window has along one axis, by looking at each."""
    reach = (window - 1) * dilation + 1
    last = size if padding == "SAME" else size - reach + 1
    return len(range(0, last, stride))


@pytest.mark.parametrize("method", ["auto", "conv", "shift", "im2col", "fft"])
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
    out = [sliding(size, k, **options) for size, k in ((20, 3), (15, 5))]
    got = cost(conv, array(20, 15, 4), array(3, 5, 4, 6))
    assert got.shape == (*out, 6)
    assert got.multiply_adds == math.prod(out) * 6 * 3 * 5 * 4
    assert got.bytes == 4 * (20 * 15 * 4 + 3 * 5 * 4 * 6 + math.prod(out) * 6)
    assert (got.parameters, got.stages) == (0, {})


def test_explicit_padding_counts_its_zeros():
    got = cost(functools.partial(cnn.conv, padding=((2, 1), (0, 4))), array(8, 8, 1), array(3, 3, 1, 1))
    assert got.multiply_adds == 9 * 10 * 9


def test_groups_divide_the_work():
    kernel = array(3, 3, 2, 6)
    assert cost(functools.partial(cnn.conv, groups=3), array(9, 9, 6), kernel).multiply_adds == 49 * 6 * 9 * 2


def test_batch_groups_divide_the_work():
    conv = functools.partial(lax.conv_general_dilated, window_strides=(1, 1), padding="VALID", batch_group_count=2)
    got = cost(conv, array(4, 3, 8, 8), array(6, 3, 3, 3))
    assert got.shape == (2, 6, 6, 6)
    assert got.multiply_adds == 2 * 6 * 36 * 9 * 3


def test_a_spread_image_counts_its_pixels_and_not_the_zeros_between():
    size, k, step = 7, 4, 3
    conv = functools.partial(lax.conv_general_dilated, window_strides=(1, 1), padding=((0, 0), (0, 0)))
    got = cost(functools.partial(conv, lhs_dilation=(step, step)), array(1, 1, size, size), array(1, 1, k, k))
    ones = np.zeros((size - 1) * step + 1)
    ones[::step] = 1
    assert got.multiply_adds == np.convolve(ones, np.ones(k), "valid").sum() ** 2


def test_matrix_products():
    assert cost(jnp.dot, array(5, 7), array(7, 3)).multiply_adds == 5 * 7 * 3
    assert cost(jnp.vdot, array(9), array(9)).multiply_adds == 9
    product = functools.partial(jnp.einsum, "bij,bjk->bik")
    assert cost(product, array(4, 5, 6), array(4, 6, 7)).multiply_adds == 4 * 5 * 6 * 7


@pytest.mark.parametrize("method", ["auto", "conv", "shift", "im2col", "fft"])
def test_banks_and_batches_of_scores(method):
    match = functools.partial(cnn.match, method=method)
    bank = jax.vmap(match, (None, 0))
    one = cost(match, array(28, 28), array(5, 3))
    assert one == (0, 24 * 26 * 15, 4 * (28 * 28 + 15 + 24 * 26), (24, 26), {})
    many = cost(jax.vmap(bank, (0, None)), array(10, 28, 28), array(8, 5, 3))
    assert many.shape == (10, 8, 24, 26)
    assert many.multiply_adds == 80 * one.multiply_adds
    assert cost(jax.vmap(jax.vmap(match, (0, None)), (None, 0)), array(10, 28, 28), array(8, 5, 3))[1] == many[1]


def test_pairs_of_images_and_small_features():
    pairs = jax.vmap(cnn.match)
    assert cost(pairs, array(6, 28, 28), array(6, 5, 3)).multiply_adds == 6 * 24 * 26 * 15


@pytest.mark.parametrize("score", [cnn.cosine, cnn.zncc, cnn.squared_difference, cnn.sharpened_cosine])
def test_other_scores_slide_once(score):
    assert cost(score, array(20, 20, 3), array(4, 4, 3)).multiply_adds == 17 * 17 * 16 * 3
    assert cost(functools.partial(score, stride=2), array(20, 20), array(4, 4)).multiply_adds == 9 * 9 * 16


def test_elementwise_work_and_pooling_are_moved_but_not_counted():
    got = cost(cnn.max_pool, array(2448, 3264))
    assert got == (0, 0, 4 * 2448 * 3264 * 5 // 4, (1224, 1632), {})
    assert cost(lambda image: image.astype("bfloat16"), array(4, 4)).bytes == 16 * (4 + 2)


SQUARE = array(8, 8)
PRODUCT = 8 * 8 * 8


def double(x):
    return x @ (x @ x)


def chosen(x):
    return lax.cond(x.sum() > 0, double, lambda x: x @ x, x)


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (jax.jit(double), 2),
        (jax.jit(lambda x: jax.jit(double)(x) + double(x)), 4),
        (jax.checkpoint(double), 2),
        (jax.vmap(lambda row: row @ jnp.ones((8, 8))), 1),
        (chosen, 2),
        (lambda x: lax.switch(jnp.int32(1), [lambda x: x, double, lambda x: x @ x], x), 2),
        (lambda x: lax.scan(lambda c, _: (double(c), None), x, length=5)[0], 10),
        (lambda x: lax.scan(lambda c, _: (chosen(c), None), x, length=3)[0], 6),
        (lambda x: lax.fori_loop(2, 9, lambda _, c: c @ c, x), 7),
        (lambda x: lax.map(lambda _: x @ x, jnp.arange(4)), 4),
        (lambda x: (x @ x, x)[1], 0),
        (jax.jit(lambda x: jax.jit(lambda x: (x @ x, x))(x)[1]), 0),
        (jax.nn.relu, 0),
        (lambda x: lax.while_loop(lambda c: c.sum() > 0, lambda c: c - 1, x), 0),
    ],
)
def test_work_is_found_wherever_it_is(function, products):
    assert cost(function, SQUARE).multiply_adds == products * PRODUCT


def test_custom_derivatives_are_looked_into():
    jvp, vjp = jax.custom_jvp(double), jax.custom_vjp(double)
    jvp.defjvp(lambda primals, tangents: (double(*primals), tangents[0]))
    vjp.defvjp(lambda x: (double(x), None), lambda _, ct: (ct @ ct,))
    assert cost(jvp, SQUARE).multiply_adds == cost(vjp, SQUARE).multiply_adds == 2 * PRODUCT
    assert cost(lambda x: jax.vjp(vjp, x)[1](x), SQUARE).multiply_adds == PRODUCT  # the forward pass leads nowhere


def test_what_a_function_closes_over_is_read_once_under_jit_or_not():
    kernel = jnp.ones((3, 3, 1, 2))

    def twice(image):
        return cnn.conv(image, kernel) + jax.jit(cnn.conv)(image, kernel)

    plain, jitted = (cost(function, array(8, 8, 1)) for function in (twice, jax.jit(twice)))
    assert plain == jitted
    assert plain.bytes == 4 * (64 + kernel.size + 72)


def test_trees_keys_and_numbers():
    def shuffled(tree, key, scale):
        return {"first": tree["a"] * jax.random.normal(key, (3,)), "rest": (scale * tree["b"], tree["b"])}

    key = jax.eval_shape(lambda: jax.random.key(0))
    got = cost(shuffled, {"a": array(3), "b": array(2, 2)}, key, 2.0)
    assert got.shape == {"first": (3,), "rest": ((2, 2), (2, 2))}
    assert got.bytes >= 4 * (3 + 4 + 1 + 3 + 4)


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
def test_gradients_cost_two_more(options, groups):
    conv = functools.partial(cnn.conv, groups=groups, **options)
    image, kernel = array(65, 65, 8), array(3, 3, 8 // groups, 8)
    forward = cost(conv, image, kernel).multiply_adds

    def loss(image, kernel):
        return (conv(image, kernel) ** 2).sum()

    both = cost(jax.value_and_grad(loss, (0, 1)), image, kernel).multiply_adds
    assert both == pytest.approx(3 * forward, rel=0.1)
    assert cost(jax.value_and_grad(loss, 1), image, kernel).multiply_adds == 2 * forward


def training_step(net, shape):
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), shape))

    def loss(params, images):
        return (jax.vmap(net.apply, (None, 0))(params, images) ** 2).sum()

    return cost(jax.value_and_grad(loss), params, array(32, *shape))


def test_a_training_step_costs_about_three_forward():
    net, shape = nets.xo_net(), (28, 28, 1)
    step, forward = training_step(net, shape), cost(net, shape)
    first = forward.stages["conv1"].multiply_adds  # needs no gradient of its image
    assert step.multiply_adds == 32 * (3 * forward.multiply_adds - first)


NESTED = cnn.Chain(
    cnn.Conv(4, 3, padding="SAME"),
    cnn.Residual(cnn.Conv(4, 3, padding="SAME"), cnn.Activation(jax.nn.relu), cnn.Conv(4, 1)),
    cnn.MaxPool(),
    cnn.Dropout(0.5),
    cnn.Match(5, 3),
    cnn.Flatten(),
    cnn.Dense(2),
)


def test_a_network_stage_by_stage():
    whole = cost(NESTED, (10, 12, 2))
    assert {name: (stage.parameters, stage.multiply_adds, stage.shape) for name, stage in whole.stages.items()} == {
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
    assert list(whole.stages)[:2] == ["conv1", "residual1/conv1"]
    image = 4 * 120 * 4
    assert whole.stages["residual1/conv1"].bytes == 2 * image + 4 * 148
    assert whole.stages["residual1/sum"].bytes == 3 * image
    assert whole.stages["residual1"].bytes == whole.stages["dropout1"].bytes == 0
    assert whole.bytes == 4 * (10 * 12 * 2 + whole.parameters + 2)
    assert whole.shape == (2,)


@pytest.mark.parametrize("net", [NESTED, nets.xo_net(), cnn.Conv(3), cnn.Residual(cnn.Conv(2, padding="SAME"))])
def test_stages_add_up(net):
    whole, shape = cost(net, [28, 30, 2]), (28, 30, 2)
    params = jax.eval_shape(lambda: net.init(jax.random.key(0), shape))
    for part in ("parameters", "multiply_adds"):
        assert sum(getattr(stage, part) for stage in whole.stages.values()) == getattr(whole, part)
    assert whole.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert whole[1:4] == cost(net.apply, params, array(*shape))[1:4]
    assert list(whole.stages) == list(jax.eval_shape(net.stages, params, array(*shape)))


def test_stages_are_told_apart_under_jit():
    jitted = cnn.Layer(NESTED.init, NESTED.apply, parts=jax.jit(NESTED.stages, static_argnames=("train", "key")))
    assert cost(jitted, (10, 12, 2)) == cost(NESTED, (10, 12, 2))


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ((5, SQUARE), TypeError, "function_or_net: .* got 5"),
        ((double, "image"), TypeError, "args: .* got 'image'"),
        ((double, [1, None, {"a": object()}]), TypeError, "args: .* got <object"),
        ((nets.xo_net(),), TypeError, "args: expected one shape .* got 0"),
        ((nets.xo_net(), 28, 28), TypeError, "args: expected one shape .* got 2"),
        ((nets.xo_net(), 28), TypeError, "shape: .* got 28"),
        ((nets.xo_net(), (28, 28, 1.0)), TypeError, "shape: .* got "),
        ((nets.xo_net(), (28, 0, 1)), ValueError, "shape: .* got "),
        ((nets.xo_net(), (28, 28)), ValueError, "Conv: expected an image shape"),
        ((cnn.match, SQUARE, array(9, 9)), ValueError, "feature"),
        ((lambda x: lax.while_loop(lambda c: c.sum() > 0, lambda c: c @ c, x), SQUARE), ValueError, "while"),
    ],
)
def test_cost_names_what_is_wrong(arguments, error, complaint):
    with pytest.raises(error, match=complaint):
        cost(*arguments)
