"""Parameters of layers: nested dicts of arrays, and their comparison with those that `init` makes."""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import PyTree

from ._typing import Shape

Params = PyTree
"""Nested dicts of arrays; of a layer that a user's functions make, any tree of arrays."""


class ParamsError(ValueError):
    """Parameters of another structure, or other shapes, than `init` makes.

    Attributes:
      path: keys to the array, joined by "/".
      problem: the rest of the message.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"params: expected {path} {problem}")
        self.path = path
        self.problem = problem

    def inside(self, name: str) -> "ParamsError":
        """The same error, about the inner layer of this name."""
        return ParamsError(f"{name}/{self.path}", self.problem)


def check_params(params: Params, expected: Params | None, shape: Shape) -> None:
    """Raises for the first array of other shape than expected. More arrays and other dtypes are accepted.

    Args:
      params: the parameters of one layer.
      expected: shapes that `init` makes; None if they are unknown.
      shape: the shape of the layer's input, for the message.

    Raises:
      ParamsError: an array is missing, or has another shape.

    >>> kernel = jax.ShapeDtypeStruct((3, 3, 1, 16), "float32")
    >>> check_params({"kernel": jax.numpy.ones((5, 5, 1, 8))}, {"kernel": kernel}, (28, 28, 1))
    Traceback (most recent call last):
        ...
    cnn_jax._params.ParamsError: params: expected kernel of shape (3, 3, 1, 16) for an input of shape (28, 28, 1),
    got (5, 5, 1, 8)
    """
    if expected is None:
        return
    given = dict(jax.tree_util.tree_leaves_with_path(params))
    for path, array in jax.tree_util.tree_leaves_with_path(expected):
        got = np.shape(given[path]) if path in given else "none"
        if got != array.shape:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ParamsError(name, f"of shape {array.shape} for an input of shape {shape}, got {got}")


def check_is_dict(params: object) -> None:
    """Raises a TypeError for parameters that are not a dict."""
    if not isinstance(params, Mapping):
        raise TypeError(f"params: expected a dict, got {type(params).__name__}; apply takes (params, image)")
