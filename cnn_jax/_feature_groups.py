"""Features of `find` in arrays of one shape, the data of a compiled search."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._search_inputs import Stack
from ._typing import AnyArray
from ._validation import as_floats


class Features(NamedTuple):
    """K features of one dtype, and of one shape or in the top left of arrays of one shape."""

    indices: np.ndarray
    """Their indices among all features."""
    templates: AnyArray
    """(K, h, w, *C), or (h, w, *C) for one feature."""
    masks: AnyArray | None
    """Weights of their pixels, with or without the axis of channels."""


def join_features(stacks: Sequence[Stack], frame: tuple[int, ...]) -> Features:
    """Features of several stacks of one kind; rows and columns that they lack of a frame are 0."""
    masks = [stack.masks for stack in stacks if stack.masks is not None]
    return Features(
        indices=np.concatenate([stack.indices for stack in stacks]),
        templates=_join([stack.templates for stack in stacks], stacks, frame),
        masks=_join(masks, stacks, frame) if masks else None,
    )


def _join(arrays: Sequence[AnyArray], stacks: Sequence[Stack], frame: tuple[int, ...]) -> AnyArray:
    """Arrays of several features as one array (K, *frame, *C); a single array as it is."""
    if len(arrays) == 1:
        return arrays[0]
    numpy = np if all(isinstance(array, np.ndarray) for array in arrays) else jnp

    def framed(array: AnyArray, stack: Stack) -> AnyArray:
        missing = [(0, n - side) for n, side in zip(frame, stack.shape[:2], strict=True)]
        axes = [(0, 0)] * (array.ndim - 2)
        return numpy.pad(array, [*missing, *axes]) if any(after for _, after in missing) else array

    return numpy.stack([framed(array, stack) for array, stack in zip(arrays, stacks, strict=True)])


def as_bank(
    features: Features, channels: tuple[int, ...]
) -> tuple[Float[Array, "K h w *C"], Float[Array, "K h w *C"] | Array | None]:
    """Templates in a floating dtype, and masks of the same shape, bools if they are no floats."""
    count = len(features.indices)
    (templates,) = as_floats(features=features.templates)
    templates = templates.reshape(count, *templates.shape[templates.ndim - 2 - len(channels) :])
    if features.masks is None:
        return templates, None
    masks = jnp.asarray(features.masks)
    masks = masks if jnp.issubdtype(masks.dtype, jnp.floating) else masks.astype(bool)
    is_plain = masks.ndim == features.templates.ndim - len(channels)
    masks = masks.reshape(*templates.shape[:3], *[1 if is_plain else n for n in channels])
    return templates, jnp.broadcast_to(masks, templates.shape)
