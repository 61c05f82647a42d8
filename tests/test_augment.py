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
# An image whose pixels are their own places: bilinear reading is exact, and tells where every pixel comes from.
PLACES = jnp.stack(jnp.meshgrid(jnp.arange(13.0), jnp.arange(13.0), indexing="ij"), -1)
MANY = 4000


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
@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1)])
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


def many(vary, *args):
    keys = jax.random.split(jax.random.key(2), MANY)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda key: vary(key, *args)))(keys))


def test_affine_draws_evenly_and_apart():
    most = {"angle": 0.3, "scale": 0.2, "shear": 0.4, "shift": 1.5}
    came_from = many(functools.partial(augment.affine, **most), PLACES)[:, 5:8, 5:8] - 6
    back = np.stack([came_from[:, 2, 1] - came_from[:, 1, 1], came_from[:, 1, 2] - came_from[:, 1, 1]], -1)
    matrix = np.linalg.inv(back)
    shift = np.einsum("nij,nj->ni", matrix, -came_from[:, 1, 1])
    angle = np.arctan2(-matrix[:, 0, 1], matrix[:, 1, 1])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    (rows, _), (leaning, columns) = np.einsum("jin,njk->ikn", turn, matrix)
    scales = np.log([rows, columns]) / np.log(1.2)
    draws = np.stack([angle / 0.3, *scales, -leaning / rows / 0.4, *(shift.T / 1.5)])
    assert np.abs(draws).max() < 1.001
    assert np.abs(draws).max(1).min() > 0.99
    np.testing.assert_allclose(draws.mean(1), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(draws), np.eye(6) / 3, atol=0.03)


def test_elastic_moves_deviate_by_the_strength():
    moves = many(functools.partial(augment.elastic, strength=0.5, grid=3), PLACES) - np.asarray(PLACES)
    weights = np.sqrt(np.sum(cubic_weights(13, 3) ** 2, 1))
    expected = 0.5 * np.broadcast_to(np.outer(weights, weights)[..., None], (13, 13, 2))
    inner = slice(3, -3)  # where nothing comes from beyond the border
    np.testing.assert_allclose(moves.mean(0)[inner, inner], 0, atol=0.04)
    np.testing.assert_allclose(moves.std(0)[inner, inner], expected[inner, inner], rtol=0.06)
    across = np.mean(moves[:, 6, 6, 0] * moves[:, 6, 6, 1])
    assert abs(across) < 0.02  # rows and columns are moved apart
    assert (round(weights.min() ** 2, 1), round(weights.max() ** 2, 1)) == (0.6, 1.3)  # as the docstring says


def test_shift_draws_every_place_alike():
    dot = jnp.zeros((5, 5)).at[2, 2].set(1)
    places = many(functools.partial(augment.shift, fill=0.0), dot).sum(0)
    np.testing.assert_allclose(places / MANY, 1 / 25, atol=0.015)


def test_cutout_covers_every_place_as_often_as_squares_reach_it():
    covered = many(functools.partial(augment.cutout, size=4), jnp.ones((8, 10))) == 0
    often = [
        [np.mean([c - 2 <= place < c + 2 for c in range(length)]) for place in range(length)] for length in (8, 10)
    ]
    np.testing.assert_allclose(covered.mean(0), np.outer(*often), atol=0.04)


WHITE, BLACK = (jnp.ones((8, 10)), LABEL), (jnp.zeros((8, 10)), OTHER_LABEL)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_mixup_draws_shares_from_beta(alpha):
    share = many(functools.partial(augment.mixup, alpha=alpha), WHITE, BLACK)[1][:, 0]
    assert share.mean() == pytest.approx(0.5, abs=0.02)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_cutmix_draws_areas_from_beta_less_what_hangs_over(alpha):
    generator, expected = np.random.default_rng(0), []
    for area in generator.beta(alpha, alpha, 20_000):
        inside = []
        for length in (8, 10):
            side = round(np.sqrt(area) * length)
            first = generator.integers(length) - side // 2
            inside.append(min(first + side, length) - max(first, 0))
        expected.append(np.prod(inside) / 80)
    area = many(functools.partial(augment.cutmix, alpha=alpha), WHITE, BLACK)[1][:, 1]
    assert area.mean() == pytest.approx(np.mean(expected), abs=0.02)
    assert area.std() == pytest.approx(np.std(expected), abs=0.02)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_labels_of_16_bits_get_the_share_of_all_pixels(dtype):
    """Of 2560 pixels: more than 16 bits can count."""
    first, second = (jnp.ones((40, 64), dtype), LABEL.astype(dtype)), (jnp.zeros((40, 64)), OTHER_LABEL.astype(dtype))
    for seed in range(5):
        image, label = augment.cutmix(jax.random.key(seed), first, second)
        share = np.asarray(image, np.float32).mean()
        np.testing.assert_array_equal(label, jnp.array([share, 1 - share]).astype(dtype))


def test_mixed_dtypes_keep_their_own():
    other = (OTHER.astype(jnp.bfloat16), OTHER_LABEL)
    image, label = augment.mixup(jax.random.key(0), (IMAGE.astype(jnp.bfloat16), LABEL), other)
    assert (image.dtype, label.dtype) == (jnp.bfloat16, jnp.float32)
    expected = label[0] * IMAGE + label[1] * OTHER
    np.testing.assert_allclose(image.astype(jnp.float32), expected, atol=0.03)


def every(key, image, label, size):
    """All that takes a number, or draws one, by the same number or a share of it."""
    pair = (image, label), (image[::-1], 1 - label)
    return [
        augment.affine(key, image, angle=size, scale=size, shear=size, shift=size),
        augment.elastic(key, image, strength=size),
        augment.mixup(key, *pair, alpha=size),
        augment.cutmix(key, *pair, alpha=size),
        augment.cutout(key, image, size=4),
        augment.crop(key, image, border=2),
        augment.shift(key, image),
    ]


def test_numbers_may_be_traced():
    got = jax.jit(every)(jax.random.key(0), IMAGE, LABEL, jnp.float32(0.3))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(every(jax.random.key(0), IMAGE, LABEL, 0.3)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_64_bits_change_no_dtype(dtype):
    with jax.enable_x64(True):
        arguments = (IMAGE.astype(dtype), LABEL.astype(dtype))
        for size in (0.3, jnp.float32(0.3), np.float64(0.3)):
            out = jax.eval_shape(functools.partial(every, size=size), jax.random.key(0), *arguments)
            assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype(dtype)}
        traced = jax.eval_shape(every, jax.random.key(0), *arguments, jnp.float32(0.3))
        assert {leaf.dtype for leaf in jax.tree.leaves(traced)} == {jnp.dtype(dtype)}


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
        (lambda key: augment.shift(key, IMAGE, max_shift=0), "max_shift: expected at least 1, got 0"),
        (lambda key: augment.cutout(key, IMAGE, size=0), "size: expected at least 1, got 0"),
        (lambda key: augment.elastic(key, IMAGE, grid=0), "grid: expected at least 1, got 0"),
        (lambda key: augment.mixup(key, (IMAGE, LABEL), (OTHER[1:], LABEL)), r"second: expected the shape of first"),
        (lambda key: augment.cutmix(key, (IMAGE, LABEL), (OTHER, LABEL[1:])), r"second: expected the shape of first"),
        (lambda key: augment.affine(key, IMAGE, scale=-0.1), "scale: expected a finite number of at least 0, got -0.1"),
        (lambda key: augment.elastic(key, IMAGE, grid=5), r"grid: expected at most half of .*\(8, 10\), got 5"),
        (lambda key: augment.mixup(key, (IMAGE, LABEL), (OTHER, LABEL), alpha=0), "alpha: expected .* above 0, got 0"),
        (lambda key: augment.mixup(key, (IMAGE, 1), (OTHER, 0)), "first: expected a label with a probability"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0))


NUMBERS = {
    "angle": lambda value: augment.affine(jax.random.key(0), IMAGE, angle=value),
    "scale": lambda value: augment.affine(jax.random.key(0), IMAGE, scale=value),
    "shear": lambda value: augment.affine(jax.random.key(0), IMAGE, shear=value),
    "shift": lambda value: augment.affine(jax.random.key(0), IMAGE, shift=value),
    "strength": lambda value: augment.elastic(jax.random.key(0), IMAGE, strength=value),
    "alpha": lambda value: augment.cutmix(jax.random.key(0), (IMAGE, LABEL), (OTHER, LABEL), alpha=value),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_finite_numbers(name):
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=f"{name}: expected a finite number.*, got {value}"):
            NUMBERS[name](value)
    for value in ("0.2", (0.1, 0.2), None, 1j, jnp.ones(2)):
        with pytest.raises(TypeError, match=f"{name}: expected a finite number.*, got"):
            NUMBERS[name](value)
