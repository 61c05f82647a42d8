"""Types of the functions that a layer is made of, and of its intermediate activations."""

import collections
from typing import Protocol, runtime_checkable

from jaxtyping import Array, ArrayLike, Shaped

from ._params import Params
from ._typing import Shape

# An ordered dict keeps its order through jit and vmap, which sort the keys of a plain one.
Stages = collections.OrderedDict[str, Array]


@runtime_checkable
class Init(Protocol):
    """Makes the parameters of a layer for inputs of one shape."""

    def __call__(self, key: Array, shape: Shape) -> Params: ...


@runtime_checkable
class Apply(Protocol):
    """Computes the output of a layer for one input."""

    def __call__(
        self, params: Params, image: Shaped[ArrayLike, "..."], /, *, train: bool = False, key: Array | None = None
    ) -> Array: ...


@runtime_checkable
class Intercept(Protocol):
    """Receives an intermediate activation and its name; returns its replacement."""

    def __call__(self, name: str, value: Array, /) -> Array: ...


def identity(name: str, value: Array) -> Array:
    """The `Intercept` that returns every intermediate activation unchanged."""
    return value


@runtime_checkable
class ApplyWithIntermediates(Protocol):
    """Computes the intermediate activations of a layer for one input, the output last."""

    def __call__(
        self,
        params: Params,
        image: Shaped[ArrayLike, "..."],
        /,
        *,
        train: bool = False,
        key: Array | None = None,
        intercept: Intercept = identity,
    ) -> Stages: ...
