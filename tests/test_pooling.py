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
from tests.helpers.oracles import layouts, noise, seeds, whole

POOLS = {
    cnn.max_pool: np.max,
    cnn.min_pool: np.min,
    cnn.avg_pool: np.mean,
    cnn.max_abs_pool: oracles.largest_magnitude,
}
each_pool = pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.__name__)


@each_pool
@given(layout=layouts(), channels=st.sampled_from([(), (1,), (3,)]), seed=seeds)
def test_pools_equal_the_reference(pool, layout, channels, seed):
    image = whole(seed, *layout.pop("shape"), *channels)
    got = jax.jit(partial(pool, **layout))(image)
    np.testing.assert_allclose(got, oracles.pool(image, POOLS[pool], **layout), rtol=1e-6)


@each_pool
def test_defaults_are_whole_windows_of_two_by_two(pool):
    image = whole(0, 5, 6)
    got = pool(image)
    assert got.shape == (2, 3)
    np.testing.assert_array_equal(got, oracles.pool(image, POOLS[pool]))


@each_pool
def test_padded_cells_never_count(pool):
    for fill in (-3.0, 3.0):  # any value that a padded cell could hold lies on the wrong side of one of these
        image = np.full((3, 5), fill)
        for padding in ("SAME", "CEIL", ((1, 1), (0, 1))):
            assert (np.asarray(pool(image, padding=padding)) == fill).all()


def test_ceil_keeps_the_last_partial_window_and_same_centres():
    image = np.arange(7.0)[None]
    np.testing.assert_array_equal(cnn.max_pool(image, window=(1, 3), padding="CEIL"), [[2, 4, 6]])
    np.testing.assert_array_equal(cnn.max_pool(image, window=(1, 3), padding="SAME"), [[1, 3, 5, 6]])
    np.testing.assert_array_equal(cnn.max_pool(image, window=(1, 2), padding="CEIL"), [[1, 3, 5, 6]])
    np.testing.assert_array_equal(cnn.max_pool(image, window=(1, 2), padding="VALID"), [[1, 3, 5]])


def test_max_abs_keeps_the_sign_and_prefers_plus():
    image = jnp.array([[1.0, -3.0, -2.0, 2.0], [2.0, 0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(cnn.max_abs_pool(image), [[-3.0, 2.0]])


@pytest.mark.parametrize("channels", [(), (3,)])
def test_global_avg_pool_is_the_mean_of_every_channel(channels):
    image = whole(0, 5, 7, *channels)
    got = cnn.global_avg_pool(image)
    assert got.shape == channels
    np.testing.assert_allclose(got, image.astype(np.float64).mean((0, 1)), rtol=1e-6)


@each_pool
@pytest.mark.parametrize("place", [(0, 0), (3, 4), (6, 7)])
def test_a_nan_spoils_only_the_windows_that_hold_it(pool, place):
    image, spot = whole(0, 7, 8), np.zeros((7, 8))
    spot[place] = 1
    clean = pool(image, window=3, stride=1)
    image[place] = np.nan
    hit = oracles.pool(spot, np.max, window=3, stride=1) == 1
    got = np.asarray(pool(image, window=3, stride=1))
    assert np.isnan(got[hit]).all()
    np.testing.assert_array_equal(got[~hit], clean[~hit])


@each_pool
def test_gradients_agree_with_differences(pool):
    # Magnitudes all apart by more than the step of the differences: no ties and no change of place.
    magnitudes = np.random.default_rng(0).permutation(np.arange(1.0, 26))
    image = (magnitudes * np.where(np.arange(25) % 3, 1, -1)).reshape(5, 5) / 25
    with jax.enable_x64(True):
        check_grads(jax.jit(partial(pool, window=(3, 2), padding="CEIL")), (image,), order=1, rtol=1e-5)


@given(layout=layouts(), seed=seeds)
def test_the_first_of_equal_values_takes_the_whole_gradient(layout, seed):
    shape = layout.pop("shape")
    image = np.random.default_rng(seed).integers(0, 2, shape).astype(np.float32)
    places = np.arange(image.size).reshape(shape)
    taken = oracles.pool(places, lambda p: p[np.argmax(image.flat[p.astype(int)])], **layout).astype(int)
    weights = whole(seed, *taken.shape)
    got = jax.jit(jax.grad(lambda x: jnp.sum(cnn.max_pool(x, **layout) * weights)))(image)
    np.testing.assert_array_equal(got.reshape(-1), np.bincount(taken.flat, weights.flat, image.size))


@pytest.mark.parametrize("pool", [cnn.max_pool, cnn.min_pool, cnn.max_abs_pool])
@pytest.mark.parametrize("value", [-2.0, 2.0])
def test_of_a_flat_window_the_first_pixel_takes_the_gradient(pool, value):
    got = jax.grad(lambda x: pool(x, window=(2, 3), stride=(2, 1)).sum())(jnp.full((2, 4), value))
    np.testing.assert_array_equal(got, [[1, 1, 0, 0], [0, 0, 0, 0]])


@each_pool
def test_vmap_equals_a_loop(pool):
    images = whole(0, 3, 5, 6, 2)
    looped = [oracles.pool(image, POOLS[pool], padding="CEIL") for image in images]
    np.testing.assert_allclose(jax.vmap(partial(pool, padding="CEIL"))(images), looped, rtol=1e-6)


@pytest.mark.parametrize("pool", [*POOLS, cnn.global_avg_pool], ids=lambda pool: pool.__name__)
def test_integers_become_float32(pool):
    image = (np.arange(20).reshape(4, 5) % 3).astype(np.uint8)
    got = pool(image)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, pool(image.astype(np.float32)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_floats_add_up_in_float32(dtype):
    large = 4 / float(jnp.finfo(dtype).eps)
    numbers = np.random.default_rng(0).permutation([large] * 4 + [-large] * 4 + [1.0] * 8)
    image = jnp.asarray(numbers.reshape(4, 4), dtype)
    for mean in (cnn.avg_pool(image, window=4)[0, 0], cnn.global_avg_pool(image)):
        assert (float(mean), mean.dtype) == (0.5, jnp.dtype(dtype))
    assert cnn.max_pool(image).dtype == jnp.dtype(dtype)


@each_pool
def test_float64_stays_float64(pool):
    image = noise(0, 5, 6).astype(np.float64) + 1e-12
    with jax.enable_x64(True):
        got = pool(image)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, oracles.pool(image, POOLS[pool]), rtol=1e-15)


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
