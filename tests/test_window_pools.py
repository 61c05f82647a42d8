"""Maxima and sums of windows: both ways to compute them agree, and every transform takes the primitive as a whole."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax import lax

import cnn_jax as cnn
from cnn_jax._window_pools import (
    Windows,
    _cotangent,
    _max_by_slices,
    _max_by_window,
    _reduce_window,
    _value,
    max_windows,
    sum_windows,
)
from tests.helpers.oracles import noise, whole

WINDOWS = [
    Windows((2, 2), (2, 2), ((0, 0), (0, 0))),
    Windows((2, 3), (2, 3), ((1, 0), (0, 2))),
    Windows((3, 3), (2, 1), ((1, 1), (0, 1))),
    Windows((5, 4), (5, 4), ((0, 0), (0, 0))),
]
all_windows = pytest.mark.parametrize("windows", WINDOWS, ids=str)


@all_windows
@pytest.mark.parametrize("channels", [(), (3,)])
def test_tpus_compute_the_same(windows, channels):
    """Values and cotangents, of images with equal pixels."""
    image = jnp.asarray(whole(0, 7, 9, *channels))
    ct = jnp.asarray(whole(2, *_max_by_window(windows, image).shape))
    for compute, *operands in [(_value, image), (_cotangent, image, ct)]:
        by_slices, by_window = (
            jax.jit(partial(compute, maxima, windows=windows, shared=()))(*operands)
            for maxima in (_max_by_slices, _max_by_window)
        )
        np.testing.assert_array_equal(by_slices, by_window)
    sums = _reduce_window(windows, 0.0, lax.add, image)
    np.testing.assert_array_equal(sum_windows(image, windows), sums)


@pytest.mark.parametrize("pool", [max_windows, sum_windows])
@pytest.mark.parametrize(("platform", "is_window"), [("cpu", False), ("cuda", False), ("tpu", True)])
def test_only_tpus_reduce_windows(pool, platform, is_window):
    """GPUs have no select-and-scatter that gives the same in every run."""
    windows = Windows((3, 3), (2, 2), ((0, 0), (0, 0)))
    gradient = jax.value_and_grad(lambda image: (pool(image, windows) ** 2).sum())
    text = jax.jit(gradient).trace(jnp.zeros((8, 8))).lower(lowering_platforms=(platform,)).as_text()
    assert ("reduce_window" in text) == is_window
    assert ("select_and_scatter" in text) == (is_window and pool is max_windows)


@all_windows
def test_derivatives_of_any_mode_and_order(windows):
    image, tangent = jnp.asarray(noise(0, 7, 9)), jnp.asarray(noise(1, 7, 9))
    f = partial(max_windows, windows=windows)
    reference = partial(_max_by_slices, windows)
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


@all_windows
def test_nested_vmaps_of_values_and_derivatives(windows):
    """Also of tangents that share their image."""
    f = partial(max_windows, windows=windows)
    images = jnp.asarray(noise(0, 2, 3, 7, 9))
    looped = np.array([[f(image) for image in row] for row in images])
    np.testing.assert_array_equal(jax.vmap(jax.vmap(f, 2))(jnp.moveaxis(images, 1, 3)), looped)

    push = jax.vmap(jax.vmap(lambda image, t: jax.jvp(f, (image,), (t,))[1], (None, 0)), (0, None))
    tangents = jnp.asarray(noise(1, 4, 7, 9))
    expected = np.array([[jax.jvp(f, (image,), (t,))[1] for t in tangents] for image in images[0]])
    np.testing.assert_allclose(push(images[0], tangents), expected, rtol=1e-6)

    def pull(image, ct):
        return jax.vjp(f, image)[1](ct)[0]

    cts = jnp.asarray(noise(2, 4, *looped.shape[2:]))
    expected = np.array([[pull(image, ct) for ct in cts] for image in images[0]])
    got = jax.vmap(jax.vmap(pull, (None, 0)), (0, None))(images[0], cts)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("pool", [cnn.max_pool, cnn.avg_pool, cnn.max_abs_pool])
@pytest.mark.parametrize("options", [{}, {"window": 3}], ids=str)
def test_pools_without_jit(pool, options):
    image = jnp.asarray(noise(0, 6, 8))
    gradient = jax.grad(lambda image: (pool(image, **options) ** 2).sum())
    expected = pool(image, **options), gradient(image)
    with jax.disable_jit():
        got = pool(image, **options), gradient(image)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, expected)


@pytest.mark.parametrize("options", [{}, {"window": 3}], ids=str)
def test_average_pooling_is_linear(options):
    """It has a transpose, and its gradient keeps no image."""
    image = jnp.asarray(noise(0, 6, 8))
    pool = partial(cnn.avg_pool, **options)
    out, pull = jax.vjp(pool, image)
    np.testing.assert_allclose(jax.linear_transpose(pool, image)(out)[0], pull(out)[0], rtol=1e-6)
    assert all(leaf.size < image.size for leaf in jax.tree.leaves(pull))


@pytest.fixture
def symbols_as_sizes():
    """Annotations say that sizes are ints. They are not checked here."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("symbols_as_sizes")
@pytest.mark.parametrize("pool", [cnn.max_pool, cnn.min_pool, cnn.max_abs_pool])
@pytest.mark.parametrize("options", [{}, {"window": 3}], ids=str)
def test_gradients_of_symbolic_sizes_are_exported(pool, options):
    shape = jax.export.symbolic_shape("h, w", constraints=("h >= 3", "w >= 3"))
    gradient = jax.jit(jax.grad(lambda image: (pool(image, **options) ** 2).sum()))
    exported = jax.export.export(gradient)(jax.ShapeDtypeStruct(shape, jnp.float32))
    image = noise(0, 7, 8)
    np.testing.assert_allclose(exported.call(image), gradient(image), rtol=1e-6)


def test_an_eager_gradient_compiles_once(caplog):
    windows = Windows((3, 2), (1, 2), ((0, 0), (0, 0)))
    gradient = jax.grad(lambda image: max_windows(image, windows).sum())
    gradient(jnp.asarray(noise(0, 6, 6)))
    other = jnp.asarray(noise(1, 6, 6))
    with jax.log_compiles(), caplog.at_level("WARNING"):
        gradient(other)
    assert [record.message for record in caplog.records if "ompil" in record.message] == []
