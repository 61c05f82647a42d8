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
    check_angle_range,
    check_angles,
    check_least_scale,
    check_max_overlap,
    check_min_visible,
    check_numbers,
    check_ranking,
    check_scales,
    check_worst_score,
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
        (
            lambda: check_worst_score(cnn.match, "highest", None, 0.5, 0.5),
            ValueError,
            "max_score: expected None .* got 0.5",
        ),
        (
            lambda: check_worst_score(cnn.match, "lowest", 0.5, 0.5, 0.5),
            ValueError,
            "min_score: expected None .*; pass max_score",
        ),
        (lambda: check_worst_score(cnn.match, "lowest", None, None, 0.5), ValueError, "max_score: expected a number"),
        (
            lambda: check_worst_score(cnn.match, "highest", np.ones(2), None, 0.5),
            ValueError,
            "min_score: expected one number",
        ),
        (lambda: check_worst_score(cnn.match, "highest", math.nan, None, 0.5), ValueError, "min_score: .*, got nan"),
        (lambda: check_worst_score(cnn.match, "highest", np.float64("nan"), None, 0.5), ValueError, "min_score: .*nan"),
        (
            lambda: check_worst_score(cnn.zncc, "highest", 80, None, 0.5),
            ValueError,
            "min_score: expected a number of at most 1, got 80",
        ),
        (
            lambda: check_worst_score(cnn.squared_difference, "lowest", None, math.nan, 0.5),
            ValueError,
            "max_score: expected a number of at least 0, got nan",
        ),
        (
            lambda: check_worst_score(cnn.squared_difference, "lowest", None, -1, 0.5),
            ValueError,
            "max_score: expected a number of at least 0, got -1",
        ),
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


@pytest.mark.parametrize("score", [jnp.sum, cnn.max_pool, cnn.conv, lambda image, feature: image, print])
def test_functions_that_cannot_be_called_as_scores_are_named(score):
    message = rf"score: expected a function such as zncc, called as .*mask=.*, got {score.__name__}: "
    with pytest.raises(TypeError, match=message):
        check_ranking(score, "same")


def test_a_mask_inside_of_a_score_is_refused():
    """The mask of `find` would replace it."""
    with pytest.raises(ValueError, match=r"score: expected no mask in a functools.partial; pass mask to find"):
        check_ranking(functools.partial(cnn.zncc, mask=np.ones((2, 3))), "same")


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda: check_angles((0, 90)),
            "angles: expected radians, at most 4 pi in magnitude, got 90; use math.radians",
        ),
        (lambda: check_angles(range(-180, 180, 5)), "angles: expected radians, .* got -180; use math.radians"),
        (
            lambda: check_angle_range((-180, 180), (0.0,)),
            r"angle_range: expected radians, at most 2 pi apart, got \(-180, 180\); use math.radians",
        ),
        (lambda: check_angle_range((-5, 5), (0.0,)), "angle_range: expected radians, at most 2 pi apart"),
        (
            lambda: check_angle_range((85, 90), (0.0,)),
            "angle_range: expected radians, at most 4 pi in magnitude, got 90",
        ),
    ],
)
def test_degrees_are_refused(check, message):
    with pytest.raises(ValueError, match=message):
        check()


@pytest.mark.parametrize(
    "turn",
    [
        (-math.pi, math.pi),
        (0, 2 * math.pi),
        (0.1, 0.1 + 2 * math.pi),
        tuple(np.radians([-180, 180], dtype="float32").tolist()),
    ],
)
def test_a_full_turn_is_no_range_of_degrees(turn):
    assert check_angle_range(turn, (0.0,)) == turn


def test_a_feature_keeps_some_pixels_at_every_scale():
    with pytest.raises(ValueError, match=r"^scales: .* keeps 4 pixels, got 0.001, at which 20x22 pixels become 1x1"):
        check_least_scale((1.0, 0.001), None, [(20, 22)])
    with pytest.raises(ValueError, match=r"^scale_range: .* got 0.07, at which 20x22 pixels become 1x2"):
        check_least_scale((1.0,), (0.07, 1.0), [(5, 6, 3), (20, 22, 3)])
    check_least_scale((0.1,), None, [(20, 22), (5, 6)])
    check_least_scale((1.0,), None, [(1, 1)])
    check_least_scale((0.5,), None, [(1, 8)])


def test_thresholds():
    assert check_worst_score(cnn.match, "highest", None, None, 0.5) == 0.5
    assert check_worst_score(cnn.match, "magnitude", 0.25, None, 0.5) == 0.25
    assert check_worst_score(cnn.match, "lowest", None, 2.0, 0.5) == 2
    assert check_worst_score(cnn.match, "highest", 80, None, 0.5) == 80
    assert check_worst_score(cnn.zncc, "highest", 1, None, 0.5) == 1
    assert np.isnan(check_worst_score(cnn.zncc, "highest", jnp.nan * jnp.ones(()), None, 0.5))


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
