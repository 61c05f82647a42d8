"""Argument checks: each returns the checked value or raises a ValueError or TypeError that names the argument."""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from ._typing import Pair

REALS = "{}: expected a real array (floats of 16 bits or more, integers or bools), got {}"


def as_floats(**arrays: Any) -> tuple[Float[Array, "..."], ...]:
    """The named arrays in one floating dtype: integers and bools become float32, mixed floats the wider of them."""
    out = []
    for name, value in arrays.items():
        try:
            array = jnp.asarray(value)
        except (TypeError, ValueError) as error:
            raise TypeError(REALS.format(name, type(value).__name__)) from error
        if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize > 1:
            out.append(array)
        elif jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == jnp.bool_:
            out.append(array.astype(jnp.float32))
        else:
            raise TypeError(REALS.format(name, array.dtype))
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*out)
    return tuple(array.astype(dtype) for array in out)


def check_shape(name: str, array: Array, *accepted: str) -> None:
    """Raises ValueError unless the array has the rank of one of the accepted shapes (`"H W C"`) and is not empty."""
    if array.ndim not in {len(shape.split()) for shape in accepted}:
        shapes = " or ".join(f"({', '.join(shape.split())})" for shape in accepted)
        raise ValueError(f"{name}: expected shape {shapes}, got {array.shape}; use jax.vmap for batches")
    if 0 in array.shape:
        raise ValueError(f"{name}: expected at least one element, got the empty shape {array.shape}")


def as_pair(name: str, value: int | Sequence[int]) -> Pair:
    """One positive int for both axes, or one for each: `as_pair("stride", 2) == (2, 2)`."""
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    try:
        rows, columns = (operator.index(v) for v in values)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected an int or two ints, got {value!r}") from None
    if rows < 1 or columns < 1:
        raise ValueError(f"{name}: expected at least 1, got {value!r}")
    return rows, columns


def check_int(name: str, value: int, *, least: int = 1) -> int:
    """One int, positive unless told otherwise."""
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {value!r}") from None
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return value


def check_number(
    name: str, value: Any, expected: str = "a finite number", fits: Callable[[float], bool] = lambda value: True
) -> Any:
    """One real number, finite and fit, as a float; a traced one, whose value nobody knows yet, is taken as it is."""
    if isinstance(value, Tracer) and value.shape == ():
        return value
    try:
        fine = math.isfinite(value) and fits(float(value))
    except TypeError:
        raise TypeError(f"{name}: expected {expected}, got {value!r}") from None
    if not fine:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return float(value)


def as_shape(shape: Any, hint: str = "; init takes (key, shape)") -> tuple[int, ...]:
    """The shape that a layer's `init` is given, as ints."""
    try:
        return tuple(operator.index(n) for n in shape)
    except TypeError:
        raise TypeError(f"shape: expected ints such as (H, W, C), got {shape!r}{hint}") from None


def as_positive_shape(shape: Any) -> tuple[int, ...]:
    """A shape as ints, at least 1 each."""
    out = as_shape(shape, hint="")
    if min(out, default=1) < 1:
        raise ValueError(f"shape: expected at least 1 of each, got {shape!r}")
    return out


def broadcast_mask(mask: Any, shape: tuple[int, ...]) -> Array:
    """A mask in the feature's shape: one (h, w) counts for all channels. Bools and integers become bool."""
    (weights,) = as_floats(mask=mask)
    weights = weights if jnp.issubdtype(jnp.asarray(mask).dtype, jnp.floating) else weights != 0
    if weights.shape != shape and weights.shape != shape[:2]:
        accepted = f"{shape}" if len(shape) == 2 else f"{shape} or {shape[:2]}"
        raise ValueError(f"mask: expected the shape of the feature, {accepted}, got {weights.shape}")
    weights = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    return jnp.broadcast_to(weights, shape)
