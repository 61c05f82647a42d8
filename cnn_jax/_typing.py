"""Types and protocols that several modules share."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jax.core import ShapedArray
from jaxtyping import Array, ArrayLike, Shaped

Pair = tuple[int, int]  # (rows, columns)
Shape = tuple[int, ...]
Pads = tuple[Pair, Pair]  # ((top, bottom), (left, right))
Padding = str | Sequence[Sequence[int]]  # "VALID", "SAME", "CEIL", or pads
Scalar = float | Shaped[ArrayLike, ""]  # a number that may be traced
AnyArray = Array | np.ndarray  # on a device, traced, or on the host
JsonObject = dict[str, Any]  # Any: a value as JSON holds it


@runtime_checkable
class Score(Protocol):
    """A match score: compares a feature with every patch of an image, as the functions of `cnn_jax.matching` do."""

    def __call__(self, image: Array, feature: Array, /, *, mask: Array | None = None) -> Array: ...


@runtime_checkable
class Placeholder(Protocol):
    """The operand whose cotangent a transposition computes; its class depends on JAX's version."""

    @property
    def aval(self) -> ShapedArray: ...
