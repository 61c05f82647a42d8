"""Test-time augmentation: the views of images, and the mean over them."""

import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax
from experiments._lib import tta

IMAGES = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype(np.float32)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, 0), (0, -1), (-1, 1)])
def test_a_shifted_view_reflects_the_borders(down, right):
    padded = np.pad(IMAGES, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")
    expected = padded[:, 1 - down : 6 - down, 1 - right : 6 - right]
    np.testing.assert_array_equal(tta.shifted_view(down, right)(jnp.asarray(IMAGES)), expected)


def test_a_shifted_view_moves_pixels_down_and_right():
    shifted = tta.shifted_view(1, -1)(jnp.asarray(IMAGES))
    np.testing.assert_array_equal(shifted[:, 1:, :-1], IMAGES[:, :-1, 1:])


def test_a_shifted_view_may_be_mirrored():
    shifted = tta.shifted_view(-1, 1)(jnp.asarray(IMAGES))
    mirrored = tta.shifted_view(-1, 1, mirrored=True)(jnp.asarray(IMAGES))
    np.testing.assert_array_equal(mirrored, shifted[:, :, ::-1])


def test_dihedral_views_are_all_flips_and_rotations_by_90_degrees():
    views = {view(jnp.asarray(IMAGES)).tobytes() for view in tta.dihedral_views()}
    rotations = [np.rot90(IMAGES, turns, axes=(1, 2)) for turns in range(4)]
    expected = {rotated.tobytes() for rotated in rotations}
    expected |= {np.ascontiguousarray(rotated[:, ::-1]).tobytes() for rotated in rotations}
    assert views == expected
    assert len(views) == 8


def flat_log_probs(views, weights=None):
    """TTA with a network that returns its pixels as logits."""
    images = IMAGES[:, :2, :2, :1]
    return np.asarray(tta.tta_log_probs(cnn_jax.Flatten(), {}, jnp.asarray(images), views, weights)), images


def test_one_view_gives_the_log_probabilities_of_the_logits():
    log_probs, images = flat_log_probs((tta.identity_view,))
    np.testing.assert_allclose(log_probs, log_softmax(images.reshape(2, 4)), rtol=1e-5)
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, rtol=1e-5)


def test_views_are_averaged():
    log_probs, images = flat_log_probs((tta.identity_view, tta.mirrored_view))
    mirrored = log_softmax(images[:, :, ::-1].reshape(2, 4))
    expected = (log_softmax(images.reshape(2, 4)) + mirrored) / 2
    np.testing.assert_allclose(log_probs, expected, rtol=1e-5)


def test_views_are_averaged_with_weights():
    log_probs, images = flat_log_probs((tta.identity_view, jnp.negative), (0.5, 0.25))
    logits = images.reshape(2, 4)
    expected = (2 * log_softmax(logits) + log_softmax(-logits)) / 3
    np.testing.assert_allclose(log_probs, expected, rtol=1e-5)
