"""Where in an image an output comes from, found by experiment: NaN spreads through all that is computed from it."""

import bisect
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ._validation import as_positive_shape
from .layers import Layer

PLACES = 32  # rows or columns that are spoiled at a time


def receptive_field(
    function_or_net: Callable[[Array], Array] | Layer, shape: Sequence[int]
) -> tuple[int, int] | dict[str, tuple[int, int]]:
    """How many rows and columns of its image the middle of an output depends on, from the first to the last.

    The widest borders of NaN that do not reach the middle output frame what it depends on. Bisection finds them in
    some dozens of evaluations.

    The middle is row H' // 2 and column W' // 2 of an output (H', W', ...), in all channels; a vector or a number, such
    as the votes, counts whole. What would lie beyond the image's border is cut off: give a larger image, until the
    answer stays the same.

    Args:
      function_or_net: a function of one float image, or a `Layer`.
      shape: the image's, (H, W) or (H, W, C).

    Returns:
      (rows, columns) for a function; for a network a dict of them by stage, in order. (0, 0) depends on no pixel. A
      function that swallows NaN, as a comparison or `jnp.where(x > 0, x, 0)` does, seems not to depend on them.

    Raises:
      TypeError: something else than a function or a `Layer`, a shape that is not ints, outputs that are not one array
        of floats.
      ValueError: a shape that is not an image's, or outputs that are NaN even for an image in [1/4, 1].

    >>> from cnn_jax import max_pool, nets
    >>> receptive_field(lambda image: max_pool(max_pool(image)), (64, 64))
    (4, 4)
    >>> fields = receptive_field(nets.xo_net(), (128, 128, 1))
    >>> [fields[stage] for stage in ("conv1", "max_pool1", "conv2", "max_pool4", "dense1")]
    [(3, 3), (4, 4), (8, 8), (46, 46), (128, 128)]
    """
    shape = as_positive_shape(shape)
    if len(shape) not in (2, 3):
        raise ValueError(f"shape: expected that of an image, (H, W) or (H, W, C), got {shape}")
    if isinstance(function_or_net, Layer):
        outputs = functools.partial(function_or_net.stages, _some(parameter_shapes(function_or_net, shape)))
    else:
        function = checked_function(function_or_net)

        def outputs(image: Array) -> dict[str, Array]:
            return {"": function(image)}

    image = _some(jax.ShapeDtypeStruct(shape, jnp.float32))
    names = list(jax.eval_shape(outputs, image))

    @jax.jit
    def spoiled(image: Array) -> Array:
        return jnp.stack([_middle_is_nan(stage) for stage in outputs(image).values()])

    @functools.cache
    def without(axis: int, before: int, after: int) -> np.ndarray:
        """Which stages turn NaN in the middle when so many rows, or columns, do."""
        framed, inside = np.full_like(image, np.nan), [slice(None), slice(None)]
        inside[axis] = slice(before, shape[axis] - after)
        framed[tuple(inside)] = image[tuple(inside)]
        with jax.ensure_compile_time_eval():
            return np.asarray(spoiled(framed))

    if without(0, 0, 0).any():
        stages = ", ".join(repr(name) for name, bad in zip(names, without(0, 0, 0), strict=True) if bad)
        raise ValueError(f"function_or_net: expected no NaN for an image in [1/4, 1], got some in {stages}")

    def extent(axis: int, stage: int) -> int:
        most = range(1, shape[axis] + 1)
        before = bisect.bisect_left(most, True, key=lambda n: bool(without(axis, n, 0)[stage]))
        after = bisect.bisect_left(most, True, key=lambda n: bool(without(axis, 0, n)[stage]))
        return max(shape[axis] - before - after, 0)

    fields = {name: (extent(0, stage), extent(1, stage)) for stage, name in enumerate(names)}
    return fields if isinstance(function_or_net, Layer) else fields[""]


class PatchGrid(NamedTuple):
    """The patches of an image that the outputs of a stage look at.

    Attributes:
      size: rows and columns of one.
      rows: for each output row the image row where its patches start; below 0 where they begin beyond the border.
      columns: likewise.
    """

    size: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray


@functools.lru_cache(maxsize=32)  # two programs are compiled for it
def patch_grid(net: Layer, shape: tuple[int, ...], stage: str) -> PatchGrid:
    """Where the patches are that a stage's outputs (H', W', K) look at, for images of this shape.

    Raises a ValueError for a stage that seems to depend on no pixel. Outputs that look at none are given some patch.
    """
    params, image = _some(parameter_shapes(net, shape)), _some(jax.ShapeDtypeStruct(shape, jnp.float32))

    def along(axis: int) -> tuple[int, np.ndarray]:
        @jax.jit
        def spoiled() -> Array:
            def by(place: Array) -> Array:
                at = jnp.expand_dims(jnp.arange(shape[axis]) == place, [other for other in range(3) if other != axis])
                out = net.stages(params, jnp.where(at, jnp.nan, image))[stage]
                return jnp.isnan(out).any([other for other in range(3) if other != axis])

            return lax.map(by, jnp.arange(shape[axis]), batch_size=PLACES)

        with jax.ensure_compile_time_eval():
            seen = np.asarray(spoiled())  # (rows of the image, rows of the stage)
        if not seen.any():
            raise ValueError(f"stage: expected one that depends on the image, got {stage!r}, which NaN does not reach")
        first, last = seen.argmax(0), shape[axis] - 1 - seen[::-1].argmax(0)
        size = int((last - first)[seen.any(0)].max()) + 1
        return size, np.where(first > 0, first, last - size + 1)  # the image's first row may cut a patch off

    (height, rows), (width, columns) = along(0), along(1)
    return PatchGrid((height, width), rows, columns)


def _some(like: Any) -> Any:
    """Numbers that spoil nothing, for every array of a tree of shapes."""
    numbers = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: numbers.uniform(0.25, 1, leaf.shape).astype(leaf.dtype), like)


def _middle_is_nan(out: Any) -> Array:
    if not isinstance(out, jax.Array) or not jnp.issubdtype(out.dtype, jnp.floating):
        raise TypeError(f"function_or_net: expected one array of floats from it, got {out}")
    return jnp.isnan(out[out.shape[0] // 2, out.shape[1] // 2] if out.ndim > 1 else out).any()


def parameter_shapes(net: Layer, shape: Sequence[int]) -> Any:
    """A network's parameters for images of this shape, as shapes and dtypes alone."""
    return jax.eval_shape(lambda: net.init(jax.random.key(0), tuple(shape)))


def checked_function(value: Any) -> Callable[..., Any]:
    """What is no `Layer`, if it is a function; else a TypeError."""
    if not callable(value):
        raise TypeError(f"function_or_net: expected a function or a Layer, got {value!r}")
    return value
