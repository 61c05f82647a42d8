"""Checks of what training functions take: networks, optimizers, keys, functions, parameters, images and labels."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ._checksums import path_name
from ._errors import describe
from ._typing import AnyArray, Shape

# Kinds of NumPy's dtypes that arrays of JAX cannot have: bytes, text, Python objects, dates and times.
NOT_NUMBERS = frozenset("SUTOMm")
LABELS_HINT = "number them: classes, labels = numpy.unique(labels, return_inverse=True)"
LEAST_CLASSES = 2  # the softmax of one logit is 1, whatever the parameters


def check_optimizer(optimizer: object) -> None:
    """Raises a TypeError unless `optimizer` is an optax optimizer.

    >>> import optax
    >>> check_optimizer(optax.adam)
    Traceback (most recent call last):
    TypeError: optimizer: expected an optax optimizer, such as optax.adam(1e-3), got adam, which is to be called
    """
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        raise TypeError(f"optimizer: expected an optax optimizer, such as optax.adam(1e-3), got {describe(optimizer)}")


def check_trainable(params: PyTree) -> None:
    """Raises a TypeError for the first leaf of the parameters that is not an array of floats.

    >>> check_trainable({"dense1": {"bias": np.zeros(2, int)}})
    Traceback (most recent call last):
    TypeError: params: expected arrays of floats, got int64 at dense1/bias
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | float):
            place = f" at {path_name(path)}" if path else ""
            raise TypeError(f"params: expected arrays of floats, got {describe(leaf)}{place}")
        dtype = getattr(leaf, "dtype", np.float32)
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(f"params: expected arrays of floats, got {dtype} at {path_name(path)}")


def check_images_and_labels(name: str, data: object, expected: str = "(images, labels)") -> tuple[AnyArray, AnyArray]:
    """Images and labels as unconverted arrays of numbers, as many labels as images.

    Args:
      name: the argument's name.
      data: its value.
      expected: what is accepted, for the error message.

    Raises:
      TypeError: the data are not two arrays of numbers.
      ValueError: there are more or fewer labels than images.

    >>> images, labels = check_images_and_labels("data", ([[[0.5]], [[1.0]]], [0, 1]))
    >>> images.shape, labels.shape
    ((2, 1, 1), (2,))
    """
    if hasattr(data, "images") and hasattr(data, "labels"):
        hint = f"pass ({name}.images, {name}.labels)"
        raise TypeError(f"{name}: expected {expected}, got {type(data).__name__}; {hint}")
    if not isinstance(data, tuple | list) or len(data) != 2:
        got = f"a {type(data).__name__} of {len(data)}" if isinstance(data, tuple | list) else describe(data)
        raise TypeError(f"{name}: expected {expected}, got {got}")
    images = _as_numbers(name, "images", data[0], "scale them to one shape")
    labels = _as_numbers(name, "labels", data[1], LABELS_HINT)
    if images.ndim == 0:
        raise ValueError(f"{name}: expected images (N, H, W) or (N, H, W, C), got one number")
    if labels.shape[:1] != images.shape[:1]:
        got = len(labels) if labels.ndim else "one number"
        raise ValueError(f"{name}: expected as many labels as images ({len(images)}), got {got}")
    return images, labels


def check_classes(name: str, labels: AnyArray | jax.ShapeDtypeStruct, logits: PyTree, hint: str) -> None:
    """Raises an error unless labels suit the default loss: they are classes of the logits, and in range.

    Args:
      name: the argument that the labels belong to.
      labels: the labels of several images, or their shape and dtype, if their values are unknown.
      logits: the network's output for one image, of which the shape counts.
      hint: the end of the error message.

    >>> check_classes("data", np.array([0, 3]), np.zeros(3), "pass loss=")
    Traceback (most recent call last):
    ValueError: data: expected labels from 0 to 2, got 0 to 3; pass loss=
    """
    logits_shape: Shape | None = getattr(logits, "shape", None)
    if logits_shape is None:
        got = f"a {type(logits).__name__}"
        raise ValueError(f"net: expected one array of logits for the default loss, got {got}; {hint}")
    if not logits_shape or logits_shape[-1] < LEAST_CLASSES:
        got = f"the output shape {logits_shape}"
        raise ValueError(f"net: expected at least {LEAST_CLASSES} logits for the default loss, got {got}; {hint}")
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape[1:] != logits_shape[:-1]:
        places = f"integers of shape {logits_shape[:-1]}" if len(logits_shape) > 1 else "one integer label"
        raise TypeError(
            f"{name}: the default loss needs {places} per image, got {labels.dtype} of shape {labels.shape}; {hint}"
        )
    if isinstance(labels, jax.ShapeDtypeStruct) or not labels.size:
        return
    low = labels.min()
    high = labels.max()
    if low < 0 or high >= logits_shape[-1]:
        raise ValueError(f"{name}: expected labels from 0 to {logits_shape[-1] - 1}, got {low} to {high}; {hint}")


def _as_numbers(name: str, part: str, value: object, hint: str) -> AnyArray:
    """An array of numbers, unconverted if it is one."""
    if isinstance(value, jax.Array):
        return value
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: expected plain {part}, got a MaskedArray, whose mask would be ignored; pass .filled(x)"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise TypeError(f"{name}: expected {part} of one shape, got {type(value).__name__} ({error}); {hint}") from None
    if array.dtype.kind in NOT_NUMBERS:
        got = f"an array of {array.dtype}" if array.ndim else describe(value)
        raise TypeError(f"{name}: expected {part} that are numbers, got {got}; {hint}")
    return array
