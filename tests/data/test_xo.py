"""Drawn letters: the article's glyph, ranges, keys, and that each strength is its own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.data import xo

KEYS = jax.random.split(jax.random.key(0), 256)
TRACES = []
# Compiling takes longer than drawing: three times less of it.
QUICKLY = {"xla_backend_optimization_level": 0}


@functools.partial(jax.jit, compiler_options=QUICKLY)
def draw_all(strengths):
    TRACES.append(strengths)
    return jax.vmap(lambda key: xo.draw(key, **strengths))(KEYS)


@functools.cache
def drawings(items):
    images, labels = draw_all({name: jnp.float32(value) for name, value in items})
    return np.asarray(images), np.asarray(labels)


def letters(label=None, base=0.0, **strengths):
    """Drawings of one label or of both, and their labels; all strengths are `base` but those given."""
    images, labels = drawings(tuple((dict.fromkeys(xo.CLEAN, base) | strengths).items()))
    return (images, labels) if label is None else (images[labels == label], labels[labels == label])


@pytest.fixture(scope="module")
def small():
    """Every key's clean drawing of a given label, X and O in turn, on the article's 9x9 pixels, and the labels."""
    draw = jax.vmap(lambda key, label: xo.draw(key, size=9, label=label, **xo.CLEAN))
    draw = jax.jit(draw, compiler_options=QUICKLY)
    return jax.tree.map(np.asarray, draw(KEYS, jnp.arange(256) % 2))


def ink(images):
    """The share of ink on every pixel."""
    return (images + 1) / 2


def moments(images):
    """Mean and standard deviation of the ink's rows and columns, in pixels, of every drawing."""
    weight = ink(images) / ink(images).sum((1, 2), keepdims=True)
    places = np.stack(np.indices(images.shape[1:]))
    mean = np.einsum("nij,aij->na", weight, places)
    return mean, np.sqrt(np.einsum("nij,aij->na", weight, places**2) - mean**2)


def test_clean_x_is_the_articles(small):
    expected = np.full((9, 9), -1.0)
    for i in range(1, 8):
        expected[i, i] = expected[i, 8 - i] = 1
    images = small[0][::2]
    np.testing.assert_allclose(images, np.broadcast_to(expected, images.shape), atol=1e-6)


def test_clean_o_is_one_ring_in_the_middle(small):
    images = small[0][1::2]
    np.testing.assert_allclose(images, np.broadcast_to(images[0], images.shape), atol=0.3)
    mean = images.mean(axis=0)
    np.testing.assert_allclose(mean, mean.T, atol=0.05)
    np.testing.assert_allclose(mean, mean[:, ::-1], atol=0.05)
    assert images[:, 3:6, 3:6].max() == images[:, [0, 8]].max() == -1
    assert images[:, [1, 4, 4, 7], [4, 1, 7, 4]].min() > 0


def test_classes_name_the_labels():
    assert xo.CLASSES == ("X", "O")
    assert set(xo.CLEAN.values()) == {0}


def test_a_given_label_is_handed_back(small):
    assert small[1].dtype == np.int32
    np.testing.assert_array_equal(small[1], np.arange(256) % 2)


def test_labels_are_drawn_about_equally_often():
    assert 96 <= letters()[1].sum() <= 160


def test_labels_belong_to_the_image():
    images, labels = letters()
    np.testing.assert_array_equal(images[:, 13, 13] < 0, labels == 1)  # an O is empty in the middle


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_range_and_dtype_at_any_strength(strength):
    images, labels = letters(base=strength)
    assert images.shape == (256, 28, 28)
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)
    assert np.isfinite(images).all()
    assert np.abs(images).max() <= 1


@pytest.mark.parametrize("label", [0, 1])
def test_every_drawing_holds_a_letter(label):
    images, _ = letters(label=label, base=1.0, noise=0.0)
    span = images.max((1, 2)) - images.min((1, 2))
    assert span.min() > 0.5  # the least contrast is 0.4 of 2, and no pen is thinner than a pixel
    share = (images > (images.max((1, 2)) + images.min((1, 2)))[:, None, None] / 2).mean((1, 2))
    assert share.min() > 0.01
    assert share.max() < 0.7


def test_the_same_key_gives_the_same_drawing():
    one = letters(base=1.0)[0]
    drawings.cache_clear()
    np.testing.assert_array_equal(one, letters(base=1.0)[0])
    assert len(np.unique(one.reshape(256, -1), axis=0)) == 256


@pytest.mark.parametrize("strength", list(xo.CLEAN))
def test_every_strength_changes_the_drawing_and_keeps_the_label(strength):
    (clean, labels), (changed, same) = letters(), letters(**{strength: 1.0})
    np.testing.assert_array_equal(labels, same)
    assert (np.abs(changed - clean).mean((1, 2)) > 1e-3).mean() > 0.9


@pytest.mark.parametrize("strength", list(xo.CLEAN))
def test_a_stronger_distortion_is_further_from_the_clean_letter(strength):
    clean = letters()[0]
    near, far = (np.abs(letters(**{strength: value})[0] - clean).mean() for value in (0.25, 1.0))
    assert near < far


def test_shift_moves_the_letter_and_keeps_its_shape():
    (still, spread), (moved, same) = moments(letters()[0]), moments(letters(shift=1.0)[0])
    np.testing.assert_allclose(spread, same, atol=0.25)
    np.testing.assert_allclose(still, 13.5, atol=0.01)
    assert (moved - still).std(axis=0).min() > 1
    np.testing.assert_array_equal(letters(shift=1.0)[0][:, 0, 0], -1)


def test_shrink_makes_the_letter_smaller_where_it_stands():
    (still, full), (same, small) = moments(letters()[0]), moments(letters(shrink=1.0)[0])
    np.testing.assert_allclose(still, same, atol=0.1)
    share = small / full
    assert np.exp(-0.6) - 0.06 < share.min() < 0.7
    assert 0.9 < share.max() < 1.02
    np.testing.assert_allclose(share[:, 0], share[:, 1], atol=0.02)


def test_rotate_turns_an_x_by_up_to_45_degrees_and_leaves_an_o():
    ring, turned = letters(label=1)[0], letters(label=1, rotate=1.0)[0]
    assert np.abs(turned - ring).mean() < 0.02
    corners = letters(label=0, rotate=1.0)[0][:, [4, 4, 23, 23], [4, 23, 4, 23]]
    assert corners.min() == -1
    np.testing.assert_allclose(moments(letters(label=0, rotate=1.0)[0])[0], 13.5, atol=0.1)


def test_stretch_makes_letters_wider_or_taller():
    rows, columns = moments(letters(stretch=1.0)[0])[1].T
    assert (rows > 1.1 * columns).mean() > 0.25
    assert (columns > 1.1 * rows).mean() > 0.25
    assert max((rows / columns).max(), (columns / rows).max()) < 2.8


def test_slant_moves_the_top_against_the_bottom():
    images = letters(slant=1.0)[0]
    columns = np.arange(28)

    def middle(rows):
        weight = ink(images[:, rows]).sum(axis=1)
        return (weight * columns).sum(axis=1) / weight.sum(axis=1)

    lean = middle(slice(0, 14)) - middle(slice(14, 28))
    assert lean.min() < -1
    assert lean.max() > 1
    assert abs(lean.mean()) < 1


def test_thickness_changes_the_ink():
    clean, changed = (ink(letters(label=1, thickness=value)[0]).sum((1, 2)) for value in (0.0, 1.0))
    ratio = changed / clean
    assert ratio.min() < 0.8
    assert ratio.max() > 1.8


def test_contrast_is_a_change_of_levels_alone():
    clean, changed = letters()[0], letters(contrast=1.0)[0]
    low, high = changed.min((1, 2)), changed.max((1, 2))
    levels = (high - low) / 2
    assert 0.39 < levels.min() < 0.6
    expected = low[:, None, None] + ink(clean) * (high - low)[:, None, None]
    np.testing.assert_allclose(changed, expected, atol=1e-5)


def test_noise_leaves_the_letter_legible():
    clean, noisy = (letters(noise=value)[0].reshape(256, -1) for value in (0.0, 1.0))
    clean, noisy = (x - x.mean(axis=1, keepdims=True) for x in (clean, noisy))
    likeness = (clean * noisy).sum(1) / np.sqrt((clean**2).sum(1) * (noisy**2).sum(1))
    assert likeness.min() > 0.6


def test_strengths_are_traced():
    letters(base=0.3)
    letters(base=0.7)
    assert len(TRACES) == 1
