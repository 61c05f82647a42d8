"""The logit that an attribution map explains."""

import functools
import operator
from collections.abc import Callable, Hashable
from typing import SupportsIndex, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Int, Shaped

from ._calibration import check_calibrated
from ._programs import program_of
from ._typing import AnyArray, Scalar
from ._validation import check_image, to_floats
from .layers import Layer, Params

Label = Int[ArrayLike, ""] | None


def explain_logit(
    method: Callable[..., Array],
    net: Layer,
    params: Params,
    image: Shaped[ArrayLike, "H W C"],
    label: Label,
    *args: AnyArray | Scalar,
    **options: Hashable,
) -> Array:
    """`method(net, params, image, label, *args, **options)` as a program, after checks of the image and the label."""
    image = check_image(image, "H W C")
    check_calibrated(params)
    if label is not None:
        shape = jax.eval_shape(program_of(_logits, net), params, image).shape
        label = check_label(label, _check_logits_shape(shape)[0])
    return program_of(method, net, **options)(params, image, label, *args)


def _logits(net: Layer, params: Params, image: Array) -> Array:
    return net.apply(params, *to_floats(image))


def logit_function(net: Layer, params: Params, image: Array, label: Label) -> Callable[[Array], Array]:
    """The function from any image to the logit of the explained class."""
    logit_of = select_logit(net, params, image, label)
    return lambda other_image: logit_of(net.apply(params, other_image))


def select_logit(net: Layer, params: Params, image: Array, label: Label) -> Callable[[Array], Array]:
    """The function from logits to the explained one: the label's, by default the one that is largest for `image`."""
    _check_logits_shape(jax.eval_shape(functools.partial(net.apply, params), image).shape)
    index = jnp.argmax(net.apply(params, image)) if label is None else label
    return lambda logits: logits[index]


def _check_logits_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 1:
        raise ValueError(f"net: expected a network whose output is a vector of logits (K,), got shape {shape}")
    return shape


def check_label(label: object, classes: int) -> int | Int[Array, ""]:
    """A class index; a traced one passes unchecked, since its value is unknown at trace time."""
    if isinstance(label, Tracer) and jnp.issubdtype(label.dtype, jnp.integer) and label.shape == ():
        return label
    if isinstance(label, bool | np.bool_ | Tracer):
        raise TypeError(f"label: expected an int from 0 to {classes - 1}, got {label!r}")
    try:
        index = operator.index(cast(SupportsIndex, label))
    except TypeError:
        raise TypeError(f"label: expected an int from 0 to {classes - 1}, got {label!r}") from None
    if not 0 <= index < classes:
        raise ValueError(f"label: expected 0 to {classes - 1}, got {index}")
    return index
