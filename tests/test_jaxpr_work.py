"""Multiply-adds and bytes of traced programs, wherever in them the work is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import cnn_jax as cnn
from cnn_jax import cost
from cnn_jax._jaxpr_work import graph_of, needed_work, total_work


def array(*shape, dtype="float32"):
    return jax.ShapeDtypeStruct(shape, dtype)


SQUARE = array(8, 8)
PRODUCT = 8 * 8 * 8


def two_products(x):
    return x @ (x @ x)


def two_products_or_one(x):
    return lax.cond(x.sum() > 0, two_products, lambda x: x @ x, x)


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (jax.jit(two_products), 2),
        (jax.jit(lambda x: jax.jit(two_products)(x) + two_products(x)), 4),
        (jax.checkpoint(two_products), 2),
        (jax.vmap(lambda row: row @ jnp.ones((8, 8))), 1),
        (two_products_or_one, 2),
        (lambda x: lax.switch(jnp.int32(1), [lambda x: x, two_products, lambda x: x @ x], x), 2),
        (lambda x: lax.scan(lambda c, _: (two_products(c), None), x, length=5)[0], 10),
        (lambda x: lax.scan(lambda c, _: (two_products_or_one(c), None), x, length=3)[0], 6),
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


def test_work_inside_a_while_loop_cannot_be_counted():
    def function(x):
        return lax.while_loop(lambda c: c.sum() > 0, lambda c: c @ c, x)

    with pytest.raises(ValueError, match=r"inside `while` \(unknown trip count\); use lax.scan"):
        cost(function, SQUARE)


def test_custom_derivatives_are_looked_into():
    jvp = jax.custom_jvp(two_products)
    jvp.defjvp(lambda primals, tangents: (two_products(*primals), tangents[0]))
    vjp = jax.custom_vjp(two_products)
    vjp.defvjp(lambda x: (two_products(x), None), lambda _, ct: (ct @ ct,))
    assert cost(jvp, SQUARE).multiply_adds == cost(vjp, SQUARE).multiply_adds == 2 * PRODUCT
    assert cost(lambda x: jax.vjp(vjp, x)[1](x), SQUARE).multiply_adds == PRODUCT  # the forward pass is not needed


def test_constants_that_a_function_closes_over_are_read_once_under_jit_or_not():
    kernel = jnp.ones((3, 3, 1, 2))

    def twice(image):
        return cnn.conv(image, kernel) + jax.jit(cnn.conv)(image, kernel)

    plain = cost(twice, array(8, 8, 1))
    assert plain == cost(jax.jit(twice), array(8, 8, 1))
    assert plain.bytes == 4 * (64 + kernel.size + 72)


def test_matrix_products():
    assert cost(jnp.dot, array(5, 7), array(7, 3)).multiply_adds == 5 * 7 * 3
    assert cost(jnp.vdot, array(9), array(9)).multiply_adds == 9
    product = functools.partial(jnp.einsum, "bij,bjk->bik")
    assert cost(product, array(4, 5, 6), array(4, 6, 7)).multiply_adds == 4 * 5 * 6 * 7


def test_batch_groups_divide_the_work():
    conv = functools.partial(lax.conv_general_dilated, window_strides=(1, 1), padding="VALID", batch_group_count=2)
    convolution = cost(conv, array(4, 3, 8, 8), array(6, 3, 3, 3))
    assert convolution.shape == (2, 6, 6, 6)
    assert convolution.multiply_adds == 2 * 6 * 36 * 9 * 3


def test_a_dilated_image_counts_its_pixels_and_not_the_zeros_between():
    size = 7
    kernel_size = 4
    dilation = 3
    conv = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding=((0, 0), (0, 0)),
        lhs_dilation=(dilation, dilation),
    )
    convolution = cost(conv, array(1, 1, size, size), array(1, 1, kernel_size, kernel_size))
    is_pixel = np.zeros((size - 1) * dilation + 1)
    is_pixel[::dilation] = 1
    assert convolution.multiply_adds == np.convolve(is_pixel, np.ones(kernel_size), "valid").sum() ** 2


def test_work_already_done_is_not_counted_again():
    graph = graph_of(jax.make_jaxpr(lambda x: (x @ x, two_products(x)))(SQUARE))
    done = set()
    first = needed_work(graph, graph.outputs[:1], done)
    second = needed_work(graph, graph.outputs[1:], done)
    assert first.multiply_adds == PRODUCT
    assert second.multiply_adds == 2 * PRODUCT
    assert needed_work(graph, graph.outputs, done) == (0, 0, set())
    assert first.read == second.read == set(graph.inputs)


def test_an_output_that_is_an_input_moves_nothing():
    assert total_work(jax.make_jaxpr(lambda x: x)(SQUARE)) == (0, 0, set())
