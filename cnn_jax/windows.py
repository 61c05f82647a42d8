"""Windows that slide over an image: where they stand, how borders are padded, and the checks that all rooms share."""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Padding = str | Sequence[Sequence[int]]
REALS = "{}: expected a real array (floats of 16 bits or more, integers or bools), got {}"
NO_BORDER: Pads = ((0, 0), (0, 0))
PADDINGS = "'VALID', 'SAME', 'CEIL' or ((top, bottom), (left, right))"


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


def accumulator(dtype: Any) -> Any:
    """The dtype to add up in: float32 for 16-bit floats, the dtype itself otherwise."""
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def check_shape(name: str, array: Array, *accepted: str) -> None:
    """Raises ValueError unless the array has the rank of one of the accepted shapes (`"H W C"`) and is not empty."""
    if array.ndim not in {len(shape.split()) for shape in accepted}:
        shapes = " or ".join(f"({', '.join(shape.split())})" for shape in accepted)
        raise ValueError(f"{name}: expected shape {shapes}, got {array.shape}; use jax.vmap for batches")
    if 0 in array.shape:
        raise ValueError(f"{name}: expected at least one element, got the empty shape {array.shape}")


def pair(name: str, value: int | Sequence[int]) -> Pair:
    """One positive int for both axes, or one for each: `pair("stride", 2) == (2, 2)`."""
    values = tuple(value) if isinstance(value, Sequence) else (value, value)
    try:
        rows, columns = (operator.index(v) for v in values)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected an int or two ints, got {value!r}") from None
    if rows < 1 or columns < 1:
        raise ValueError(f"{name}: expected at least 1, got {value!r}")
    return rows, columns


def count(name: str, value: int, *, least: int = 1) -> int:
    """One int, positive unless told otherwise."""
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {value!r}") from None
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return value


def number(
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


def sizes(shape: Any, hint: str = "; init takes (key, shape)") -> tuple[int, ...]:
    """The shape that a layer's `init` is given, as ints."""
    try:
        return tuple(operator.index(n) for n in shape)
    except TypeError:
        raise TypeError(f"shape: expected ints such as (H, W, C), got {shape!r}{hint}") from None


def positive_sizes(shape: Any) -> tuple[int, ...]:
    """A shape as ints, at least 1 each."""
    out = sizes(shape, hint="")
    if min(out, default=1) < 1:
        raise ValueError(f"shape: expected at least 1 of each, got {shape!r}")
    return out


def spread_mask(mask: Any, shape: tuple[int, ...]) -> Array:
    """A mask in the feature's shape: one (h, w) counts for all channels. Bools and integers become bool."""
    (weights,) = as_floats(mask=mask)
    weights = weights if jnp.issubdtype(jnp.asarray(mask).dtype, jnp.floating) else weights != 0
    if weights.shape != shape and weights.shape != shape[:2]:
        accepted = f"{shape}" if len(shape) == 2 else f"{shape} or {shape[:2]}"
        raise ValueError(f"mask: expected the shape of the feature, {accepted}, got {weights.shape}")
    weights = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    return jnp.broadcast_to(weights, shape)


def pads(padding: Padding, size: tuple[int, ...], window: Pair, stride: Pair, *, names: tuple[str, str]) -> Pads:
    """The rows and columns to add on each side, as ((top, bottom), (left, right)).

    - "VALID" adds none: only whole windows count.
    - "SAME" gives ceil(size / stride) windows, the odd pixel added after (as XLA and TensorFlow do).
    - "CEIL" starts at the first pixel and keeps the last partial window, if it holds a pixel (as the article does).

    `names` says what the caller calls the image and the window, for the ValueError when no window fits.
    """
    if isinstance(padding, str):
        if padding not in ("VALID", "SAME", "CEIL"):
            raise ValueError(f"padding: expected {PADDINGS}, got {padding!r}")
        out = [_named_pad(padding, *axis) for axis in zip(size, window, stride, strict=True)]
    else:
        out = _explicit_pads(padding)
    for pad, n, w in zip(out, size, window, strict=True):
        if n + sum(pad) < w:
            image, kernel = names
            given = f"{padding!r} padding" if isinstance(padding, str) else f"padding {tuple(out)}"
            raise ValueError(f"{kernel}: covers {window}, larger than the {image} of {size} with {given}")
    return out[0], out[1]


def _explicit_pads(padding: Any) -> list[Pair]:
    try:
        out = [(operator.index(low), operator.index(high)) for low, high in padding]
    except (TypeError, ValueError):
        raise TypeError(f"padding: expected {PADDINGS}, got {padding!r}") from None
    if len(out) != 2 or min(map(min, out)) < 0:
        raise ValueError(f"padding: expected {PADDINGS}, none negative, got {padding!r}")
    return out


def _named_pad(padding: str, n: int, w: int, s: int) -> Pair:
    if padding == "VALID":
        return 0, 0
    if padding == "SAME":
        total = max((math.ceil(n / s) - 1) * s + w - n, 0)
        return total // 2, total - total // 2
    windows = min(math.ceil(max(n - w, 0) / s) + 1, math.ceil(n / s))
    return 0, max((windows - 1) * s + w - n, 0)


def fold(image: Any, window: Pair, stride: Pair, padding: Pads, empty: float, join: Callable[..., Any]) -> Any:
    """Joins the pixels of every window by an associative `join`, columns then rows; padded cells hold `empty`.

    `image` is an array (H, W, *C) or several of them, and `join(a, b, many, few)` joins two, or two tuples, that stand
    for so many pixels each.

    Shifted slices, not `lax.reduce_window`: several times faster on CPU forward and backward, in about 2·log2(window)
    joins, and the gradient holds no select-and-scatter, so that it is the same in every run on every platform.
    """

    def bordered(array: Array) -> Array:
        return jnp.pad(array, [*padding] + [(0, 0)] * (array.ndim - 2), constant_values=empty)

    image = jax.tree.map(bordered, image)
    image = _runs(image, window[1], stride[1], 1, join, 1)
    return _runs(image, window[0], stride[0], 0, join, window[1])


def _runs(x: Any, length: int, stride: int, axis: int, join: Callable[..., Any], each: int) -> Any:
    """Joins every `length` neighbours along an axis: runs of half the length, or a quarter, and the last ones.

    Every one of them stands for `each` pixels already. Quarters of long runs save half of the passes over memory.
    """
    count = (jax.tree.leaves(x)[0].shape[axis] - length) // stride + 1

    def every(y: Any, start: int) -> Any:
        end = start + (count - 1) * stride + 1
        return jax.tree.map(lambda array: lax.slice_in_dim(array, start, end, stride, axis), y)

    if length == 1:
        return every(x, 0)
    part = length // (4 if length >= 16 else 2)
    parts = _runs(x, part, 1, axis, join, each) if part > 1 else x
    joined, done = join(every(parts, 0), every(parts, part), part * each, part * each), 2 * part
    if length >= 16:
        other = join(every(parts, 2 * part), every(parts, 3 * part), part * each, part * each)
        joined, done = join(joined, other, done * each, done * each), 4 * part
    for last in range(done, length):
        joined = join(joined, every(x, last), last * each, each)
    return joined


def walled(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, computed by itself on CPU: XLA would fuse it into what uses it, and lose its speed.

    XLA takes optimization barriers away before it fuses, but not a branch whose condition stands behind one.
    """

    def branch(*args: Any) -> Any:
        nothing = jax.eval_shape(function, *args)
        zeros = jax.tree.map(lambda out: functools.partial(jnp.zeros, out.shape, out.dtype), nothing)
        wall = lax.optimization_barrier(jnp.array(True))
        return lax.cond(wall, function, lambda *_: jax.tree.map(lambda zero: zero(), zeros), *args)

    return lax.platform_dependent(*args, cpu=branch, default=function)
