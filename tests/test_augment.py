"""Augmentation: what each variation may do to an image, that one key makes one draw, and that batches are vmapped."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import noise

from cnn_jax import augment

IMAGE = jnp.asarray(noise(0, 8, 10, 3))
LABEL, OTHER_LABEL = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
OTHER = jnp.asarray(noise(1, 8, 10, 3))
SINGLE = {
    "flip": augment.flip,
    "alternating_flip": functools.partial(augment.alternating_flip, epoch=0),
    "crop": augment.crop,
    "shift": augment.shift,
    "affine": functools.partial(augment.affine, shift=1.0),
    "elastic": augment.elastic,
    "cutout": functools.partial(augment.cutout, size=4),
}
MIXED = {"mixup": augment.mixup, "cutmix": augment.cutmix}


@functools.cache
def drawn(name, count=200):
    """Many draws of one image."""
    keys = jax.random.split(jax.random.key(1), count)
    if name in SINGLE:
        return np.asarray(jax.jit(jax.vmap(SINGLE[name], (0, None)))(keys, IMAGE))
    pairs = (IMAGE, LABEL), (OTHER, OTHER_LABEL)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(MIXED[name], (0, None, None)))(keys, *pairs))


@pytest.mark.parametrize("name", SINGLE)
def test_one_key_makes_one_draw_of_the_same_shape(name):
    out = drawn(name)
    assert (out.shape[1:], out.dtype) == (IMAGE.shape, np.float32)
    assert len(np.unique(out.reshape(len(out), -1), axis=0)) > 1
    assert np.isfinite(out).all()
    again = SINGLE[name](jax.random.split(jax.random.key(1), 200)[3], IMAGE)
    np.testing.assert_allclose(again, out[3], atol=1e-5)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 1)])
def test_grey_images_and_integers(name, shape):
    image = jnp.ones(shape, jnp.uint8)
    assert SINGLE[name](jax.random.key(0), image).shape == shape
    assert SINGLE[name](jax.random.key(0), image).dtype == jnp.float32
    assert SINGLE[name](jax.random.key(0), image.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", SINGLE)
def test_batches_are_for_vmap(name):
    with pytest.raises(ValueError, match=r"image: expected shape \(H, W\) or \(H, W, C\).*jax.vmap"):
        SINGLE[name](jax.random.key(0), jnp.ones((2, 6, 7, 1)))


def test_flip_mirrors_half_of_all_images():
    mirrored = np.all(drawn("flip") == np.asarray(IMAGE)[:, ::-1], axis=(1, 2, 3))
    same = np.all(drawn("flip") == np.asarray(IMAGE), axis=(1, 2, 3))
    assert np.all(mirrored ^ same)
    assert 0.4 < mirrored.mean() < 0.6


@given(seed=st.integers(0, 1000), epoch=st.integers(0, 1000))
def test_two_epochs_show_an_image_both_ways(seed, epoch):
    key = jax.random.key(seed)
    pair = [augment.alternating_flip(key, IMAGE, epoch=e) for e in (epoch, epoch + 1, epoch + 2)]
    np.testing.assert_array_equal(pair[0], pair[1][:, ::-1])
    np.testing.assert_array_equal(pair[0], pair[2])


def test_crop_cuts_windows_of_the_reflected_image():
    full = np.pad(IMAGE, [(4, 4), (4, 4), (0, 0)], mode="reflect")
    windows = {full[y : y + 8, x : x + 10].tobytes() for y in range(9) for x in range(9)}
    found = {one.tobytes() for one in drawn("crop")}
    assert found <= windows
    assert len(found) > 60  # of 81, in 200 draws


def test_shift_moves_by_whole_pixels_and_fills():
    full = np.pad(IMAGE, [(2, 2), (2, 2), (0, 0)], constant_values=-1)
    windows = {full[y : y + 8, x : x + 10].tobytes() for y in range(5) for x in range(5)}
    assert {one.tobytes() for one in drawn("shift")} == windows


def test_nothing_to_draw_leaves_the_image_as_it_is():
    key = jax.random.key(0)
    still = augment.affine(key, IMAGE, angle=0.0, scale=0.0, shear=0.0)
    np.testing.assert_allclose(still, IMAGE, atol=1e-5)
    np.testing.assert_allclose(augment.elastic(key, IMAGE, strength=0.0), IMAGE, atol=1e-5)


def test_affine_stays_within_its_limits():
    """A pixel two right of the centre goes where scale and angle may bring it."""
    dot = jnp.zeros((21, 21)).at[10, 18].set(1.0)
    keys = jax.random.split(jax.random.key(0), 100)
    move = functools.partial(augment.affine, angle=0.3, scale=0.2, shear=0.0, fill=0.0)
    moved = np.asarray(jax.jit(jax.vmap(move, (0, None)))(keys, dot))
    mass = moved.sum((1, 2))
    y, x = np.mgrid[:21, :21] - 10
    rows, columns = (np.sum(moved * axis, (1, 2)) / mass for axis in (y, x))
    angle, reach = np.arctan2(-rows, columns), np.hypot(rows, columns)
    assert np.abs(angle).max() < 0.32
    assert np.abs(angle).max() > 0.2
    assert reach.max() < 8 * 1.2 + 0.3
    assert reach.min() > 8 / 1.2 - 0.3


def test_cutout_covers_a_square_of_grey():
    covered = drawn("cutout") == 0
    assert np.all(covered.all(-1) == covered.any(-1))
    areas = covered[..., 0].sum((1, 2))
    assert areas.max() == 16
    assert areas.min() >= 4  # a corner
    rows, columns = covered[..., 0].any(2).sum(1), covered[..., 0].any(1).sum(1)
    np.testing.assert_array_equal(areas, rows * columns)
    untouched = np.where(covered, IMAGE, drawn("cutout"))
    np.testing.assert_array_equal(untouched, np.broadcast_to(IMAGE, untouched.shape))


def test_mixup_mixes_images_as_labels():
    images, labels = drawn("mixup")
    share = labels[:, 0]
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
    assert share.min() < 0.05
    assert share.max() > 0.95
    share = share[:, None, None, None]
    expected = share * np.asarray(IMAGE) + (1 - share) * np.asarray(OTHER)
    np.testing.assert_allclose(images, expected, atol=1e-5)


def test_cutmix_mixes_areas_as_labels():
    images, labels = drawn("cutmix")
    other = images == np.asarray(OTHER)
    np.testing.assert_allclose(other[..., 0].mean((1, 2)), labels[:, 1], atol=1e-6)
    assert np.all(other.all(-1) == other.any(-1))
    np.testing.assert_array_equal(np.where(other, IMAGE, images), np.broadcast_to(IMAGE, images.shape))
    assert labels[:, 1].min() == 0
    assert labels[:, 1].max() > 0.7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda key: augment.crop(key, IMAGE, border=8), r"border: expected less than the image of \(8, 10\), got 8"),
        (lambda key: augment.crop(key, IMAGE, border=0), "border: expected at least 1, got 0"),
        (lambda key: augment.shift(key, IMAGE, most=0), "most: expected at least 1, got 0"),
        (lambda key: augment.cutout(key, IMAGE, size=0), "size: expected at least 1, got 0"),
        (lambda key: augment.elastic(key, IMAGE, grid=0), "grid: expected at least 1, got 0"),
        (lambda key: augment.mixup(key, (IMAGE, LABEL), (OTHER[1:], LABEL)), r"second: expected the shape of first"),
        (lambda key: augment.cutmix(key, (IMAGE, LABEL), (OTHER, LABEL[1:])), r"second: expected the shape of first"),
        (lambda key: augment.affine(key, IMAGE, scale=-0.1), "scale: expected at least 0, got -0.1"),
        (lambda key: augment.mixup(key, (IMAGE, LABEL), (OTHER, LABEL), alpha=0), "alpha: expected more than 0, got 0"),
        (lambda key: augment.mixup(key, (IMAGE, 1), (OTHER, 0)), "first: expected a label with a probability"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0))
