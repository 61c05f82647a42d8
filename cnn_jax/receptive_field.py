"""Receptive fields, measured: a NaN in an image spreads to every output that is computed from it."""

import bisect
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._function_or_net import check_function
from ._layer import param_shapes
from ._programs import cached
from ._typing import Pair
from ._validation import as_positive_shape
from .layers import Layer

__all__ = ["PatchGrid", "patch_grid", "receptive_field"]

NAN_BATCH_SIZE = 32  # copies of the image in one batch, each with one row or column of NaN


@overload
def receptive_field(function_or_net: Layer, shape: Sequence[int]) -> dict[str, Pair]: ...


@overload
def receptive_field(function_or_net: Callable[[Array], Array], shape: Sequence[int]) -> Pair: ...


def receptive_field(function_or_net: Callable[[Array], Array] | Layer, shape: Sequence[int]) -> Pair | dict[str, Pair]:
    """Receptive field of the center output: how many rows and columns of the image it depends on.

    Grows a NaN border from each side of the image, by bisection, until it reaches the center output.

    The center of an output (H', W', ...) is row H' // 2 and column W' // 2, in all channels. A vector or a number,
    such as the logits, counts as a whole. The field ends at the image's border: pass a larger image until the result
    stays the same.

    Args:
      function_or_net: a function of one float image, or a `Layer`.
      shape: the image's shape, (H, W) or (H, W, C).

    Returns:
      (rows, columns) for a function; for a network a dict of them by stage, in order. (0, 0) means that the output
      depends on no pixel.

    Raises:
      TypeError: `function_or_net` is neither a function nor a `Layer`, the shape is not ints, or an output is not one
        array of floats.
      ValueError: the shape is not an image's, or an output is NaN even for an image in [1/4, 1].

    Notes:
      Accuracy: a function that replaces NaN, as a comparison or `jnp.where(x > 0, x, 0)` does, appears not to depend
      on those pixels.
      Cost: one compilation and a few dozen evaluations for each new function and shape; the last 32 results are cached.

    Example:
      >>> from cnn_jax import max_pool, nets
      >>> receptive_field(lambda image: max_pool(max_pool(image)), (64, 64))
      (4, 4)
      >>> fields = receptive_field(nets.xo_net(), (128, 128, 1))
      >>> [fields[stage] for stage in ("conv1", "max_pool1", "conv2", "max_pool4", "dense1")]
      [(3, 3), (4, 4), (8, 8), (46, 46), (128, 128)]
    """
    shape = as_positive_shape(shape)
    if len(shape) not in (2, 3):
        raise ValueError(f"shape: expected an image shape (H, W) or (H, W, C), got {shape}")
    fields = _receptive_fields(function_or_net, shape)
    return dict(fields) if isinstance(function_or_net, Layer) else fields[""]


@cached(maxsize=32)
def _receptive_fields(function_or_net: Callable[[Array], Array] | Layer, shape: tuple[int, ...]) -> Mapping[str, Pair]:
    """The receptive field of every output by name."""
    outputs_by_name = _outputs_by_name(function_or_net, shape)
    image = _random_like(jax.ShapeDtypeStruct(shape, jnp.float32))
    names = list(jax.eval_shape(outputs_by_name, image))

    @jax.jit
    def nan_reaches(image: Array) -> Array:
        """Which outputs are NaN in their center."""
        return jnp.stack([_center_is_nan(output) for output in outputs_by_name(image).values()])

    @functools.cache
    def nan_flags(axis: int, before: int, after: int) -> np.ndarray:
        """Which outputs are NaN in their center when the first and last rows, or columns, of the image are NaN."""
        with jax.ensure_compile_time_eval():
            return np.asarray(nan_reaches(_with_nan_border(image, axis, before, after)))

    _check_no_nan(names, nan_flags(0, 0, 0))

    def extent(axis: int, output: int) -> int:
        return _extent(shape[axis], lambda before, after: bool(nan_flags(axis, before, after)[output]))

    return {name: (extent(0, output), extent(1, output)) for output, name in enumerate(names)}


def _outputs_by_name(
    function_or_net: Callable[[Array], Array] | Layer, shape: tuple[int, ...]
) -> Callable[[Array], dict[str, Array]]:
    """A network's stages, with random parameters; a function's output under the name ""."""
    if isinstance(function_or_net, Layer):
        return functools.partial(function_or_net.stages, _random_like(param_shapes(function_or_net, shape)))
    check_function(function_or_net)
    return lambda image: {"": function_or_net(image)}


def _with_nan_border(image: np.ndarray, axis: int, before: int, after: int) -> np.ndarray:
    inside = [slice(None), slice(None)]
    inside[axis] = slice(before, image.shape[axis] - after)
    bordered = np.full_like(image, np.nan)
    bordered[tuple(inside)] = image[tuple(inside)]
    return bordered


def _center_is_nan(output: object) -> Array:
    if not isinstance(output, jax.Array) or not jnp.issubdtype(output.dtype, jnp.floating):
        raise TypeError(f"function_or_net: expected one array of floats as its output, got {output}")
    center = output[output.shape[0] // 2, output.shape[1] // 2] if output.ndim > 1 else output
    return jnp.isnan(center).any()


def _check_no_nan(names: Sequence[str], is_nan: np.ndarray) -> None:
    if is_nan.any():
        nan_names = ", ".join(repr(name) for name, bad in zip(names, is_nan, strict=True) if bad and name)
        stages = f" in {nan_names}" if nan_names else ""
        raise ValueError(f"function_or_net: expected no NaN for an image in [1/4, 1], got NaN{stages}")


def _extent(size: int, nan_reaches: Callable[[int, int], bool]) -> int:
    """Pixels of an axis left between the widest NaN borders, before and after, that do not reach the output."""
    widths = range(1, size + 1)
    before = bisect.bisect_left(widths, True, key=lambda width: nan_reaches(width, 0))
    after = bisect.bisect_left(widths, True, key=lambda width: nan_reaches(0, width))
    return max(size - before - after, 0)


class PatchGrid(NamedTuple):
    """The image patches that the outputs of a stage depend on.

    Attributes:
      size: rows and columns of a patch.
      rows: for each output row, the image row where its patches start; negative where they start above the image.
      columns: for each output column, the image column where its patches start.
    """

    size: Pair
    rows: Int[np.ndarray, " H2"]
    columns: Int[np.ndarray, " W2"]


def patch_grid(net: Layer, shape: Sequence[int], stage: str) -> PatchGrid:
    """Positions of the image patches that the outputs (H', W', K) of a stage depend on, measured with NaN.

    Args:
      net: the network.
      shape: the image's shape (H, W, C).
      stage: name of a stage of shape (H', W', K).

    Returns:
      A `PatchGrid`. An output that depends on no pixel, in a padded border, has an arbitrary patch.

    Raises:
      KeyError: there is no stage of this name.
      ValueError: the stage depends on no pixel.

    Notes:
      Cost: compiles two programs for each new network, shape and stage; the last 32 results are cached.

    Example:
      >>> from cnn_jax import Conv
      >>> size, rows, columns = patch_grid(Conv(2, 3, stride=2), (7, 9, 1), "conv")
      >>> size, rows.tolist(), columns.tolist()
      ((3, 3), [0, 2, 4], [0, 2, 4, 6])
    """
    return _patch_grid(net, as_positive_shape(shape), stage)


@cached(maxsize=32)
def _patch_grid(net: Layer, shape: tuple[int, ...], stage: str) -> PatchGrid:
    params = _random_like(param_shapes(net, shape))
    image = _random_like(jax.ShapeDtypeStruct(shape, jnp.float32))
    patches = []
    for axis in (0, 1):
        reached = _reached_outputs(lambda image: net.stages(params, image)[stage], image, axis)
        if not reached.any():
            raise ValueError(f"stage: {stage!r} does not depend on the image (a NaN in the image never reaches it)")
        patches.append(_patches_along(reached))
    (height, rows), (width, columns) = patches
    return PatchGrid((height, width), rows, columns)


def _reached_outputs(
    activations: Callable[[Array], Array], image: Float[np.ndarray, "H W C"], axis: int
) -> Bool[np.ndarray, "N N2"]:
    """Which of the N2 output rows, or columns, become NaN with each of the image's N rows, or columns."""
    other_axes = tuple(other for other in range(3) if other != axis)

    def reached_from(index: Array) -> Array:
        is_nan = jnp.expand_dims(jnp.arange(image.shape[axis]) == index, other_axes)
        return jnp.isnan(activations(jnp.where(is_nan, jnp.nan, image))).any(other_axes)

    @jax.jit
    def nan_reaches() -> Array:
        return lax.map(reached_from, jnp.arange(image.shape[axis]), batch_size=NAN_BATCH_SIZE)

    with jax.ensure_compile_time_eval():
        return np.asarray(nan_reaches())


def _patches_along(reached: Bool[np.ndarray, "N N2"]) -> tuple[int, Int[np.ndarray, " N2"]]:
    """Size of the patches along one axis, and where each starts; the image's border may cut off the first ones."""
    first = reached.argmax(0)
    last = len(reached) - 1 - reached[::-1].argmax(0)
    size = int((last - first)[reached.any(0)].max()) + 1
    return size, np.where(first > 0, first, last - size + 1)


def _random_like(shapes: PyTree) -> PyTree:
    """Random numbers in [1/4, 1], which few functions turn into NaN, for every shape of a tree."""
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: generator.uniform(0.25, 1, leaf.shape).astype(leaf.dtype), shapes)
