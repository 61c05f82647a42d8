"""One training step: the gradient of a batch's mean loss, and the optimizer's update."""

import functools
from typing import Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree, Shaped

from ._dtypes import accumulation_dtype
from ._train_state import TrainState, strip_weak_types
from .layers import Layer, Params
from .norms import BATCH_AXIS

Metrics = dict[str, Array]
"""Values by name: "loss", and "accuracy" where there is one integer label per image."""


@runtime_checkable
class Loss(Protocol):
    """The loss of one example, from the network's logits and the example's label."""

    def __call__(self, logits: Shaped[Array, "..."], label: Shaped[Array, "..."], /) -> Float[Array, ""]: ...


@runtime_checkable
class TrainStep(Protocol):
    """One update on a batch. Returns the next state, and metrics of the batch before the update."""

    def __call__(
        self,
        state: TrainState,
        images: Shaped[Array, "N H W C"],
        labels: Shaped[Array, "N ..."],
        key: Array,
    ) -> tuple[TrainState, Metrics]: ...


def make_train_step(
    net: Layer, optimizer: optax.GradientTransformation, loss: Loss, compute_dtype: DTypeLike | None = None
) -> TrainStep:
    """The training step of a network, as a pure function that can be compiled.

    Args:
      net: the network.
      optimizer: an optax optimizer. `update` receives the gradients, the parameters and `value=loss`.
      loss: the loss of one example; the batch's loss is the mean.
      compute_dtype: the floating dtype of the forward and backward pass; None keeps the parameters' dtypes.

    Returns:
      `train_step(state, images, labels, key)`. Step s draws its randomness (dropout) from `fold_in(key, s)`.

    >>> from cnn_jax._train_state import init_train_state
    >>> from cnn_jax.layers import Chain, Dense, Flatten
    >>> net = Chain(Flatten(), Dense(2))
    >>> train_step = make_train_step(net, optax.sgd(1.0), optax.softmax_cross_entropy_with_integer_labels)
    >>> images = jnp.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
    >>> key = jax.random.key(0)
    >>> state = init_train_state(net.init(key, images.shape[1:]), optax.sgd(1.0))
    >>> state, metrics = jax.jit(train_step)(state, images, jnp.array([0, 1]), key)
    >>> int(state.step), sorted(metrics)
    (1, ['accuracy', 'loss'])
    """
    optimizer = optax.with_extra_args_support(optimizer)
    objective = functools.partial(_batch_loss, net=net, loss=loss, compute_dtype=compute_dtype)

    def train_step(state: TrainState, images: Array, labels: Array, key: Array) -> tuple[TrainState, Metrics]:
        step = state.step + 1
        keys = jax.random.split(jax.random.fold_in(key, step), len(images))
        gradients, metrics = jax.grad(objective, has_aux=True)(state.params, images, labels, keys)
        # optax mixes dtypes and ranks, which JAX's strict modes forbid.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, value=metrics["loss"])
        params = cast(Params, optax.apply_updates(state.params, updates))
        new_state = TrainState(params=params, opt_state=opt_state, data_state=state.data_state, step=step)
        return strip_weak_types(new_state), metrics

    return train_step


def _batch_loss(
    params: Params,
    images: Array,
    labels: Array,
    keys: Array,
    *,
    net: Layer,
    loss: Loss,
    compute_dtype: DTypeLike | None,
) -> tuple[Array, Metrics]:
    """The mean loss of a batch, and its metrics."""
    if compute_dtype is not None:
        params = _cast_floats(params, compute_dtype)
        images = images.astype(compute_dtype)

    def logits_of(image: Array, key: Array) -> Array:
        return net.apply(params, image, train=True, key=key)

    logits = jax.vmap(logits_of, axis_name=BATCH_AXIS)(images, keys)
    if compute_dtype is not None:
        logits = jax.tree.map(lambda leaf: leaf.astype(accumulation_dtype(leaf.dtype)), logits)
    mean_loss = jnp.mean(jax.vmap(loss)(logits, labels))
    metrics = {"loss": mean_loss}
    if jnp.issubdtype(labels.dtype, jnp.integer) and labels.shape == logits.shape[:-1]:
        is_right = jnp.argmax(logits, -1) == labels.astype(jnp.int32)
        metrics["accuracy"] = jnp.mean(is_right, dtype=mean_loss.dtype)
    return mean_loss, metrics


def _cast_floats(tree: PyTree, dtype: DTypeLike) -> PyTree:
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def check_compute_dtype(compute_dtype: DTypeLike | None) -> None:
    """Raises a TypeError unless `compute_dtype` is a floating dtype or None.

    >>> check_compute_dtype(jnp.bfloat16)
    """
    try:
        is_floating = compute_dtype is None or jnp.issubdtype(compute_dtype, jnp.floating)
    except TypeError:
        is_floating = False
    if not is_floating:
        raise TypeError(f"compute_dtype: expected a floating dtype, got {compute_dtype!r}")
