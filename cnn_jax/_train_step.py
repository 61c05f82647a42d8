"""One training step: the gradient of a batch's mean loss, and the optimizer's update."""

import functools
from typing import Protocol, cast, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, PyTree, Shaped

from ._batch_loaders import with_channels
from ._contents import Contents
from ._dtypes import accumulation_dtype
from ._fit_arguments import check_optimizer
from ._layer import check_net
from ._mesh_axes import on_any_mesh
from ._metrics import Loss, Metrics, batch_metrics, default_loss
from ._object_checks import check_callable
from ._programs import cached
from ._train_state import TrainState, split_run_key, strip_weak_types
from .layers import Layer, Params
from .norms import BATCH_AXIS

MAX_PROGRAMS = 32  # of training that are kept; the one unused for the longest time is dropped first


@runtime_checkable
class TrainStep(Protocol):
    """One update on a batch. Returns the next state, and metrics of the batch before the update."""

    def __call__(
        self, state: TrainState, images: Shaped[ArrayLike, "N H W *C"], labels: Shaped[ArrayLike, "N ..."], /
    ) -> tuple[TrainState, Metrics]: ...


def train_step(
    net: Layer,
    optimizer: optax.GradientTransformation,
    *,
    loss: Loss = default_loss,
    compute_dtype: DTypeLike | None = None,
) -> TrainStep:
    """The step that `fit` repeats, as a pure, compiled function for a training loop of your own.

        state, metrics = step(state, images, labels)

    Args:
      net: the network.
      optimizer: an optax optimizer. Its `update` receives the gradients, the parameters and, for line searches,
        `value=`, `grad=` and `value_fn=` of the batch's loss.
      loss: `loss(logits, label)` of one example; the batch's loss is the mean.
      compute_dtype: the floating dtype of the forward and backward pass; None keeps the parameters' dtypes.

    Returns:
      A function of a `TrainState`, images (N, H, W, C) or gray (N, H, W), and labels (N, ...). It returns the next
      state and the metrics of the batch before the update: "loss", and "accuracy" where labels are integer classes.

    Raises:
      TypeError: net is not a Layer, optimizer not an optax optimizer, loss not a function, or compute_dtype not a
        floating dtype.
      ValueError: from the function, images of a wrong rank.

    Notes:
      Equal arguments give the same function, so that it is compiled once for each shape of a batch. Optimizers of optax
      that were made from equal numbers are equal. As for `jax.jit`, functions must be pure. The step may be used
      within `jax.jit`, `lax.scan` and on sharded batches. The given state stays valid; to reuse its memory, call
      `jax.jit(step, donate_argnums=0)`.

      Step s draws the randomness of the network, such as that of dropout, from the state's key and s.

    Example:

    >>> from cnn_jax.layers import Chain, Dense, Flatten
    >>> net = Chain(Flatten(), Dense(2))
    >>> optimizer = optax.sgd(1.0)
    >>> images = jnp.array([-1.0, 1.0]).reshape(2, 1, 1, 1)
    >>> labels = jnp.array([0, 1])
    >>> key = jax.random.key(0)
    >>> state = TrainState.create(net.init(key, images.shape[1:]), optimizer, key)
    >>> step = train_step(net, optimizer)
    >>> for _ in range(20):
    ...     state, metrics = step(state, images, labels)
    >>> int(state.step), float(metrics["accuracy"])
    (20, 1.0)
    """
    check_net(net)
    check_optimizer(optimizer)
    check_callable("loss", loss, "loss(logits, label)")
    check_compute_dtype(compute_dtype)
    return _compiled_step(net, Contents(optimizer), Contents(loss), compute_dtype)


@cached(MAX_PROGRAMS)
def _compiled_step(
    net: Layer,
    optimizer: Contents[optax.GradientTransformation],
    loss: Contents[Loss],
    compute_dtype: DTypeLike | None,
) -> TrainStep:
    update = optax.with_extra_args_support(optimizer.value).update
    objective = functools.partial(_batch_loss, net=net, loss=loss.value, compute_dtype=compute_dtype)

    @jax.jit
    @on_any_mesh
    def step(
        state: TrainState, images: Shaped[ArrayLike, "N H W *C"], labels: Shaped[ArrayLike, "N ..."]
    ) -> tuple[TrainState, Metrics]:
        batch = with_channels("images", jnp.asarray(images))
        targets = jnp.asarray(labels)
        number = state.step + 1
        keys = jax.random.split(jax.random.fold_in(split_run_key(state.key).step, number), len(batch))
        gradients, metrics = jax.grad(objective, has_aux=True)(state.params, batch, targets, keys)

        def value_of(params: Params) -> Array:  # for line searches
            return objective(params, batch, targets, keys)[0]

        # optax mixes dtypes and ranks, which JAX's strict modes forbid.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, opt_state = update(
                gradients, state.opt_state, state.params, value=metrics["loss"], grad=gradients, value_fn=value_of
            )
        params = cast(Params, optax.apply_updates(state.params, updates))
        new_state = TrainState(
            params=params, opt_state=opt_state, step=number, key=state.key, data_state=state.data_state
        )
        return strip_weak_types(new_state), metrics

    return step


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
    metrics = batch_metrics(loss, logits, labels)
    return metrics["loss"], metrics


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
