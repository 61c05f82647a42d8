"""experiments._lib.device_checks: the library and NumPy agree, and an error would be seen."""

import numpy as np
import pytest

from experiments._lib.device_checks import Check, checks, convolved, error_of, first_maxima, scores
from tests.helpers import oracles
from tests.helpers.oracles import noise


def test_references_are_those_of_the_tests():
    image, feature = noise(0, 9, 8), noise(1, 3, 4)
    for name, got in scores(image, feature).items():
        expected, _ = oracles.scores(name, image, feature)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)
    image, kernel = noise(2, 7, 6, 2), noise(3, 3, 2, 2, 5)
    np.testing.assert_allclose(convolved(image, kernel), oracles.conv(image, kernel), rtol=1e-6, atol=1e-9)


def test_the_first_of_equal_pixels_is_marked():
    np.testing.assert_array_equal(
        first_maxima(np.array([[1, 2, 0], [2, 1, 0], [9, 9, 9]])), [[0, 1, 0]] + [[0] * 3] * 2
    )


def test_an_error_is_a_fraction_of_the_largest_magnitude():
    assert error_of(Check("", lambda: [1.0, 4.5], np.array([1.0, 5.0]))) == 0.1
    with pytest.raises(ValueError, match=r"name: expected shape \(2,\), got \(1,\)"):
        error_of(Check("name", lambda: [1.0], np.ones(2)))


def test_quick_checks_are_right():
    for check in checks(40):
        if "pool" in check.name or check.name in ("match", "cosine", "conv, fft"):
            assert error_of(check) <= check.tolerance, check.name


@pytest.mark.slow
def test_all_checks_are_right():
    for check in checks(64):
        assert error_of(check) <= check.tolerance, check.name
