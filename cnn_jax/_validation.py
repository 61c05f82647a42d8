"""Argument validation: each check returns the value, or raises a ValueError or TypeError that names the argument.

A value has type object where callers may pass a wrong type, which the check rejects.
"""

import math
import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import SupportsIndex, cast, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped

from ._typing import Pair, Scalar

EXPECTED_ARRAY = "a real array (floats of 16 bits or more, integers or bools)"


def as_floats(**arrays: object) -> tuple[Float[Array, "..."], ...]:
    """The named arrays in one floating dtype: integers and bools become float32, mixed floats the wider of them.

    An argument may be anything that `jnp.asarray` takes.

    Raises:
      TypeError: an argument is not an array of real numbers.

    >>> image, kernel = as_floats(image=jnp.zeros(2, int), kernel=jnp.zeros(2, "bfloat16"))
    >>> image.dtype, kernel.dtype
    (dtype('float32'), dtype('float32'))
    """
    floats = [_as_float(name, value) for name, value in arrays.items()]
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*floats)
    return tuple(array.astype(dtype) for array in floats)


def _as_float(name: str, value: object) -> Float[Array, "..."]:
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected {EXPECTED_ARRAY}, got {type(value).__name__}") from error
    if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize > 1:
        return array
    if jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == jnp.bool_:
        return array.astype(jnp.float32)
    raise TypeError(f"{name}: expected {EXPECTED_ARRAY}, got {array.dtype}")


def check_shape(name: str, array: Array | np.ndarray, *accepted: str) -> None:
    """Raises ValueError unless the array has the rank of one of the accepted shapes (`"H W C"`) and is not empty."""
    if array.ndim not in {len(shape.split()) for shape in accepted}:
        shapes = " or ".join(f"({', '.join(shape.split())})" for shape in accepted)
        raise ValueError(f"{name}: expected shape {shapes}, got {array.shape}; use jax.vmap for batches")
    if 0 in array.shape:
        raise ValueError(f"{name}: expected at least one element, got the empty shape {array.shape}")


def check_choice(name: str, value: str, choices: Collection[str]) -> str:
    """One of some names."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {tuple(choices)}, got {value!r}")
    return value


def as_scalar(name: str, value: Scalar) -> Float[Array, ""]:
    """One real number, which may be traced, as a floating-point array."""
    (scalar,) = as_floats(**{name: value})
    if scalar.shape:
        raise ValueError(f"{name}: expected one number, got shape {scalar.shape}; use jax.vmap for several")
    return scalar


def as_pair(name: str, value: object) -> Pair:
    """One positive int for both axes, or one for each axis: `as_pair("stride", 2) == (2, 2)`."""
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    try:
        rows, columns = (operator.index(cast(SupportsIndex, v)) for v in values)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected an int or two ints, got {value!r}") from None
    if rows < 1 or columns < 1:
        raise ValueError(f"{name}: expected at least 1, got {value!r}")
    return rows, columns


def check_int(name: str, value: object, *, minimum: int = 1) -> int:
    """An int of at least `minimum`."""
    try:
        number = operator.index(cast(SupportsIndex, value))
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{name}: expected at least {minimum}, got {number}")
    return number


def check_bool(name: str, value: object) -> bool:
    """A Python bool, which decides what is compiled."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return value


@overload
def check_number(
    name: str, value: float, expected: str = "a finite number", accepts: Callable[[float], bool] = ...
) -> float: ...
@overload
def check_number(
    name: str, value: Scalar, expected: str = "a finite number", accepts: Callable[[float], bool] = ...
) -> float | Array: ...
def check_number(
    name: str, value: object, expected: str = "a finite number", accepts: Callable[[float], bool] = lambda value: True
) -> float | Array:
    """A finite real scalar as a float. Tracers pass unchecked, since their values are unknown at trace time.

    Args:
      name: the argument's name.
      value: its value.
      expected: which numbers `accepts` accepts, for the error message.
      accepts: says whether a finite number is accepted.
    """
    if isinstance(value, Tracer) and value.shape == ():
        return value
    number = cast(float, value)
    try:
        accepted = math.isfinite(number) and accepts(float(number))
    except TypeError:
        raise TypeError(f"{name}: expected {expected}, got {value!r}") from None
    if not accepted:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return float(number)


def as_shape(shape: object, hint: str = "; init takes (key, shape)") -> tuple[int, ...]:
    """A shape as ints, of any sequence of integers."""
    try:
        return tuple(operator.index(n) for n in cast(Iterable[SupportsIndex], shape))
    except TypeError:
        raise TypeError(f"shape: expected ints such as (H, W, C), got {shape!r}{hint}") from None


def as_positive_shape(shape: object) -> tuple[int, ...]:
    """A shape as ints of at least 1."""
    sizes = as_shape(shape, hint="")
    if min(sizes, default=1) < 1:
        raise ValueError(f"shape: expected sizes of at least 1, got {shape!r}")
    return sizes


def broadcast_mask(mask: Shaped[ArrayLike, "..."], shape: tuple[int, ...]) -> Bool[Array, "..."] | Float[Array, "..."]:
    """A mask in the feature's shape: an (h, w) mask is broadcast over channels. Integers become bools.

    Raises:
      ValueError: the mask has another shape.
      TypeError: the mask is not an array of real numbers.
    """
    (weights,) = as_floats(mask=mask)
    weights = weights if jnp.issubdtype(jnp.asarray(mask).dtype, jnp.floating) else weights != 0
    if weights.shape != shape and weights.shape != shape[:2]:
        accepted = f"{shape}" if len(shape) == 2 else f"{shape} or {shape[:2]}"
        raise ValueError(f"mask: expected the shape of the feature, {accepted}, got {weights.shape}")
    weights = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    return jnp.broadcast_to(weights, shape)
