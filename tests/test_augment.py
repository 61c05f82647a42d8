"""Augmentation: what each variation may do to an image, that one key makes one draw, and that batches are vmapped."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_jax import augment
from tests.helpers.oracles import cubic_weights, noise

KEY = jax.random.key(0)
IMAGE = jnp.asarray(noise(0, 8, 10, 3))
VARIATIONS = {
    "flip": augment.flip,
    "alternating_flip": functools.partial(augment.alternating_flip, epoch=0),
    "crop": augment.crop,
    "shift": augment.shift,
    "affine": functools.partial(augment.affine, shift=1.0),
    "elastic": augment.elastic,
    "cutout": functools.partial(augment.cutout, size=4),
}
# Each pixel holds its own position: bilinear interpolation of it is exact and tells where every pixel comes from.
POSITIONS = jnp.stack(jnp.meshgrid(jnp.arange(13.0), jnp.arange(13.0), indexing="ij"), -1)
MANY = 4000


def draw(vary, image, count, seed=1):
    """Many draws of one image, as one program."""
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(jax.jit(jax.vmap(vary, (0, None)))(keys, image))


@functools.cache
def draws_of(name):
    return draw(VARIATIONS[name], IMAGE, 200)


@pytest.mark.parametrize("name", VARIATIONS)
def test_one_key_makes_one_draw_of_the_same_shape(name):
    draws = draws_of(name)
    assert (draws.shape[1:], draws.dtype) == (IMAGE.shape, np.float32)
    assert len(np.unique(draws.reshape(len(draws), -1), axis=0)) > 1
    assert np.isfinite(draws).all()
    key = jax.random.split(jax.random.key(1), 200)[3]
    np.testing.assert_allclose(jax.jit(VARIATIONS[name])(key, IMAGE), draws[3], atol=1e-5)


@pytest.mark.parametrize("name", VARIATIONS)
@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1)])
def test_gray_images_and_integers(name, shape):
    for dtype, expected in ((jnp.uint8, jnp.float32), (jnp.bfloat16, jnp.bfloat16)):
        out = jax.eval_shape(VARIATIONS[name], KEY, jnp.ones(shape, dtype))
        assert (out.shape, out.dtype) == (shape, expected)


@pytest.mark.parametrize("name", VARIATIONS)
def test_batches_are_for_vmap(name):
    with pytest.raises(ValueError, match=r"image: expected shape \(H, W\) or \(H, W, C\).*jax.vmap"):
        VARIATIONS[name](KEY, jnp.ones((2, 6, 7, 1)))


def test_flip_mirrors_half_of_all_images():
    is_mirrored = np.all(draws_of("flip") == np.asarray(IMAGE)[:, ::-1], axis=(1, 2, 3))
    is_same = np.all(draws_of("flip") == np.asarray(IMAGE), axis=(1, 2, 3))
    assert np.all(is_mirrored ^ is_same)
    assert 0.4 < is_mirrored.mean() < 0.6


@jax.jit
def three_epochs(key, epoch):
    return [augment.alternating_flip(key, IMAGE, epoch=epoch + i) for i in range(3)]


@given(seed=st.integers(0, 1000), epoch=st.integers(0, 1000))
def test_two_epochs_show_an_image_both_ways(seed, epoch):
    first, second, third = three_epochs(jax.random.key(seed), epoch)
    np.testing.assert_array_equal(first, second[:, ::-1])
    np.testing.assert_array_equal(first, third)


def test_epochs_may_be_python_ints():
    images = [augment.alternating_flip(KEY, IMAGE, epoch=epoch) for epoch in (4, 5)]
    for image, traced in zip(images, three_epochs(KEY, 4), strict=False):
        np.testing.assert_array_equal(image, traced)


def windows_of(padded, border):
    """All windows of the image's size in a padded image, as bytes."""
    offsets = range(2 * border + 1)
    return {padded[y : y + 8, x : x + 10].tobytes() for y in offsets for x in offsets}


def test_crop_cuts_windows_of_the_reflected_image():
    windows = windows_of(np.pad(IMAGE, [(4, 4), (4, 4), (0, 0)], mode="reflect"), 4)
    drawn_windows = {image.tobytes() for image in draws_of("crop")}
    assert drawn_windows <= windows
    assert len(drawn_windows) > 60  # of 81, in 200 draws


def test_shift_moves_by_whole_pixels_and_fills():
    windows = windows_of(np.pad(IMAGE, [(2, 2), (2, 2), (0, 0)], constant_values=-1), 2)
    assert {image.tobytes() for image in draws_of("shift")} == windows


def test_nothing_to_draw_leaves_the_image_as_it_is():
    still = functools.partial(augment.affine, angle=0.0, scale=0.0, shear=0.0)
    np.testing.assert_allclose(jax.jit(still)(KEY, IMAGE), IMAGE, atol=1e-5)
    undeformed = functools.partial(augment.elastic, strength=0.0)
    np.testing.assert_allclose(jax.jit(undeformed)(KEY, IMAGE), IMAGE, atol=1e-5)


def test_affine_stays_within_its_limits():
    """A pixel eight right of the center goes where scale and angle may bring it."""
    dot = jnp.zeros((21, 21)).at[10, 18].set(1.0)
    moved = draw(functools.partial(augment.affine, angle=0.3, scale=0.2, shear=0.0, fill=0.0), dot, 100, seed=0)
    mass = moved.sum((1, 2))
    y, x = np.mgrid[:21, :21] - 10
    rows, columns = (np.sum(moved * axis, (1, 2)) / mass for axis in (y, x))
    angle = np.arctan2(-rows, columns)
    distance = np.hypot(rows, columns)
    assert np.abs(angle).max() < 0.32
    assert np.abs(angle).max() > 0.2
    assert distance.max() < 8 * 1.2 + 0.3
    assert distance.min() > 8 / 1.2 - 0.3


def test_affine_draws_uniformly_and_independently():
    vary = functools.partial(augment.affine, angle=0.3, scale=0.2, shear=0.4, shift=1.5)
    came_from = draw(vary, POSITIONS, MANY, seed=2)[:, 5:8, 5:8] - 6
    inverse = np.stack([came_from[:, 2, 1] - came_from[:, 1, 1], came_from[:, 1, 2] - came_from[:, 1, 1]], -1)
    matrix = np.linalg.inv(inverse)
    shift = np.einsum("nij,nj->ni", matrix, -came_from[:, 1, 1])
    angle = np.arctan2(-matrix[:, 0, 1], matrix[:, 1, 1])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    (rows, _), (sheared, columns) = np.einsum("jin,njk->ikn", rotation, matrix)
    log_scales = np.log([rows, columns]) / np.log(1.2)
    draws = np.stack([angle / 0.3, *log_scales, -sheared / rows / 0.4, *(shift.T / 1.5)])
    assert np.abs(draws).max() < 1.001
    assert np.abs(draws).max(1).min() > 0.99
    np.testing.assert_allclose(draws.mean(1), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(draws), np.eye(6) / 3, atol=0.03)


def test_elastic_displacements_deviate_by_the_strength():
    vary = functools.partial(augment.elastic, strength=0.5, grid=3)
    displacements = draw(vary, POSITIONS, MANY, seed=2) - np.asarray(POSITIONS)
    weights = np.sqrt(np.sum(cubic_weights(13, 3) ** 2, 1))
    expected = 0.5 * np.broadcast_to(np.outer(weights, weights)[..., None], (13, 13, 2))
    inner = slice(3, -3)  # no pixel there comes from outside the image
    np.testing.assert_allclose(displacements.mean(0)[inner, inner], 0, atol=0.04)
    np.testing.assert_allclose(displacements.std(0)[inner, inner], expected[inner, inner], rtol=0.06)
    between_axes = np.mean(displacements[:, 6, 6, 0] * displacements[:, 6, 6, 1])
    assert abs(between_axes) < 0.02  # rows and columns are moved independently
    assert (round(weights.min() ** 2, 1), round(weights.max() ** 2, 1)) == (0.6, 1.3)  # as the docstring says


def test_shift_draws_all_positions_alike():
    dot = jnp.zeros((5, 5)).at[2, 2].set(1)
    counts = draw(functools.partial(augment.shift, fill=0.0), dot, MANY, seed=2).sum(0)
    np.testing.assert_allclose(counts / MANY, 1 / 25, atol=0.015)


def test_cutout_covers_every_pixel_as_often_as_squares_reach_it():
    covered = draw(VARIATIONS["cutout"], jnp.ones((8, 10)), MANY, seed=2) == 0
    rows, columns = (
        [np.mean([center - 2 <= pixel < center + 2 for center in range(size)]) for pixel in range(size)]
        for size in (8, 10)
    )
    np.testing.assert_allclose(covered.mean(0), np.outer(rows, columns), atol=0.04)


def test_cutout_covers_a_square_of_gray():
    covered = draws_of("cutout") == 0
    assert np.all(covered.all(-1) == covered.any(-1))
    areas = covered[..., 0].sum((1, 2))
    assert areas.max() == 16
    assert areas.min() >= 4  # a corner
    rows = covered[..., 0].any(2).sum(1)
    columns = covered[..., 0].any(1).sum(1)
    np.testing.assert_array_equal(areas, rows * columns)
    untouched = np.where(covered, IMAGE, draws_of("cutout"))
    np.testing.assert_array_equal(untouched, np.broadcast_to(IMAGE, untouched.shape))


def vary_all(key, image, amount):
    """All variations, those that take a number by the same number."""
    return [
        augment.affine(key, image, angle=amount, scale=amount, shear=amount, shift=amount),
        augment.elastic(key, image, strength=amount),
        augment.cutout(key, image, size=4),
        augment.crop(key, image, border=2),
        augment.shift(key, image),
    ]


def test_numbers_may_be_traced():
    traced = jax.jit(vary_all)(KEY, IMAGE, jnp.float32(0.3))
    expected = jax.jit(functools.partial(vary_all, amount=0.3))(KEY, IMAGE)
    for got, image in zip(traced, expected, strict=True):
        np.testing.assert_allclose(got, image, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_64_bits_change_no_dtype(dtype):
    with jax.enable_x64(True):
        image = IMAGE.astype(dtype)
        for amount in (0.3, jnp.float32(0.3), np.float64(0.3)):
            out = jax.eval_shape(functools.partial(vary_all, amount=amount), KEY, image)
            assert {leaf.dtype for leaf in out} == {jnp.dtype(dtype)}
        traced = jax.eval_shape(vary_all, KEY, image, jnp.float32(0.3))
        assert {leaf.dtype for leaf in traced} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (augment.crop, {"border": 8}, r"border: expected less than both sides of the image \(8, 10\), got 8"),
        (augment.crop, {"border": 0}, "border: expected at least 1, got 0"),
        (augment.shift, {"max_shift": 0}, "max_shift: expected at least 1, got 0"),
        (augment.cutout, {"size": 0}, "size: expected at least 1, got 0"),
        (augment.elastic, {"grid": 0}, "grid: expected at least 1, got 0"),
        (augment.elastic, {"grid": 5}, r"grid: expected at most half of .*\(8, 10\), got 5"),
        (augment.affine, {"angle": 15}, "angle: expected a finite number up to 2 pi, got 15"),
        (augment.affine, {"scale": -0.1}, "scale: expected a finite number of at least 0, got -0.1"),
    ],
)
def test_bad_arguments(function, options, message):
    with pytest.raises(ValueError, match=message):
        function(KEY, IMAGE, **options)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (augment.affine, "angle"),
        (augment.affine, "scale"),
        (augment.affine, "shear"),
        (augment.affine, "shift"),
        (augment.elastic, "strength"),
    ],
)
def test_numbers_are_finite_numbers(function, name):
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=f"{name}: expected a finite number.*, got {value}"):
            function(KEY, IMAGE, **{name: value})
    for value in ("0.2", (0.1, 0.2), None, 1j, jnp.ones(2)):
        with pytest.raises(TypeError, match=f"{name}: expected a finite number.*, got"):
            function(KEY, IMAGE, **{name: value})
