"""Compiled programs that tests of scores share: all scores at once, and where they are defined."""

from functools import cache, partial
from typing import Any

import jax
from jaxtyping import Array

import cnn_jax as cnn
from tests.helpers.oracles import NAMES

SCORES = {name: getattr(cnn, name) for name in NAMES}


def _all_scores(
    image: Any, feature: Any, mask: Any = None, p: Any = 2.0, q: Any = 1e-3, *, method: str
) -> dict[str, Array]:
    options = {"sharpened_cosine": {"p": p, "q": q}}
    return {
        name: score(image, feature, mask=mask, method=method, **options.get(name, {})) for name, score in SCORES.items()
    }


@cache
def all_scores(method: str = "auto") -> Any:
    """A function of an image, a feature, a mask, p and q that gives every score by name."""
    return jax.jit(partial(_all_scores, method=method))


@jax.jit
def scores_and_definedness(image: Any, feature: Any, mask: Any = None) -> tuple[dict[str, Array], dict[str, Array]]:
    """Every score by name, and where each is defined."""
    defined = {name: cnn.is_defined(image, feature, score, mask=mask) for name, score in SCORES.items()}
    return _all_scores(image, feature, mask, method="auto"), defined
