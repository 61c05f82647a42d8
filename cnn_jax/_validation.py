"""Argument validation: each check returns the value, or raises a ValueError or TypeError that names the argument.

A value has type object where callers may pass a wrong type, which the check rejects.
"""

import functools
import math
import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import SupportsIndex, cast, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped

from ._typing import AnyArray, Pair, Scalar

EXPECTED_ARRAY = "a real array (floats of 16 bits or more, integers or bools)"


def as_floats(**arrays: object) -> tuple[Float[Array, "..."], ...]:
    """The named arrays in one floating dtype: integers and bools become float32, mixed floats the wider of them.

    An argument may be anything that `jnp.asarray` takes. Outside of a compiled program every conversion is a dispatched
    operation: functions that are compiled as a whole use `check_arrays` outside and `to_floats` inside.

    Raises:
      TypeError: an argument is not an array of real numbers.

    >>> image, kernel = as_floats(image=jnp.zeros(2, int), kernel=jnp.zeros(2, "bfloat16"))
    >>> image.dtype, kernel.dtype
    (dtype('float32'), dtype('float32'))
    """
    return to_floats(*check_arrays(**arrays))


def check_arrays(**arrays: object) -> tuple[AnyArray, ...]:
    """The named arrays, unconverted: JAX's and NumPy's arrays as they are, everything else as `jnp.asarray` makes it.

    NumPy arrays stay on the host, and with their own dtype, until they enter a compiled program.

    Raises:
      TypeError: an argument is not an array of real numbers.

    >>> image, numbers = check_arrays(image=np.zeros(2, np.uint8), numbers=[1, 2])
    >>> type(image).__name__, numbers.dtype
    ('ndarray', dtype('int32'))
    """
    return tuple(_check_array(name, value) for name, value in arrays.items())


def check_numbers(**arrays: object) -> tuple[AnyArray | float, ...]:
    """`check_arrays` that leaves Python numbers as they are. In a program they adapt to the dtype of others."""
    return tuple(_check_number_or_array(name, value) for name, value in arrays.items())


def _check_number_or_array(name: str, value: object) -> AnyArray | float:
    return value if isinstance(value, int | float) and type(value) in (int, float) else _check_array(name, value)


def to_floats(*arrays: AnyArray | float) -> tuple[Float[Array, "..."], ...]:
    """Arrays of real numbers in one floating dtype, as `as_floats` converts them. Arguments are not checked."""
    floats = [x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32) for x in map(jnp.asarray, arrays)]
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*floats)
    return tuple(array.astype(dtype) for array in floats)


def _check_array(name: str, value: object) -> AnyArray:
    if isinstance(value, jax.Array) and _is_real(value.dtype):
        return value
    if type(value) is np.ndarray and value.dtype.isnative and _is_real(value.dtype):
        return value
    refuse_masked_array(name, value)
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected {EXPECTED_ARRAY}, got {type(value).__name__}") from error
    if not _is_real(array.dtype):
        raise TypeError(f"{name}: expected {EXPECTED_ARRAY}, got {array.dtype}")
    return array


def refuse_masked_array(name: str, value: object) -> None:
    """Raises TypeError for a masked array of NumPy, whose mask a conversion to a plain array drops."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: expected a plain array, got a MaskedArray, whose mask would be ignored; pass image.filled(value) "
            "for an image, template.data with mask=~template.mask for a feature"
        )


def has_values(array: AnyArray) -> bool:
    """Whether the values are known now, and on this machine."""
    if isinstance(array, Tracer):
        return False
    return isinstance(array, np.ndarray) or array.is_fully_addressable


@functools.cache
def _is_real(dtype: np.dtype) -> bool:
    """Whether numbers of a dtype are real: floats of 16, 32 or 64 bits, integers and bools."""
    if jnp.issubdtype(dtype, jnp.floating):
        return 1 < dtype.itemsize <= 8
    return jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_


def check_shape(name: str, array: AnyArray, *accepted: str) -> None:
    """Raises ValueError unless the array has the rank of one of the accepted shapes (`"H W C"`) and is not empty."""
    if array.ndim not in {len(shape.split()) for shape in accepted}:
        shapes = " or ".join(f"({', '.join(shape.split())})" for shape in accepted)
        raise ValueError(f"{name}: expected shape {shapes}, got {array.shape}; use jax.vmap for batches")
    if 0 in array.shape:
        raise ValueError(f"{name}: expected at least one element, got the empty shape {array.shape}")


def check_image(image: Shaped[ArrayLike, "..."], *accepted: str) -> AnyArray:
    """One image of an accepted shape, by default (H, W) or (H, W, C), as an unconverted array."""
    (pixels,) = check_arrays(image=image)
    check_shape("image", pixels, *(accepted or ("H W", "H W C")))
    return pixels


def check_choice(name: str, value: str, choices: Collection[str]) -> str:
    """One of some names."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {tuple(choices)}, got {value!r}")
    return value


def check_scalar(name: str, value: Scalar) -> AnyArray | float:
    """One real number, which may be traced, unconverted as by `check_numbers`."""
    (scalar,) = check_numbers(**{name: value})
    if shape := jnp.shape(scalar):
        raise ValueError(f"{name}: expected one number, got shape {shape}; use jax.vmap for several")
    return scalar


def check_threshold(
    name: str, value: Scalar, expected: str = "a number", accepts: Callable[[float], bool] = lambda value: True
) -> AnyArray | float:
    """`check_scalar` of a number that others are compared with: NaN, which nothing reaches, is refused.

    Arrays of JAX pass without a look at their value.

    Args:
      name: the argument's name.
      value: its value.
      expected: which numbers `accepts` accepts, for the error message.
      accepts: says whether a number other than NaN is accepted.
    """
    scalar = check_scalar(name, value)
    if isinstance(value, jax.Array):
        return scalar
    number = float(cast(float, value))
    if math.isnan(number) or not accepts(number):
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
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
    weights = jnp.asarray(check_mask(mask, shape))
    weights = weights if jnp.issubdtype(weights.dtype, jnp.floating) else weights.astype(jnp.bool_)
    weights = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    return jnp.broadcast_to(weights, shape)


def check_mask(mask: Shaped[ArrayLike, "..."], shape: tuple[int, ...]) -> AnyArray:
    """A mask of the feature's shape, or of its rows and columns, unconverted; raises as `broadcast_mask` does.

    Weights that are negative or not finite raise a ValueError too, if the values are known.
    """
    (weights,) = check_arrays(mask=mask)
    if weights.shape != shape and weights.shape != shape[:2]:
        accepted = f"{shape}" if len(shape) == 2 else f"{shape} or {shape[:2]}"
        raise ValueError(f"mask: expected the shape of the feature, {accepted}, got {weights.shape}")
    if (
        jnp.issubdtype(weights.dtype, jnp.floating)
        and has_values(weights)
        and not are_weights(np.asarray(weights)).all()
    ):
        raise weights_error("mask")
    return weights


def are_weights(values: np.ndarray) -> np.ndarray:
    """Which numbers can be weights of pixels. Bools and integers can: they are taken for 0 or 1."""
    if not jnp.issubdtype(values.dtype, jnp.floating):
        return np.ones(values.shape, bool)
    return np.isfinite(values) & (values >= 0)


def weights_error(name: str) -> ValueError:
    """The error for weights of pixels that are none."""
    return ValueError(f"{name}: expected finite weights of at least 0, got one that is negative, NaN or infinite")
