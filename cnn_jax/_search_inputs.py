"""The arrays that `find` takes: checked as the user gave them, neither copied nor cast."""

import os
from collections.abc import Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Shaped

from ._typing import AnyArray
from ._validation import (
    EXPECTED_ARRAY,
    are_weights,
    check_shape,
    has_values,
    refuse_masked_array,
    weights_error,
)

Template = Shaped[ArrayLike, "..."]  # a feature, or its mask
# The widest last axis of an array that may be channels of one picture: gray, gray and alpha, color, color and alpha.
MAX_PICTURE_CHANNELS = 4
# Shapes that an error message lists.
MAX_LISTED_SHAPES = 5
ALPHA_HINT = (
    "the fourth channel of a picture is alpha, which is no color: pass image[..., :3] and template[..., :3], and "
    "mask=template[..., 3] > 0; if it is none, append a channel of zeros"
)


class Stack(NamedTuple):
    """Features of one shape."""

    indices: list[int]
    """Their indices among all features."""
    templates: AnyArray
    """(K, h, w, *C), or (h, w, *C) for one feature."""
    masks: AnyArray | None
    """Weights of their pixels, with or without the axis of channels."""
    shape: tuple[int, ...]
    """The shape of one feature."""

    @property
    def kind(self) -> tuple[object, ...]:
        """The dtypes of features and masks, and whether masks have channels. Stacks of one kind can be joined."""
        if self.masks is None:
            return (self.templates.dtype,)
        return self.templates.dtype, self.masks.dtype, self.masks.ndim - self.templates.ndim


def as_image(image: object) -> AnyArray:
    """Checks the image of `find`: (H, W) or (H, W, C), but not four channels."""
    array = as_array("image", image)
    check_shape("image", array, "H W", "H W C")
    if array.shape[2:] == (4,):
        raise ValueError(f"image: expected no alpha channel, got shape {array.shape}; {ALPHA_HINT}")
    return array


def as_array(name: str, value: object) -> AnyArray:
    """Checks that a value is an array of real numbers, of NumPy, JAX or a package that NumPy understands."""
    if isinstance(value, str | bytes | os.PathLike):
        raise TypeError(
            f"{name}: expected an array, got {value!r}; find takes arrays, cnn_jax.data.image_io reads files"
        )
    refuse_masked_array(name, value)
    if not isinstance(value, np.ndarray | np.generic | jax.Array):
        if not hasattr(value, "__array__") and not hasattr(value, "__array_interface__"):
            hint = "; use numpy.asarray" if isinstance(value, list | tuple) else ""
            raise TypeError(f"{name}: expected {EXPECTED_ARRAY}, got {type(value).__name__}{hint}")
        value = np.asarray(value)
    array = cast(AnyArray, value)
    is_float = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize > 1
    if not is_float and not jnp.issubdtype(array.dtype, jnp.integer) and array.dtype != jnp.bool_:
        raise TypeError(f"{name}: expected {EXPECTED_ARRAY}, got {array.dtype}")
    return array


def as_stacks(
    features: Template | Sequence[Template],
    mask: Template | Sequence[Template | None] | None,
    image_shape: tuple[int, ...],
) -> list[Stack]:
    """Checks the features and masks of `find`: one feature, a bank, or a sequence of features."""
    if isinstance(features, list | tuple):
        return _sequence_stacks(features, mask, image_shape)
    array = as_array("features", features)
    is_bank = array.ndim == len(image_shape) + 1
    _check_feature_shape("features", array, image_shape, is_bank=is_bank)
    if not is_bank:
        _refuse_many_masks(mask, array.shape)
        return [_make_stack("", [0], array, mask, array.shape)]
    if isinstance(mask, list | tuple):
        return _sequence_stacks(list(array), mask, image_shape)
    masks = None if mask is None else as_array("mask", mask)
    if masks is not None:
        _check_mask_count(len(array), masks, [array.shape[1:]])
    return [_make_stack("", list(range(len(array))), array, masks, array.shape[1:])]


def _sequence_stacks(
    features: Sequence[Template], mask: Template | Sequence[Template | None] | None, image_shape: tuple[int, ...]
) -> list[Stack]:
    if len(features) == 0:
        raise ValueError("features: expected an array, or a list of at least one, got an empty list")
    arrays = []
    for i, feature in enumerate(features):
        array = as_array(f"features[{i}]", feature)
        _check_feature_shape(f"features[{i}]", array, image_shape, is_bank=False)
        arrays.append(array)
    masks: Sequence[Template | None] = [None] * len(arrays)
    if mask is not None:
        several = mask if isinstance(mask, list | tuple) else as_array("mask", mask)
        _check_mask_count(len(arrays), several, [array.shape for array in arrays])
        masks = list(several)
    return [
        _make_stack(f"[{i}]", [i], array, weights, array.shape)
        for i, (array, weights) in enumerate(zip(arrays, masks, strict=True))
    ]


def _check_mask_count(count: int, masks: AnyArray | Sequence[object], shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuses another number of masks than that of features, and one mask for several features of these shapes."""
    shape = getattr(masks, "shape", None)
    is_one = shape is not None and (
        len(shape) < 2 or all(shape in (of_feature, of_feature[:2]) for of_feature in shapes)
    )
    if not is_one and len(masks) == count:
        return
    got = f"one of shape {shape}; repeat it, as in mask=[mask] * {count}" if is_one else f"{len(masks)}"
    raise ValueError(f"mask: expected one mask for each feature, {count} in all, got {got}")


def _refuse_many_masks(mask: object, shape: tuple[int, ...]) -> None:
    """Refuses a list of masks for one feature."""
    if isinstance(mask, list | tuple) and any(hasattr(weights, "shape") for weights in mask):
        raise ValueError(
            f"mask: expected an array for one feature of shape {shape}, got a list of {len(mask)}; pass a list of "
            "features with it"
        )


def _check_feature_shape(name: str, array: AnyArray, image_shape: tuple[int, ...], *, is_bank: bool) -> None:
    """Refuses shapes that do not fit the image's, and those that may be meant otherwise than they would be read."""
    got = f"got shape {array.shape} for an image of shape {image_shape}"
    channels = array.shape[-1] if array.ndim >= 3 else 0
    if len(image_shape) == 2 and array.ndim == 3 and channels <= MAX_PICTURE_CHANNELS:
        raise ValueError(
            f"{name}: expected gray features for a gray image, {got}, which looks like one feature with {channels} "
            f"channels; make it gray, or pass features of {channels} columns as a list"
        )
    if len(image_shape) == 3 and array.ndim == 2:
        raise ValueError(
            f"{name}: expected features with the channels of the image, {got}; make the image gray, or repeat the "
            "feature along a last axis"
        )
    one = "h w C" if len(image_shape) == 3 else "h w"
    accepted = ("K " + one,) if is_bank else (one,)
    if array.ndim != len(accepted[0].split()):
        raise ValueError(f"{name}: expected shape ({', '.join(one.split())}), {got}")
    check_shape(name, array, *accepted)
    if len(image_shape) == 3 and channels != image_shape[2]:
        hint = f"; {ALPHA_HINT}" if channels == 4 else ""
        raise ValueError(f"{name}: expected features with the channels of the image, {got}{hint}")


def _make_stack(position: str, indices: list[int], templates: AnyArray, mask: object, shape: tuple[int, ...]) -> Stack:
    masks = None if mask is None else as_array(f"mask{position}", mask)
    if masks is not None:
        mask_shape = masks.shape[1:] if templates.ndim > len(shape) else masks.shape
        if mask_shape not in (shape, shape[:2]):
            accepted = f"{shape}" if len(shape) == 2 else f"{shape} or {shape[:2]}"
            raise ValueError(f"mask{position}: expected the shape of the feature, {accepted}, got {mask_shape}")
    stack = Stack(indices, templates, masks, shape)
    _check_weights(stack, position)
    _check_finite(stack)
    return stack


def _check_weights(stack: Stack, position: str) -> None:
    """Refuses masks of negative or not finite weights, or without any, unless the values are not known yet."""
    if stack.masks is None or not has_values(stack.masks):
        return
    is_bank = stack.templates.ndim > len(stack.shape)
    names = [f"mask[{index}]" for index in stack.indices] if is_bank else [f"mask{position}"]
    weights = np.asarray(stack.masks).reshape(len(names), -1)
    faults = np.flatnonzero(~are_weights(weights).all(axis=1))
    if len(faults):
        raise weights_error(names[faults[0]])
    empty = np.flatnonzero(~weights.any(axis=1))
    if len(empty):
        raise ValueError(f"{names[empty[0]]}: expected a weight above 0, got none; no pixel of the feature counts")


def _check_finite(stack: Stack) -> None:
    """Refuses NaN and infinite pixels that are not masked out, unless the values are not known yet."""
    if not has_values(stack.templates) or not jnp.issubdtype(stack.templates.dtype, jnp.floating):
        return
    is_finite = np.isfinite(np.asarray(stack.templates, np.float64))
    if is_finite.all() or (stack.masks is not None and not has_values(stack.masks)):
        return
    if stack.masks is not None:
        is_masked_out = np.asarray(stack.masks) == 0
        is_finite = is_finite | is_masked_out.reshape(
            *is_masked_out.shape, *[1] * (is_finite.ndim - is_masked_out.ndim)
        )
    faults = np.flatnonzero(~is_finite.reshape(len(stack.indices), -1).all(axis=1))
    if len(faults):
        raise ValueError(
            f"features: expected finite pixels, got NaN or infinity in feature {stack.indices[faults[0]]}; "
            "mask such pixels out"
        )


def shapes_text(stacks: Sequence[Stack]) -> str:
    """The shapes of features, for an error message."""
    shapes = list(dict.fromkeys(str(stack.templates.shape) for stack in stacks))
    more = ", ..." if len(shapes) > MAX_LISTED_SHAPES else ""
    return ", ".join(shapes[:MAX_LISTED_SHAPES]) + more
