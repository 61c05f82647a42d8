"""The options of `find`: checked as the user gave them."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from ._pose_scores import Ranking
from ._range_plan import Range
from ._typing import AnyArray, Scalar, Score
from ._validation import check_choice, check_number, check_threshold
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
BOUNDED_SCORES = (cosine, zncc, sharpened_cosine)  # scores that are at most 1
DEFAULT_MIN_SCORE = 0.5
# Of zncc in ranges, where the best of very many poses at low resolution is compared. `experiments.poses` shows what
# photos without the template score.
DEFAULT_MIN_SCORE_OF_ANGLES = 0.88
DEFAULT_MIN_SCORE_OF_SCALES = 0.92
# Pixels that a scaled feature keeps at least, if it has as many.
LEAST_PIXELS = 4
# Radians. Angles further from 0 are degrees.
LARGEST_ANGLE = 4 * math.pi
# Radians by which a full turn may be too wide: the rounding of float32.
TURN_ROUNDING = 1e-5


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
    checked = _check_score(score)
    check_choice("polarity", polarity, ("same", "either"))
    function = checked.func if isinstance(checked, functools.partial) else checked
    if function in DIFFERENCES and function is not score:
        raise ValueError(f"score: expected {function.__name__} itself, got {score!r}")
    if polarity == "either":
        if function not in SIGNED_SCORES:
            names = ", ".join(signed.__name__ for signed in SIGNED_SCORES)
            name = getattr(score, "__name__", repr(score))
            raise ValueError(f"polarity: expected 'same' for the score {name}; 'either' is for {names}")
        return "magnitude"
    return "lowest" if function in DIFFERENCES else "highest"


def _check_score(score: object) -> Callable[..., object]:
    """Refuses what cannot be called as a score. The shape of its result is checked when it is compiled."""
    if not callable(score):
        raise TypeError(f"score: expected a function such as zncc, got {score!r}")
    if isinstance(score, functools.partial) and score.keywords.get("mask") is not None:
        raise ValueError("score: expected no mask in a functools.partial; pass mask to find")
    if score in (*SIGNED_SCORES, *DIFFERENCES):
        return score
    try:
        signature = inspect.signature(score)
    except ValueError:  # some functions of C have none
        return score
    try:
        signature.bind(None, None, mask=None)
    except TypeError as error:
        name = getattr(score, "__name__", repr(score))
        raise TypeError(
            f"score: expected a function such as zncc, called as score(image, feature, mask=...), got {name}: {error}"
        ) from error
    return score


def check_min_visible(min_visible: float, score: Score) -> float:
    visible = check_number("min_visible", min_visible, "a number above 0, at most 1", lambda value: 0 < value <= 1)
    if isinstance(visible, Array):
        raise TypeError(f"min_visible: expected a Python number, got {min_visible!r}")
    if visible < 1 and score not in (*SIGNED_SCORES, *DIFFERENCES):
        raise ValueError(f"min_visible: expected 1 for a score that is not of cnn_jax.matching, got {min_visible!r}")
    return visible


def default_min_score(
    score: object = zncc, *, scale_range: Sequence[float] | None = None, angle_range: Sequence[float] | None = None
) -> float:
    """The lowest score of a match in `find`, if `min_score` is not given; arguments are those of `find`.

    >>> default_min_score(), default_min_score(angle_range=(-1, 1)), default_min_score(scale_range=(1, 2))
    (0.5, 0.88, 0.92)
    """
    if score is not zncc or (scale_range is None and angle_range is None):
        return DEFAULT_MIN_SCORE
    return DEFAULT_MIN_SCORE_OF_ANGLES if scale_range is None else DEFAULT_MIN_SCORE_OF_SCALES


def check_worst_score(
    score: object, ranking: Ranking, min_score: Scalar | None, max_score: Scalar | None, default: float
) -> AnyArray | float:
    """The worst score of a match."""
    if ranking != "lowest":
        if max_score is not None:
            raise ValueError(f"max_score: expected None for a score that grows with the match, got {max_score!r}")
        expected = "a number of at most 1" if score in BOUNDED_SCORES else "a number"
        largest = 1 if score in BOUNDED_SCORES else math.inf
        threshold = default if min_score is None else min_score
        return check_threshold("min_score", threshold, expected, lambda value: value <= largest)
    if min_score is not None:
        raise ValueError(f"min_score: expected None for a squared difference, got {min_score!r}; pass max_score")
    if max_score is None:
        raise ValueError("max_score: expected a number for a squared difference, got None; 0 is a perfect match")
    return check_threshold("max_score", max_score, "a number of at least 0", lambda value: value >= 0)


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


def check_least_scale(scales: Sequence[float], scale_range: Range | None, shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuses scales at which nothing is left of any feature.

    Args:
      scales: a list of scales, if there is no range.
      scale_range: the least and the largest scale, or None.
      shapes: those of the features.
    """
    name = "scales" if scale_range is None else "scale_range"
    least = min(scales) if scale_range is None else scale_range[0]
    rows, columns, *_ = max(shapes, key=lambda shape: shape[0] * shape[1])
    scaled_rows, scaled_columns = (max(1, round(side * least)) for side in (rows, columns))
    if scaled_rows * scaled_columns < min(rows * columns, LEAST_PIXELS):
        raise ValueError(
            f"{name}: expected scales at which a feature keeps {LEAST_PIXELS} pixels, got {least:g}, at which "
            f"{rows}x{columns} pixels become {scaled_rows}x{scaled_columns}"
        )


def check_angles(angles: Sequence[float]) -> list[float]:
    numbers = check_numbers("angles", angles)
    _check_radians("angles", numbers)
    return numbers


def _check_radians(name: str, angles: Sequence[float]) -> None:
    """Refuses angles that can only be degrees."""
    largest = max(angles, key=abs)
    if abs(largest) > LARGEST_ANGLE:
        raise ValueError(f"{name}: expected radians, at most 4 pi in magnitude, got {largest:g}; use math.radians")


def check_angle_range(value: Sequence[float] | None, angles: Sequence[float]) -> Range | None:
    """A range of angles; it goes with no list of angles."""
    angle_range = check_range("angle_range", value)
    if angle_range is None:
        return None
    if angle_range[1] - angle_range[0] > 2 * math.pi + TURN_ROUNDING:
        raise ValueError(f"angle_range: expected radians, at most 2 pi apart, got {value!r}; use math.radians")
    _check_radians("angle_range", angle_range)
    if list(angles) != [0.0]:
        raise ValueError(f"angles: expected no list together with angle_range, got {angles!r}")
    return angle_range
