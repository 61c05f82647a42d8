"""Options of `find`."""

import functools
import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax._search_options import (
    check_max_overlap,
    check_min_visible,
    check_numbers,
    check_ranking,
    check_scales,
    check_threshold,
    without_undefined,
)

DIFFERENCES = (cnn.squared_difference, cnn.normalized_squared_difference)


def test_rankings_follow_from_score_and_polarity():
    assert check_ranking(cnn.zncc, "same") == "highest"
    assert check_ranking(lambda image, feature, mask: image, "same") == "highest"
    assert [check_ranking(score, "same") for score in DIFFERENCES] == ["lowest"] * 2
    for score in (cnn.match, cnn.cosine, cnn.zncc, functools.partial(cnn.sharpened_cosine, p=3)):
        assert check_ranking(score, "either") == "magnitude"


@pytest.mark.parametrize(
    ("check", "error", "message"),
    [
        (lambda: check_ranking("zncc", "same"), TypeError, "score: expected a function such as zncc, got 'zncc'"),
        (lambda: check_ranking(cnn.zncc, "both"), ValueError, "polarity: expected one of"),
        (
            lambda: check_ranking(cnn.squared_difference, "either"),
            ValueError,
            "polarity: expected 'same' for the score squared_difference; 'either' is for match, cosine, zncc",
        ),
        (lambda: check_ranking(max, "either"), ValueError, "polarity: expected 'same' for the score max"),
        (
            lambda: check_ranking(functools.partial(cnn.squared_difference, method="fft"), "same"),
            ValueError,
            "score: expected squared_difference itself",
        ),
        (lambda: check_threshold("highest", None, 0.5, 0.5), ValueError, "max_score: expected None .* got 0.5"),
        (lambda: check_threshold("lowest", 0.5, 0.5, 0.5), ValueError, "min_score: expected None .*; pass max_score"),
        (lambda: check_threshold("lowest", None, None, 0.5), ValueError, "max_score: expected a number"),
        (lambda: check_threshold("highest", np.ones(2), None, 0.5), ValueError, "min_score: expected one number"),
        (lambda: check_min_visible(0.0, cnn.zncc), ValueError, "min_visible: expected a number above 0, at most 1"),
        (lambda: check_min_visible(1.1, cnn.zncc), ValueError, "min_visible: expected a number above 0, at most 1"),
        (
            lambda: check_min_visible(0.5, cast(Any, max)),
            ValueError,
            "min_visible: expected 1 for a score that is not of",
        ),
        (lambda: check_max_overlap(1.5), ValueError, "max_overlap: expected 0 to 1, got 1.5"),
        (lambda: check_scales((1.0, 0.0)), ValueError, "scales: expected numbers above 0"),
        (lambda: check_scales(cast(Any, 2.0)), TypeError, "scales: expected a sequence of Python numbers"),
        (
            lambda: check_numbers("angles", cast(Any, "90")),
            TypeError,
            "angles: expected a sequence of Python numbers, got '90'",
        ),
        (
            lambda: check_numbers("angles", cast(Any, ["90"])),
            TypeError,
            "angles: expected a sequence of Python numbers",
        ),
        (lambda: check_numbers("angles", ()), ValueError, "angles: expected at least one number"),
        (lambda: check_numbers("angles", (math.inf,)), ValueError, "angles: expected at least one number, all finite"),
    ],
)
def test_wrong_options_are_named(check, error, message):
    with pytest.raises(error, match=message):
        check()


def test_thresholds():
    assert check_threshold("highest", None, None, 0.5) == 0.5
    assert check_threshold("magnitude", 0.25, None, 0.5) == 0.25
    assert check_threshold("lowest", None, 2.0, 0.5) == 2


def test_traced_sizes_are_refused():
    with pytest.raises(TypeError, match="angles: expected a sequence of Python numbers"):
        jax.jit(lambda angles: check_numbers("angles", angles))(jnp.ones(2))
    with pytest.raises(TypeError, match="min_visible: expected a Python number"):
        jax.jit(lambda visible: check_min_visible(visible, cnn.zncc))(0.5)


def test_undefined_differences_are_infinite():
    image = np.zeros((3, 5), np.float32)
    image[:, 3:] = 1
    feature = np.ones((3, 2), np.float32)
    difference = jax.jit(without_undefined(cnn.normalized_squared_difference))(image, feature)
    np.testing.assert_array_equal(np.isinf(difference[0]), [True, True, False, False])
    assert difference[0, 3] == pytest.approx(0, abs=1e-6)
    assert without_undefined(cnn.zncc) is cnn.zncc
