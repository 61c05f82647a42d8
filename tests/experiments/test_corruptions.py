"""Corruptions of images are as strong as they say."""

import numpy as np
import pytest

from experiments._lib.corruptions import CORRUPTIONS

PIXELS = np.linspace(-1, 1, 10_000, dtype=np.float32).reshape(100, 100, 1, 1)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_first_strength_leaves_pixels_unchanged(name):
    corruption = CORRUPTIONS[name]
    np.testing.assert_array_equal(corruption.apply(PIXELS, corruption.strengths[0]), PIXELS)


@pytest.mark.parametrize(("name", "expected"), [("brightness", PIXELS + 0.5), ("contrast", PIXELS / 2)])
def test_brightness_is_added_and_contrast_multiplied(name, expected):
    np.testing.assert_allclose(CORRUPTIONS[name].apply(PIXELS, 0.5), expected, rtol=1e-6)


def test_noise_has_the_standard_deviation_of_its_strength():
    noisy = np.asarray(CORRUPTIONS["noise"].apply(PIXELS, 0.5))
    assert np.std(noisy - PIXELS) == pytest.approx(0.5, rel=0.03)


def test_noise_is_the_same_in_every_call():
    apply = CORRUPTIONS["noise"].apply
    np.testing.assert_array_equal(apply(PIXELS, 0.5), apply(PIXELS, 0.5))
