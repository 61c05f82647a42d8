"""Drawn letters: the article's glyph, ranges, keys, and the effect of each strength."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.data import xo

BATCH_SIZE = 256
KEYS = jax.random.split(jax.random.key(0), BATCH_SIZE)
COMPILER_OPTIONS = {"xla_backend_optimization_level": 0}  # compiling takes longer than drawing
TRACES = []


@functools.partial(jax.jit, compiler_options=COMPILER_OPTIONS)
def draw_batch(strengths):
    TRACES.append(strengths)
    return jax.vmap(lambda key: xo.draw(key, **strengths))(KEYS)


@functools.cache
def cached_drawings(items):
    images, labels = draw_batch({name: jnp.float32(value) for name, value in items})
    return np.asarray(images), np.asarray(labels)


def draw_letters(label=None, base=0.0, **strengths):
    """Drawings (N, 28, 28) and labels, of one label or of both; strengths that are not given are `base`."""
    images, labels = cached_drawings(tuple((dict.fromkeys(xo.CLEAN, base) | strengths).items()))
    return (images, labels) if label is None else (images[labels == label], labels[labels == label])


@pytest.fixture(scope="module")
def glyphs():
    """Clean drawings of X and O in turn on the article's 9x9 pixels, one for every key, and their labels."""
    draw = jax.vmap(lambda key, label: xo.draw(key, size=9, label=label, **xo.CLEAN))
    draw = jax.jit(draw, compiler_options=COMPILER_OPTIONS)
    return jax.tree.map(np.asarray, draw(KEYS, jnp.arange(BATCH_SIZE) % 2))


def ink(images):
    """The share of ink on every pixel."""
    return (images + 1) / 2


def moments(images):
    """Mean and standard deviation of the ink's rows and columns, in pixels, of every drawing."""
    weight = ink(images) / ink(images).sum((1, 2), keepdims=True)
    positions = np.stack(np.indices(images.shape[1:]))
    mean = np.einsum("nij,aij->na", weight, positions)
    return mean, np.sqrt(np.einsum("nij,aij->na", weight, positions**2) - mean**2)


def test_clean_x_is_the_articles(glyphs):
    expected = np.full((9, 9), -1.0)
    for i in range(1, 8):
        expected[i, i] = expected[i, 8 - i] = 1
    images = glyphs[0][::2]
    np.testing.assert_allclose(images, np.broadcast_to(expected, images.shape), atol=1e-6)


def test_clean_o_is_one_ring_in_the_middle(glyphs):
    images = glyphs[0][1::2]
    np.testing.assert_allclose(images, np.broadcast_to(images[0], images.shape), atol=0.3)
    mean = images.mean(axis=0)
    np.testing.assert_allclose(mean, mean.T, atol=0.05)
    np.testing.assert_allclose(mean, mean[:, ::-1], atol=0.05)
    assert images[:, 3:6, 3:6].max() == images[:, [0, 8]].max() == -1
    assert images[:, [1, 4, 4, 7], [4, 1, 7, 4]].min() > 0


def test_classes_name_the_labels():
    assert xo.CLASSES == ("X", "O")
    assert set(xo.CLEAN.values()) == {0}


def test_a_given_label_is_returned(glyphs):
    assert glyphs[1].dtype == np.int32
    np.testing.assert_array_equal(glyphs[1], np.arange(BATCH_SIZE) % 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label": 2}, ValueError, "label: expected 0 or 1, got 2"),
        ({"label": -1}, ValueError, "label: expected 0 or 1, got -1"),
        ({"size": 0}, ValueError, "size: expected at least 1, got 0"),
        ({"size": 9.0}, TypeError, "size: expected an int, got 9.0"),
    ],
)
def test_invalid_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        xo.draw(KEYS[0], **options)


def test_labels_are_drawn_about_equally_often():
    assert 96 <= draw_letters()[1].sum() <= 160


def test_labels_belong_to_the_image():
    images, labels = draw_letters()
    np.testing.assert_array_equal(images[:, 13, 13] < 0, labels == 1)  # an O is empty in the middle


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_range_and_dtype_at_any_strength(strength):
    images, labels = draw_letters(base=strength)
    assert images.shape == (BATCH_SIZE, 28, 28)
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert np.isfinite(images).all()
    assert np.abs(images).max() <= 1


@pytest.mark.parametrize("label", [0, 1])
def test_every_drawing_holds_a_letter(label):
    images, _ = draw_letters(label=label, base=1.0, noise=0.0)
    contrast = images.max((1, 2)) - images.min((1, 2))
    assert contrast.min() > 0.5  # the least contrast is 0.4 of 2, and no pen is thinner than a pixel
    ink_share = (images > (images.max((1, 2)) + images.min((1, 2)))[:, None, None] / 2).mean((1, 2))
    assert ink_share.min() > 0.01
    assert ink_share.max() < 0.7


def test_the_same_key_gives_the_same_drawing():
    images = draw_letters(base=1.0)[0]
    cached_drawings.cache_clear()
    np.testing.assert_array_equal(images, draw_letters(base=1.0)[0])
    assert len(np.unique(images.reshape(BATCH_SIZE, -1), axis=0)) == BATCH_SIZE


@pytest.mark.parametrize("strength", list(xo.CLEAN))
def test_every_strength_changes_the_drawing_and_keeps_the_label(strength):
    clean, clean_labels = draw_letters()
    changed, changed_labels = draw_letters(**{strength: 1.0})
    np.testing.assert_array_equal(clean_labels, changed_labels)
    assert (np.abs(changed - clean).mean((1, 2)) > 1e-3).mean() > 0.9


@pytest.mark.parametrize("strength", list(xo.CLEAN))
def test_a_stronger_distortion_is_further_from_the_clean_letter(strength):
    clean = draw_letters()[0]
    near, far = (np.abs(draw_letters(**{strength: value})[0] - clean).mean() for value in (0.25, 1.0))
    assert near < far


def test_shift_moves_the_letter_and_keeps_its_shape():
    clean_center, clean_spread = moments(draw_letters()[0])
    center, spread = moments(draw_letters(shift=1.0)[0])
    np.testing.assert_allclose(clean_spread, spread, atol=0.25)
    np.testing.assert_allclose(clean_center, 13.5, atol=0.01)
    assert (center - clean_center).std(axis=0).min() > 1
    np.testing.assert_array_equal(draw_letters(shift=1.0)[0][:, 0, 0], -1)


def test_shrink_makes_the_letter_smaller_and_does_not_move_it():
    clean_center, clean_spread = moments(draw_letters()[0])
    center, spread = moments(draw_letters(shrink=1.0)[0])
    np.testing.assert_allclose(clean_center, center, atol=0.1)
    scale = spread / clean_spread
    assert np.exp(-0.6) - 0.06 < scale.min() < 0.7
    assert 0.9 < scale.max() < 1.02
    np.testing.assert_allclose(scale[:, 0], scale[:, 1], atol=0.02)


def test_rotate_turns_an_x_by_up_to_45_degrees_and_leaves_an_o():
    ring = draw_letters(label=1)[0]
    rotated_ring = draw_letters(label=1, rotate=1.0)[0]
    assert np.abs(rotated_ring - ring).mean() < 0.02
    corners = draw_letters(label=0, rotate=1.0)[0][:, [4, 4, 23, 23], [4, 23, 4, 23]]
    assert corners.min() == -1
    np.testing.assert_allclose(moments(draw_letters(label=0, rotate=1.0)[0])[0], 13.5, atol=0.1)


def test_stretch_makes_letters_wider_or_taller():
    rows, columns = moments(draw_letters(stretch=1.0)[0])[1].T
    assert (rows > 1.1 * columns).mean() > 0.25
    assert (columns > 1.1 * rows).mean() > 0.25
    assert max((rows / columns).max(), (columns / rows).max()) < 2.8


def test_slant_moves_the_top_against_the_bottom():
    images = draw_letters(slant=1.0)[0]
    columns = np.arange(28)

    def mean_column(rows):
        weight = ink(images[:, rows]).sum(axis=1)
        return (weight * columns).sum(axis=1) / weight.sum(axis=1)

    lean = mean_column(slice(0, 14)) - mean_column(slice(14, 28))
    assert lean.min() < -1
    assert lean.max() > 1
    assert abs(lean.mean()) < 1


def test_thickness_changes_the_ink():
    clean, changed = (ink(draw_letters(label=1, thickness=value)[0]).sum((1, 2)) for value in (0.0, 1.0))
    ratio = changed / clean
    assert ratio.min() < 0.8
    assert ratio.max() > 1.8


def test_contrast_is_a_change_of_levels_alone():
    clean = draw_letters()[0]
    changed = draw_letters(contrast=1.0)[0]
    low, high = changed.min((1, 2)), changed.max((1, 2))
    half_range = (high - low) / 2
    assert 0.39 < half_range.min() < 0.6
    expected = low[:, None, None] + ink(clean) * (high - low)[:, None, None]
    np.testing.assert_allclose(changed, expected, atol=1e-5)


def test_noise_leaves_the_letter_legible():
    clean, noisy = (draw_letters(noise=value)[0].reshape(BATCH_SIZE, -1) for value in (0.0, 1.0))
    clean, noisy = (x - x.mean(axis=1, keepdims=True) for x in (clean, noisy))
    correlation = (clean * noisy).sum(1) / np.sqrt((clean**2).sum(1) * (noisy**2).sum(1))
    assert correlation.min() > 0.6


def test_strengths_are_traced():
    draw_letters(base=0.3)
    draw_letters(base=0.7)
    assert len(TRACES) == 1
