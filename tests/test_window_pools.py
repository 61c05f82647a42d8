"""The primitives of pooling: the two ways to compute them agree, and every transform takes them as a whole."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._window_pools import Pool, _cotangent, _reduce_slices, _reduce_window, _value, pool_windows
from tests.helpers.oracles import noise, whole

POOLS = [
    Pool(operation, window, stride, pads)
    for operation in ("max", "sum")
    for window, stride, pads in [
        ((2, 2), (2, 2), ((0, 0), (0, 0))),
        ((2, 3), (2, 3), ((1, 0), (0, 2))),
        ((3, 3), (2, 1), ((1, 1), (0, 1))),
        ((5, 4), (5, 4), ((0, 0), (0, 0))),
    ]
]
each_pool = pytest.mark.parametrize("pool", POOLS, ids=str)


@each_pool
@pytest.mark.parametrize("channels", [(), (3,)])
def test_tpus_compute_the_same(pool, channels):
    """Values and cotangents, of images with equal pixels."""
    image = whole(0, 7, 9, *channels)
    ct = whole(2, *_reduce_window(pool, jnp.asarray(image)).shape)
    for compute, *operands in [(_value, image), (_cotangent, image, ct)]:
        by_slices, by_window = (
            jax.jit(partial(compute, reduce, pool=pool, shared=()))(*operands)
            for reduce in (_reduce_slices, _reduce_window)
        )
        np.testing.assert_array_equal(by_slices, by_window)


@pytest.mark.parametrize("operation", ["max", "sum"])
@pytest.mark.parametrize(("platform", "is_window"), [("cpu", False), ("cuda", False), ("tpu", True)])
def test_only_tpus_reduce_windows(operation, platform, is_window):
    """GPUs have no select-and-scatter that gives the same in every run."""
    pool = Pool(operation, (3, 3), (2, 2), ((0, 0), (0, 0)))
    gradient = jax.value_and_grad(lambda image: (pool_windows(image, pool) ** 2).sum())
    text = jax.jit(gradient).trace(jnp.zeros((8, 8))).lower(lowering_platforms=(platform,)).as_text()
    assert ("reduce_window" in text) == is_window
    assert ("select_and_scatter" in text) == (is_window and operation == "max")


@each_pool
def test_derivatives_of_any_mode_and_order(pool):
    image, tangent = jnp.asarray(noise(0, 7, 9)), jnp.asarray(noise(1, 7, 9))
    f = partial(pool_windows, pool=pool)
    reference = partial(_reduce_slices, pool)
    out, change = jax.jvp(f, (image,), (tangent,))
    expected_out, expected_change = jax.jvp(reference, (image,), (tangent,))
    np.testing.assert_array_equal(out, expected_out)
    np.testing.assert_allclose(change, expected_change, rtol=1e-6)

    def energy(function, image):
        return (function(image) ** 3).sum()

    for derivative in (jax.hessian, jax.jacfwd, jax.jacrev):
        got, expected = (derivative(partial(energy, function))(image) for function in (f, reference))
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.jacfwd(f)(image), jax.jacrev(f)(image), atol=1e-6)


@each_pool
def test_nested_vmaps_of_values_and_derivatives(pool):
    """Also of tangents that share their image."""
    f = partial(pool_windows, pool=pool)
    images = noise(0, 2, 3, 7, 9)
    looped = np.array([[f(image) for image in row] for row in images])
    np.testing.assert_array_equal(jax.vmap(jax.vmap(f, 2))(jnp.moveaxis(images, 1, 3)), looped)

    push = jax.vmap(jax.vmap(lambda image, t: jax.jvp(f, (image,), (t,))[1], (None, 0)), (0, None))
    tangents = noise(1, 4, 7, 9)
    expected = np.array([[jax.jvp(f, (image,), (t,))[1] for t in tangents] for image in images[0]])
    np.testing.assert_allclose(push(images[0], tangents), expected, rtol=1e-6)

    def pull(image, ct):
        return jax.vjp(f, image)[1](ct)[0]

    cts = noise(2, 4, *looped.shape[2:])
    expected = np.array([[pull(image, ct) for ct in cts] for image in images[0]])
    got = jax.vmap(jax.vmap(pull, (None, 0)), (0, None))(images[0], cts)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_an_eager_gradient_compiles_once(caplog):
    pool = Pool("max", (3, 2), (1, 2), ((0, 0), (0, 0)))
    gradient = jax.grad(lambda image: pool_windows(image, pool).sum())
    gradient(noise(0, 6, 6))
    with jax.log_compiles(), caplog.at_level("WARNING"):
        gradient(noise(1, 6, 6))
    assert [record.message for record in caplog.records if "ompil" in record.message] == []
