"""Metrics of batches and data sets: the mean loss, and the accuracy where labels are classes."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree, Shaped

from ._errors import describe
from ._typing import AnyArray

Metrics = dict[str, Array]
"""Values by name: "loss", and "accuracy" where labels are classes."""

default_loss = optax.softmax_cross_entropy_with_integer_labels


@runtime_checkable
class Loss(Protocol):
    """The loss of one example, from the network's logits and the example's label."""

    def __call__(self, logits: Shaped[Array, "..."], label: Shaped[Array, "..."], /) -> Float[Array, "..."]: ...


@runtime_checkable
class Metric(Protocol):
    """A number for one example, or an array of which the mean is taken, from the network's logits and the label."""

    def __call__(self, logits: Shaped[Array, "..."], label: Shaped[Array, "..."], /) -> Shaped[Array, "..."]: ...


def accuracy(logits: Shaped[ArrayLike, "*places K"], label: Shaped[ArrayLike, "*places"]) -> Float[Array, ""]:
    """The share of labels that are the class of the largest logit: 0 or 1 for one label per image.

    Args:
      logits: a number for each of K >= 2 classes, at each place that has a label.
      label: integers from 0 to K - 1.

    Raises:
      ValueError: logits and labels that are not of that form.

    >>> accuracy(jnp.array([[0.0, 1.0], [3.0, 2.0]]), jnp.array([1, 1]))
    Array(0.5, dtype=float32)
    """
    logits = jnp.asarray(logits)
    label = jnp.asarray(label)
    if not are_classes(logits, label):
        raise ValueError(
            f"label: expected integers of shape {logits.shape[:-1]} for at least two classes, got {label.dtype} of "
            f"shape {label.shape} for logits of shape {logits.shape}"
        )
    return jnp.mean(jnp.argmax(logits, -1) == label.astype(jnp.int32), dtype=jnp.float32)


def are_classes(logits: PyTree, labels: AnyArray | jax.ShapeDtypeStruct) -> bool:
    """Whether labels are classes of the logits: integers, at each place where there are two logits or more.

    >>> are_classes(jnp.zeros((5, 10)), jnp.zeros(5, int)), are_classes(jnp.zeros((5, 1)), jnp.zeros(5, int))
    (True, False)
    """
    shape: tuple[int, ...] = getattr(logits, "shape", ())
    is_integer = jnp.issubdtype(labels.dtype, jnp.integer)
    return is_integer and len(shape) > 0 and shape[-1] >= 2 and labels.shape == shape[:-1]


def batch_metrics(loss: Loss, logits: PyTree, labels: Array) -> Metrics:
    """The mean loss of a batch, and its accuracy where labels are classes."""
    values = example_values(metrics_for(loss, logits, labels), logits, labels)
    return {name: jnp.mean(value) for name, value in values.items()}


def metrics_for(loss: Loss, logits: PyTree, labels: AnyArray | jax.ShapeDtypeStruct) -> dict[str, Metric]:
    """The loss, and the accuracy where labels are classes of the logits. Only their shapes and dtypes count."""
    metrics: dict[str, Metric] = {"loss": loss}
    return metrics | {"accuracy": accuracy} if are_classes(logits, labels) else metrics


def example_values(metrics: Mapping[str, Metric], logits: PyTree, labels: Array) -> Metrics:
    """The values of all metrics for every example."""
    return {name: _example_means(name, jax.vmap(metric)(logits, labels)) for name, metric in metrics.items()}


def _example_means(name: str, values: Array) -> Array:
    if not isinstance(values, jax.Array):
        raise TypeError(f"{name}: expected a function that returns an array, got one that returns {describe(values)}")
    values = values if jnp.issubdtype(values.dtype, jnp.inexact) else values.astype(jnp.float32)
    return jnp.mean(values, tuple(range(1, values.ndim)))
