"""The options of `find`: checked as the user gave them."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from ._pose_scores import Ranking
from ._range_plan import Range
from ._typing import AnyArray, Scalar, Score
from ._validation import check_choice, check_number, check_scalar
from .matching import (
    cosine,
    is_defined,
    match,
    normalized_squared_difference,
    sharpened_cosine,
    squared_difference,
    zncc,
)

DIFFERENCES = (squared_difference, normalized_squared_difference)  # scores of which the smallest is the best
SIGNED_SCORES = (match, cosine, zncc, sharpened_cosine)  # scores that are negative for a photographic negative
DEFAULT_MIN_SCORE = 0.5
# Of a search of ranges. `experiments.poses` measures how often a photo without the template has a higher score.
DEFAULT_MIN_SCORE_OF_RANGES = 0.88


class MatchOptions(NamedTuple):
    """The static options of a search. It is hashable, an argument of a compiled program."""

    score: Score
    ranking: Ranking
    top_k: int
    subpixel: bool
    per_feature: bool
    min_visible: float


def without_undefined(score: Score) -> Score:
    """The score, infinite where it is a difference that is not defined."""
    return _defined_normalized_squared_difference if score is normalized_squared_difference else score


def _defined_normalized_squared_difference(image: Array, feature: Array, /, *, mask: Array | None = None) -> Array:
    difference = normalized_squared_difference(image, feature, mask=mask)
    defined = is_defined(image, feature, normalized_squared_difference, mask=mask)
    return jnp.where(defined, difference, jnp.inf)


def check_max_overlap(max_overlap: float) -> None:
    check_number("max_overlap", max_overlap, "0 to 1", lambda value: 0 <= value <= 1)


def check_ranking(score: object, polarity: str) -> Ranking:
    """Which scores are the best."""
    if not callable(score):
        raise TypeError(f"score: expected a function such as zncc, got {score!r}")
    check_choice("polarity", polarity, ("same", "either"))
    function = score.func if isinstance(score, functools.partial) else score
    if function in DIFFERENCES and function is not score:
        raise ValueError(f"score: expected {function.__name__} itself, got {score!r}")
    if polarity == "either":
        if function not in SIGNED_SCORES:
            names = ", ".join(signed.__name__ for signed in SIGNED_SCORES)
            name = getattr(score, "__name__", repr(score))
            raise ValueError(f"polarity: expected 'same' for the score {name}; 'either' is for {names}")
        return "magnitude"
    return "lowest" if function in DIFFERENCES else "highest"


def check_min_visible(min_visible: float, score: Score) -> float:
    visible = check_number("min_visible", min_visible, "a number above 0, at most 1", lambda value: 0 < value <= 1)
    if isinstance(visible, Array):
        raise TypeError(f"min_visible: expected a Python number, got {min_visible!r}")
    if visible < 1 and score not in (*SIGNED_SCORES, *DIFFERENCES):
        raise ValueError(f"min_visible: expected 1 for a score that is not of cnn_jax.matching, got {min_visible!r}")
    return visible


def check_threshold(
    ranking: Ranking, min_score: Scalar | None, max_score: Scalar | None, default_min_score: float
) -> AnyArray | float:
    """The worst score of a match."""
    if ranking != "lowest":
        if max_score is not None:
            raise ValueError(f"max_score: expected None for a score that grows with the match, got {max_score!r}")
        return check_scalar("min_score", default_min_score if min_score is None else min_score)
    if min_score is not None:
        raise ValueError(f"min_score: expected None for a squared difference, got {min_score!r}; pass max_score")
    if max_score is None:
        raise ValueError("max_score: expected a number for a squared difference, got None; 0 is a perfect match")
    return check_scalar("max_score", max_score)


def check_scales(scales: Sequence[float]) -> list[float]:
    numbers = check_numbers("scales", scales)
    if min(numbers) <= 0:
        raise ValueError(f"scales: expected numbers above 0, got {scales!r}")
    return numbers


def check_numbers(name: str, values: Sequence[float]) -> list[float]:
    try:
        if isinstance(values, str | bytes) or any(isinstance(value, str | bytes) for value in values):
            raise TypeError
        numbers = [float(value) for value in values]
    except TypeError as error:  # also JAX's, for traced arrays
        raise TypeError(f"{name}: expected a sequence of Python numbers, got {values!r}") from error
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name}: expected at least one number, all finite, got {values!r}")
    return numbers


def check_range(name: str, value: Sequence[float] | None) -> Range | None:
    """The ends of a range, or None."""
    if value is None:
        return None
    numbers = check_numbers(name, value)
    if len(numbers) != 2 or numbers[0] > numbers[1]:
        raise ValueError(f"{name}: expected (least, largest), got {value!r}")
    return numbers[0], numbers[1]


def check_scale_range(value: Sequence[float] | None, scales: Sequence[float]) -> Range | None:
    """A range of scales; it goes with no list of scales."""
    scale_range = check_range("scale_range", value)
    if scale_range is None:
        return None
    if scale_range[0] <= 0:
        raise ValueError(f"scale_range: expected numbers above 0, got {value!r}")
    if list(scales) != [1.0]:
        raise ValueError(f"scales: expected no list together with scale_range, got {scales!r}")
    return scale_range


def check_angle_range(value: Sequence[float] | None, angles: Sequence[float]) -> Range | None:
    """A range of angles; it goes with no list of angles."""
    angle_range = check_range("angle_range", value)
    if angle_range is not None and list(angles) != [0.0]:
        raise ValueError(f"angles: expected no list together with angle_range, got {angles!r}")
    return angle_range
