"""The training loop."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from .layers import Layer, Params
from .progress import Progress
from .windows import count

Sample = Callable[[Array], tuple[Array, Array]]
Loss = Callable[[Array, Array], Array]

# Metrics stay on the device and are read at these intervals, so that the loop never waits for them.
REPORT_EVERY = 50


def fit(
    net: Layer,
    data: Sample | tuple[Any, Any],
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    key: Array,
    batch_size: int = 256,
    params: Params | None = None,
    loss: Loss = optax.softmax_cross_entropy_with_integer_labels,
    progress: bool = True,
) -> tuple[Params, dict[str, np.ndarray]]:
    """Trains a network: draw a batch, take the mean loss over it, follow the optimizer, `steps` times.

    Args:
      net: the network.
      data: `(images, labels)`, arrays of (N, H, W) or (N, H, W, C) and (N, ...), reshuffled every epoch, the last
        partial batch of an epoch left out; or a function `sample(key) -> (image, label)` that draws one example and is
        run on the device, `batch_size` of them for every step.
      optimizer: an optax optimizer; it is told the gradient, the parameters and the loss (`value`), no more.
      steps: how many batches to learn from.
      key: a `jax.random.key`; the same key gives the same run.
      batch_size: examples in a batch.
      params: where to start; by default `net.init` makes them. The given arrays are left untouched.
      loss: `loss(scores, label)` for one example; by default softmax cross-entropy with integer labels.
      progress: show a bar on stderr (plain lines when that is not a terminal).

    Returns:
      The trained parameters and the history: {"loss": (steps,)} and, for one integer label an image, {"accuracy":
      (steps,)} in [0, 1], each value taken on the batch of that step before its update.

    Raises:
      FloatingPointError: the loss is NaN or infinite; the message names the first such step.
      ValueError: images and labels of different lengths or fewer than a batch, images of a wrong rank, steps or
        batch_size below 1.

    >>> from cnn_jax.layers import Chain, Dense, Flatten
    >>> data = jnp.array([[[-1.0]], [[1.0]]]), jnp.array([0, 1])
    >>> net, rule = Chain(Flatten(), Dense(2)), optax.sgd(1.0)
    >>> params, history = fit(net, data, optimizer=rule, steps=20, batch_size=2, key=jax.random.key(0), progress=False)
    >>> float(history["accuracy"][-1])
    1.0
    """
    steps, batch_size = count("steps", steps), count("batch_size", batch_size)
    init_key, data_key, step_key = jax.random.split(key, 3)
    load, store, places = (
        _sampled(data, batch_size, data_key) if callable(data) else _stored(data, batch_size, data_key)
    )

    first = next(places)
    places = itertools.chain([first], places)
    example = jax.eval_shape(load, store, first)[0]
    fitted = net.init(init_key, example.shape[1:]) if params is None else jax.tree.map(jnp.copy, params)
    optimizer = optax.with_extra_args_support(optimizer)
    state = jax.tree.map(jnp.copy, optimizer.init(fitted))  # some keep the parameters in it, which are donated too

    def objective(params: Params, images: Array, labels: Array, keys: Array) -> tuple[Array, dict[str, Array]]:
        scores = jax.vmap(lambda image, key: net.apply(params, image, train=True, key=key))(images, keys)
        value = jnp.mean(jax.vmap(loss)(scores, labels))
        metrics = {"loss": value}
        if jnp.issubdtype(labels.dtype, jnp.integer) and labels.shape == scores.shape[:-1]:
            metrics["accuracy"] = jnp.mean(jnp.argmax(scores, -1) == labels.astype(jnp.int32), dtype=value.dtype)
        return value, metrics

    @functools.partial(jax.jit, donate_argnames=("params", "state"))
    def update(params: Params, state: Any, store: Any, place: Array, key: Array):
        images, labels = load(store, place)
        keys = jax.random.split(key, batch_size)
        gradient, metrics = jax.grad(objective, has_aux=True)(params, images, labels, keys)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax mixes both
            change, state = optimizer.update(gradient, state, params, value=metrics["loss"])
        return optax.apply_updates(params, change), state, metrics

    rows, pending = [], []
    with Progress("training", steps, show=progress) as bar:
        for step in range(1, steps + 1):
            own_key = jax.random.fold_in(step_key, step)
            fitted, state, metrics = update(fitted, state, store, next(places), own_key)
            pending.append(metrics)
            if step % REPORT_EVERY == 0 or step == steps:
                read = jax.device_get(pending)
                pending.clear()
                _check_finite(read, len(rows) + 1)
                rows += read
                bar.update(step, "  ".join(f"{name} {value:.4f}" for name, value in rows[-1].items()))
    return fitted, {name: np.array([row[name] for row in rows]) for name in rows[0]}


Load = Callable[[Any, Array], tuple[Array, Array]]


def _sampled(sample: Sample, batch_size: int, key: Array) -> tuple[Load, Any, Iterator[Array]]:
    def load(store: None, key: Array) -> tuple[Array, Array]:
        images, labels = jax.vmap(sample)(jax.random.split(key, batch_size))
        return _with_channels(images), labels

    return load, None, (jax.random.fold_in(key, step) for step in itertools.count())


def _stored(data: tuple[Any, Any], batch_size: int, key: Array) -> tuple[Load, Any, Iterator[Array]]:
    try:
        images, labels = (jnp.asarray(part) for part in data)
    except (TypeError, ValueError):
        raise TypeError(
            f"data: expected (images, labels) or a function sample(key), got {type(data).__name__}"
        ) from None
    n = len(images)
    if len(labels) != n:
        raise ValueError(f"data: expected as many labels as the {n} images, got {len(labels)}")
    if n < batch_size:
        raise ValueError(f"batch_size: expected at most the {n} images of data, got {batch_size}")

    def load(store: tuple[Array, Array], places: Array) -> tuple[Array, Array]:
        return _with_channels(store[0][places]), store[1][places]

    def places() -> Iterator[Array]:
        for epoch in itertools.count():
            order = jax.random.permutation(jax.random.fold_in(key, epoch), n)
            for start in range(0, n - batch_size + 1, batch_size):
                yield order[start : start + batch_size]

    return load, (images, labels), places()


def _with_channels(images: Array) -> Array:
    if images.ndim not in (3, 4):
        raise ValueError(f"data: expected images of (H, W) or (H, W, C), got {images.shape[1:]}")
    return images if images.ndim == 4 else images[..., None]


def _check_finite(rows: list[dict[str, Any]], first: int) -> None:
    for step, row in enumerate(rows, first):
        if not np.isfinite(row["loss"]):
            raise FloatingPointError(
                f"loss is {row['loss']} at step {step}: try a lower learning rate, or look for NaN in the data"
            )
