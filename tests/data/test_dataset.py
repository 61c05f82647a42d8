"""Labeled images and their split into a training set and a validation set."""

import numpy as np
import pytest

from cnn_jax.data.dataset import LabeledImages, train_val_split, validation_mask

LABELS = np.array([0] * 10 + [1] * 5 + [2] * 2 + [3], np.int32)
DATA = LabeledImages(np.arange(18, dtype=np.uint8).reshape(18, 1, 1), LABELS, ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    ("share", "counts"), [(0.2, [2, 1, 1, 0]), (0.5, [5, 2, 1, 0]), (0.01, [1, 1, 1, 0]), (0.99, [9, 4, 1, 0])]
)
def test_every_class_gives_its_share_and_keeps_an_image(share, counts):
    train, validation = train_val_split(DATA, share)
    np.testing.assert_array_equal(np.bincount(validation.labels, minlength=4), counts)
    np.testing.assert_array_equal(np.bincount(train.labels), np.bincount(LABELS) - counts)
    assert train.classes == validation.classes == DATA.classes


def test_every_image_is_in_one_set_with_its_label():
    train, validation = train_val_split(DATA, 0.5, seed=3)
    images = np.concatenate([train.images, validation.images]).ravel()
    labels = np.concatenate([train.labels, validation.labels])
    np.testing.assert_array_equal(np.sort(images), DATA.images.ravel())
    np.testing.assert_array_equal(labels, LABELS[images])


def test_the_split_follows_the_seed():
    masks = [validation_mask(LABELS, 0.5, seed=seed).tobytes() for seed in (0, 0, 1, 2, 3)]
    assert masks[0] == masks[1]
    assert len(set(masks)) == 4


def test_the_mask_is_that_of_the_split():
    mask = validation_mask(LABELS, 0.3, seed=1)
    np.testing.assert_array_equal(train_val_split(DATA, 0.3, seed=1)[1].images, DATA.images[mask])


@pytest.mark.parametrize("count", [1, 3])
def test_more_or_fewer_labels_than_images(count):
    data = LabeledImages(np.zeros((2, 4, 4), np.uint8), np.zeros(count, np.int32), ("a",))
    with pytest.raises(ValueError, match=f"data: expected a label for each of 2 images, got {count}"):
        train_val_split(data, 0.5)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0])
def test_bad_shares(share):
    with pytest.raises(ValueError, match="validation: expected more than 0 and less than 1"):
        validation_mask(LABELS, share)


@pytest.mark.parametrize("share", [None, "0.2", 0.2j, np.array([0.2, 0.3])])
def test_shares_that_are_not_numbers(share):
    with pytest.raises(TypeError, match="validation: expected a number, got"):
        validation_mask(LABELS, share)


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, "at least 0, got -1"),
        (1.0, TypeError, "an int, got 1.0"),
        (None, TypeError, "an int, got None"),
    ],
)
def test_bad_seeds(seed, error, message):
    with pytest.raises(error, match=f"seed: expected {message}"):
        validation_mask(LABELS, 0.5, seed=seed)
