"""Pixels that are not finite, in algorithms that would spread them to other windows."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from ._typing import Pair
from ._xla import change_in_place_if, total


def spoil_windows(
    out: Array,
    image: Float[Array, "N H W C"],
    window: Sequence[int],
    stride: Pair,
    dilation: Pair,
    *,
    channel_axis: int,
) -> Array:
    """The results (N, H', W') of windows, NaN where a pixel of the window is not finite.

    Args:
      out: the results, which have a further axis, of channels.
      image: the image, zeros around and between its pixels included.
      window: rows and columns.
      stride: steps between windows.
      dilation: spacing of a window's pixels.
      channel_axis: its place.
    """

    def search(out: Array, image: Array) -> Array:
        is_fault = ~jnp.isfinite(image).all(axis=-1)
        for axis in (0, 1):
            is_fault = _any_of_runs(is_fault, 1 + axis, window[axis], dilation[axis])
        is_spoiled = is_fault[:, :: stride[0], :: stride[1]]
        return jnp.where(jnp.expand_dims(is_spoiled, channel_axis), jnp.nan, out)

    # A sum that overflows only costs a search.
    return change_in_place_if(~jnp.isfinite(total(image)), search, out, image)


def _any_of_runs(flags: Bool[Array, "N H W"], axis: int, length: int, gap: int) -> Bool[Array, "N H2 W2"]:
    """Whether any of `length` flags along an axis, `gap` apart, holds; for every first one."""
    positions = flags.shape[axis] - (length - 1) * gap

    def add(i: Array, found: Array) -> Array:
        return found | lax.dynamic_slice_in_dim(flags, i * gap, positions, axis)

    return lax.fori_loop(1, length, add, lax.slice_in_dim(flags, 0, positions, axis=axis))
