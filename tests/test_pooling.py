from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

import cnn_jax as cnn
from tests.helpers import oracles
from tests.helpers.oracles import LAYOUTS, layout_id, layouts, noise, seeds, whole, windows_with

POOLS = {
    cnn.max_pool: np.max,
    cnn.min_pool: np.min,
    cnn.avg_pool: np.mean,
    cnn.max_abs_pool: oracles.largest_magnitude,
}
each_pool = pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.__name__)


def pools(image, **options):
    return [pool(image, **options) for pool in POOLS]


all_pools = jax.jit(pools, static_argnames=("window", "stride", "padding"))


@pytest.mark.parametrize("layout", LAYOUTS, ids=layout_id)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_pools_equal_the_reference(layout, channels):
    options = dict(layout)
    image = whole(0, *options.pop("shape"), *channels)
    for reduce, got in zip(POOLS.values(), all_pools(image, **options), strict=True):
        np.testing.assert_allclose(got, oracles.pool(image, reduce, **options), rtol=1e-6)


@pytest.mark.slow
@each_pool
@given(layout=layouts(), channels=st.sampled_from([(), (1,), (3,)]), seed=seeds)
def test_pools_equal_the_reference_for_drawn_layouts(pool, layout, channels, seed):
    image = whole(seed, *layout.pop("shape"), *channels)
    got = jax.jit(partial(pool, **layout))(image)
    np.testing.assert_allclose(got, oracles.pool(image, POOLS[pool], **layout), rtol=1e-6)


def test_defaults_are_whole_windows_of_two_by_two():
    image = whole(0, 5, 6)
    for reduce, got in zip(POOLS.values(), all_pools(image), strict=True):
        assert got.shape == (2, 3)
        np.testing.assert_array_equal(got, oracles.pool(image, reduce))


@pytest.mark.parametrize("padding", ["SAME", "CEIL", ((1, 1), (0, 1))])
def test_padded_pixels_never_count(padding):
    for fill in (-3.0, 3.0):  # any value of a padded pixel lies on the wrong side of one of these
        image = np.full((3, 5), fill, np.float32)
        for got in all_pools(image, padding=padding):
            assert (np.asarray(got) == fill).all()


def test_ceil_keeps_the_last_partial_window_and_same_centers():
    image = np.arange(7.0)[None]
    for window, padding, expected in [
        ((1, 3), "CEIL", [2, 4, 6]),
        ((1, 3), "SAME", [1, 3, 5, 6]),
        ((1, 2), "CEIL", [1, 3, 5, 6]),
        ((1, 2), "VALID", [1, 3, 5]),
    ]:
        np.testing.assert_array_equal(cnn.max_pool(image, window=window, padding=padding), [expected])


def test_max_abs_keeps_the_sign_and_prefers_plus():
    image = jnp.array([[1.0, -3.0, -2.0, 2.0], [2.0, 0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(cnn.max_abs_pool(image), [[-3.0, 2.0]])


@pytest.mark.parametrize("channels", [(), (3,)])
def test_global_avg_pool_is_the_mean_of_every_channel(channels):
    image = whole(0, 5, 7, *channels)
    got = cnn.global_avg_pool(image)
    assert got.shape == channels
    np.testing.assert_allclose(got, image.astype(np.float64).mean((0, 1)), rtol=1e-6)


@pytest.mark.parametrize("pixel", [(0, 0), (3, 4), (6, 7)])
def test_a_nan_spoils_only_the_windows_that_hold_it(pixel):
    image = whole(0, 7, 8)
    clean = all_pools(image, window=3, stride=1)
    hit = windows_with(pixel, (7, 8), 3)
    image[pixel] = np.nan
    for got, before in zip(all_pools(image, window=3, stride=1), clean, strict=True):
        assert np.isnan(np.asarray(got)[hit]).all()
        np.testing.assert_array_equal(np.asarray(got)[~hit], np.asarray(before)[~hit])


@each_pool
def test_gradients_agree_with_differences(pool):
    # Magnitudes differ by more than the step of the differences: no ties and no change of the largest pixel.
    magnitudes = np.random.default_rng(0).permutation(np.arange(1.0, 26))
    image = (magnitudes * np.where(np.arange(25) % 3, 1, -1)).reshape(5, 5) / 25
    with jax.enable_x64(True):
        check_grads(jax.jit(partial(pool, window=(3, 2), padding="CEIL")), (image,), order=1, rtol=1e-5)


def check_first_of_equal_values(layout, seed, gradient):
    """Compares the gradient of a weighted sum of `max_pool` of zeros and ones with the first largest pixels."""
    shape = layout.pop("shape")
    image = np.random.default_rng(seed).integers(0, 2, shape).astype(np.float32)
    indices = np.arange(image.size).reshape(shape)
    chosen = oracles.pool(indices, lambda window: window[np.argmax(image.flat[window.astype(int)])], **layout)
    weights = whole(seed, *chosen.shape)
    got = gradient(image, weights)
    expected = np.bincount(chosen.astype(int).flat, weights.flat, image.size)
    np.testing.assert_array_equal(got.reshape(-1), expected)


def gradient_of_max_pool(layout):
    options = {name: value for name, value in layout.items() if name != "shape"}
    return jax.jit(jax.grad(lambda image, weights: jnp.sum(cnn.max_pool(image, **options) * weights)))


@pytest.mark.parametrize("layout", LAYOUTS, ids=layout_id)
def test_the_first_of_equal_values_takes_the_whole_gradient(layout):
    gradient = gradient_of_max_pool(layout)
    for seed in range(10):
        check_first_of_equal_values(dict(layout), seed, gradient)


@pytest.mark.slow
@given(layout=layouts(), seed=seeds)
def test_the_first_of_equal_values_takes_the_whole_gradient_for_drawn_layouts(layout, seed):
    check_first_of_equal_values(layout, seed, gradient_of_max_pool(layout))


@pytest.mark.parametrize("pool", [cnn.max_pool, cnn.min_pool, cnn.max_abs_pool])
def test_of_a_flat_window_the_first_pixel_takes_the_gradient(pool):
    gradient = jax.jit(jax.grad(lambda x: pool(x, window=(2, 3), stride=(2, 1)).sum()))
    for value in (-2.0, 2.0):
        np.testing.assert_array_equal(gradient(jnp.full((2, 4), value)), [[1, 1, 0, 0], [0, 0, 0, 0]])


def test_vmap_equals_a_loop():
    images = whole(0, 3, 5, 6, 2)
    batched = jax.jit(jax.vmap(partial(pools, padding="CEIL")))(images)
    for reduce, got in zip(POOLS.values(), batched, strict=True):
        looped = [oracles.pool(image, reduce, padding="CEIL") for image in images]
        np.testing.assert_allclose(got, looped, rtol=1e-6)


def test_integers_become_float32():
    image = (np.arange(20).reshape(4, 5) % 3).astype(np.uint8)
    run = jax.jit(lambda image: [*pools(image), cnn.global_avg_pool(image)])
    for got, expected in zip(run(image), run(image.astype(np.float32)), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_floats_add_up_in_float32(dtype):
    large = 4 / float(jnp.finfo(dtype).eps)
    numbers = np.random.default_rng(0).permutation([large] * 4 + [-large] * 4 + [1.0] * 8)
    image = jnp.asarray(numbers.reshape(4, 4), dtype)
    for mean in (cnn.avg_pool(image, window=4)[0, 0], cnn.global_avg_pool(image)):
        assert (float(mean), mean.dtype) == (0.5, jnp.dtype(dtype))
    assert jax.eval_shape(cnn.max_pool, image).dtype == jnp.dtype(dtype)


def test_float64_stays_float64():
    image = noise(0, 5, 6).astype(np.float64) + 1e-12
    with jax.enable_x64(True):
        results = all_pools(image)
    for reduce, got in zip(POOLS.values(), results, strict=True):
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, oracles.pool(image, reduce), rtol=1e-15)


IMAGE = np.ones((6, 7, 2), np.float32)
ERRORS = [
    (IMAGE[0, 0], {}, ValueError, r"image: .*\(H, W\) or \(H, W, C\), got \(2,\)"),
    (IMAGE[None], {}, ValueError, r"image: .*got \(1, 6, 7, 2\); use jax.vmap"),
    (IMAGE[:, :0], {}, ValueError, r"image: .*empty shape \(6, 0, 2\)"),
    (IMAGE * 1j, {}, TypeError, "image: expected a real array .*, got complex64"),
    (IMAGE, {"window": 7}, ValueError, r"window: expected at most .* padded image \(6, 7\), got \(7, 7\)"),
    (IMAGE, {"window": (0, 1)}, ValueError, r"window: expected at least 1, got \(0, 1\)"),
    (IMAGE, {"window": (2,)}, TypeError, r"window: expected an int or two ints, got \(2,\)"),
    (IMAGE, {"stride": -1}, ValueError, "stride: expected at least 1, got -1"),
    (IMAGE, {"stride": 0.5}, TypeError, "stride: expected an int or two ints, got 0.5"),
    (IMAGE, {"padding": "FULL"}, ValueError, "padding: expected 'VALID', 'SAME', 'CEIL' or .*, got 'FULL'"),
    (IMAGE, {"padding": None}, TypeError, "padding: expected 'VALID'.*, got None"),
    (IMAGE, {"padding": ((0, 0), (2, 0))}, ValueError, r"padding: expected less than the window \(2, 2\)"),
]


@each_pool
@pytest.mark.parametrize(("image", "options", "error", "message"), ERRORS)
def test_pools_name_the_wrong_argument(pool, image, options, error, message):
    with pytest.raises(error, match=message):
        pool(image, **options)


@pytest.mark.parametrize("image", [IMAGE[0, 0], IMAGE[None], IMAGE[:0]])
def test_global_avg_pool_names_the_wrong_image(image):
    with pytest.raises(ValueError, match="image: expected"):
        cnn.global_avg_pool(image)
