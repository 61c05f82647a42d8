"""Synthetic data sets for --smoke runs."""

import numpy as np
import pytest

from experiments._lib.synthetic import synthetic_dataset


@pytest.mark.parametrize(("channels", "shape"), [(1, (20, 8, 8)), (3, (20, 8, 8, 3))])
def test_both_sets_have_bytes_of_the_size_asked_for(channels, shape):
    for data in synthetic_dataset(20, 8, channels, ("a", "b")):
        assert data.images.shape == shape
        assert data.images.dtype == np.uint8
        assert data.classes == ("a", "b")


def test_classes_take_turns():
    train, test = synthetic_dataset(5, 8, 1, ("a", "b"))
    for data in (train, test):
        np.testing.assert_array_equal(data.labels, [0, 1, 0, 1, 0])
        assert data.labels.dtype == np.int32


def test_the_sets_are_the_same_in_every_run():
    for first, second in zip(synthetic_dataset(4, 8, 1, "ab"), synthetic_dataset(4, 8, 1, "ab"), strict=True):
        np.testing.assert_array_equal(first.images, second.images)


def test_the_test_set_has_the_training_sets_patterns_under_new_noise():
    train, test = (data.images.astype(float) for data in synthetic_dataset(200, 8, 1, "ab"))
    assert np.any(train != test)
    for label in range(2):
        np.testing.assert_allclose(train[label::2].mean(0), test[label::2].mean(0), atol=25)
    assert np.abs(train[::2].mean(0) - train[1::2].mean(0)).max() > 50
