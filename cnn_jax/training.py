"""The training loop."""

import contextlib
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array

from ._batches import Augment, Data, Load, feeding
from ._dtypes import accumulation_dtype
from ._run_checkpoint import RunCheckpointer, stop_on_signal
from ._sharding import Placement, placement
from ._validation import check_int
from .layers import Layer, Params
from .norms import BATCH
from .progress import Progress

Loss = Callable[[Array, Array], Array]

# Metrics stay on the device and are read after so many steps.
REPORT_EVERY = 50
# Calls under way at once: the device has work while Python runs, and a run that is asked to stop soon can.
IN_FLIGHT = 2
# Steps in one call. On two CPU cores a call costs 0.15 ms, measured, but gradients of other convolutions than ours take
# tens of times as long in a loop; elsewhere a guess, on the side of many, as steps are shorter there.
STEPS_PER_CALL, ACCELERATED_STEPS_PER_CALL = 1, 50


def fit(
    net: Layer,
    data: Data,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    key: Array,
    batch_size: int = 256,
    params: Params | None = None,
    augment: Augment | None = None,
    loss: Loss = optax.softmax_cross_entropy_with_integer_labels,
    steps_per_call: int | None = None,
    compute_dtype: Any = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    save_every: int = 1000,
    mesh: Mesh | None = None,
    progress: bool = True,
) -> tuple[Params, dict[str, np.ndarray]]:
    """Trains a network: draw a batch, take the mean loss over it, follow the optimizer, `steps` times.

    Args:
      net: the network.
      data: `(images, labels)`, arrays of (N, H, W) or (N, H, W, C) and (N, ...), reshuffled every epoch, the last
        partial batch of an epoch left out; or a function `sample(key) -> (image, label)` that draws one example and is
        run on the device, `batch_size` of them for every step; or a `data.stream.Stream`, whose pictures need not fit
        into memory.
      optimizer: an optax optimizer; it is told the gradient, the parameters and the loss (`value`), no more.
      steps: how many batches to learn from.
      key: a `jax.random.key`; the same key gives the same run.
      batch_size: examples in a batch.
      params: where to start; by default `net.init` makes them. The given arrays are left untouched.
      augment: `augment(key, batch) -> (images, labels)` makes of each stored `Batch` what is learned from, on the
        device: scales its pixels, varies its images (`cnn_jax.augment`), mixes its labels (which `loss` must take).
      loss: `loss(scores, label)` for one example; by default softmax cross-entropy with integer labels.
      steps_per_call: how many steps run as one program on the device, without coming back to Python; by default 1 on
        the CPU and 50 elsewhere. More than one are a loop, in which XLA:CPU takes tens of times as long for gradients
        of `lax.conv_general_dilated` (groups of channels, layers of your own); those of `conv` and `match` do not mind.
      compute_dtype: a floating dtype, such as `jnp.bfloat16`, to apply the network and its derivative in; parameters,
        loss and optimizer stay as they are (mixed precision).
      checkpoint_dir: a folder to save the run in and, where it holds an earlier part of it, to go on from, to the same
        end: parameters, optimizer state, place in the data, history. The two newest saves are kept and the one with the
        lowest loss since the save before it, as Orbax writes them. SIGTERM and SIGINT then end the run after a step,
        saved. What functions do, those of net, optimizer, loss and augment, is not compared: it must be the same.
        Needs the extra `experiments`.
      save_every: steps from one save to the next.
      mesh: devices, of this process or of several, that share every batch along all axes of the mesh: each takes its
        part, all hold the parameters, BatchNorm's statistics are the whole batch's. What is returned is on all of them.
        Each process gives the same data, or a `Stream`, of which each reads its part.
      progress: show a bar on stderr (plain lines when that is not a terminal).

    Returns:
      The trained parameters, which `calibrate` must see next if there is a BatchNorm, and the history: {"loss":
      (steps,)} and, for one integer label an image, {"accuracy": (steps,)} in [0, 1], each value taken on the batch of
      that step before its update.

    Raises:
      FloatingPointError: the loss is NaN or infinite; the message names the first such step. Or the parameters are
        after the last one, or where they should be saved.
      KeyboardInterrupt: the run was asked to stop, and is saved; the message says where.
      OSError: the run cannot be saved.
      ValueError: images and labels of different lengths or fewer than a batch, images of a wrong rank, steps,
        batch_size, steps_per_call or save_every below 1; a checkpoint_dir with saves of another run (another key,
        batch_size or data, or arrays of other shapes), of more steps, or none of which is whole.
      TypeError: data of another kind, counts that are not ints, a compute_dtype that is no floating dtype, `augment`
        beside a function that draws examples.

    >>> from cnn_jax.layers import Chain, Dense, Flatten
    >>> data = jnp.array([[[-1.0]], [[1.0]]]), jnp.array([0, 1])
    >>> net, rule = Chain(Flatten(), Dense(2)), optax.sgd(1.0)
    >>> params, history = fit(net, data, optimizer=rule, steps=20, batch_size=2, key=jax.random.key(0), progress=False)
    >>> float(history["accuracy"][-1])
    1.0
    """
    steps, batch_size = check_int("steps", steps), check_int("batch_size", batch_size)
    if steps >= 2**31:
        raise ValueError(f"steps: expected fewer than 2**31, got {steps}")
    place = placement(mesh, batch_size)
    if steps_per_call is None:
        steps_per_call = STEPS_PER_CALL if jax.default_backend() == "cpu" else ACCELERATED_STEPS_PER_CALL
    at_once = min(check_int("steps_per_call", steps_per_call), steps)
    init_key, data_key, step_key = jax.random.split(key, 3)
    optimizer = optax.with_extra_args_support(optimizer)
    identity = {"key": np.asarray(jax.random.key_data(key)).tolist(), "batch_size": batch_size}
    with contextlib.ExitStack() as stack:
        feed = stack.enter_context(feeding(data, batch_size, data_key, augment, place))
        at_once = min(at_once, feed.at_once or steps)
        example = jax.eval_shape(feed.load, feed.example, feed.order, jnp.int32(0))[0]
        fitted = net.init(init_key, example.shape[1:]) if params is None else params
        if feed.labels is not None and loss is optax.softmax_cross_entropy_with_integer_labels:
            image = jax.ShapeDtypeStruct(example.shape[1:], example.dtype)
            _check_labels(feed.labels, jax.eval_shape(net.apply, fitted, image))
        own = fitted, optimizer.init(fitted), feed.order, jnp.int32(0)
        own, step_key = place.replicate((jax.tree.map(lambda x: _strong(jnp.copy(x)), own), step_key))
        run = _program(net, feed.load, optimizer, loss, batch_size, at_once, compute_dtype, place)

        @functools.lru_cache(1)  # many steps have one goal: it is sent to the devices once
        def goal(until: int) -> Array:
            return place.replicate(np.int32(until))

        def advance(own: Any, until: int) -> tuple[Any, dict[str, Array]]:
            return run(own, goal(until), feed.store(own[2]), step_key)

        saves = None
        if checkpoint_dir is not None:
            saves = stack.enter_context(RunCheckpointer(checkpoint_dir, identity | {"data": feed.identity()}))
        bar = stack.enter_context(Progress("training", steps, show=progress))
        own, history = _loop(advance, own, steps, at_once, saves, check_int("save_every", save_every), bar)
    return own[0], history


def _program(
    net: Layer,
    load: Load,
    optimizer: optax.GradientTransformationExtraArgs,
    loss: Loss,
    batch_size: int,
    at_once: int,
    compute_dtype: Any,
    place: Placement,
) -> Callable[[Any, Any, Any, Array], tuple[Any, dict[str, Array]]]:
    """The program that trains `at_once` steps, or fewer, until one: run(own, until, store, key) gives the new state and
    what was measured in each step."""
    cast = _casting(compute_dtype)

    def objective(params: Params, images: Array, labels: Array, keys: Array) -> tuple[Array, dict[str, Array]]:
        params, images = cast(params), cast(images, integers=True)
        apply = functools.partial(net.apply, train=True)
        scores = jax.vmap(lambda image, key: apply(params, image, key=key), axis_name=BATCH)(images, keys)
        if compute_dtype is not None:
            scores = jax.tree.map(lambda x: x.astype(accumulation_dtype(x.dtype)), scores)
        value = jnp.mean(jax.vmap(loss)(scores, labels))
        metrics = {"loss": value}
        if jnp.issubdtype(labels.dtype, jnp.integer) and labels.shape == scores.shape[:-1]:
            metrics["accuracy"] = jnp.mean(jnp.argmax(scores, -1) == labels.astype(jnp.int32), dtype=value.dtype)
        return value, metrics

    @jax.jit
    def step(own: Any, store: Any, key: Array) -> tuple[Any, dict[str, Array]]:
        params, state, order, done = own
        images, labels, order = load(store, order, done)
        images, labels = place.shard_batch((images, labels))
        keys = jax.random.split(jax.random.fold_in(key, done + 1), batch_size)
        gradient, metrics = jax.grad(objective, has_aux=True)(params, images, labels, keys)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax mixes both
            change, state = optimizer.update(gradient, state, params, value=metrics["loss"])
        new = optax.apply_updates(params, change), state, order, done + 1
        return place.constrain_replicated(jax.tree.map(_strong, new)), metrics

    @functools.partial(jax.jit, donate_argnames="own")
    def run(own: Any, until: Array, store: Any, key: Array) -> tuple[Any, dict[str, Array]]:
        if at_once == 1:
            own, metrics = step(own, store, key)
            return own, jax.tree.map(lambda value: value[None], metrics)

        def body(i: Array, carry: Any) -> Any:
            own, metrics = step(carry[0], store, key)
            return own, jax.tree.map(lambda rows, value: rows.at[i].set(value), carry[1], metrics)

        empty = jax.tree.map(lambda m: jnp.zeros(at_once, m.dtype), jax.eval_shape(step, own, store, key)[1])
        return lax.fori_loop(0, jnp.minimum(at_once, until - own[3]), body, (own, empty))

    return run


def _loop(
    advance: Callable[[Any, int], tuple[Any, dict[str, Array]]],
    own: Any,
    steps: int,
    at_once: int,
    saves: RunCheckpointer | None,
    save_every: int,
    bar: Progress,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Runs a training to its end, from where its saves end; returns its state and its history."""
    sent, history = 0, []
    if saves and (found := saves.newest(_savable(own))):
        sent, state, past = found
        own, history = _restored(own, state), [past]
        if sent > steps:
            raise ValueError(f"steps: expected at least the {sent} that {saves.folder} holds, got {steps}")
    read, pending = sent, []

    def collect(ready: int) -> None:
        nonlocal read
        for taken, rows in jax.device_get(pending[:ready]):
            history.append({name: row[:taken] for name, row in rows.items()})
            _check_finite(history[-1]["loss"], read + 1)
            read += taken
        if ready:
            bar.update(read, "  ".join(f"{name} {row[-1]:.4f}" for name, row in history[-1].items()))
        del pending[:ready]

    with stop_on_signal() if saves else contextlib.nullcontext(lambda step: None) as asked:
        stop = None
        while sent < steps:
            goal = min(sent + save_every - sent % save_every, steps) if saves else steps
            while sent < goal:
                own, metrics = advance(own, goal)
                taken = min(at_once, goal - sent)
                pending.append((taken, metrics))
                # Metrics are read now and then, all but the newest, so that the device has work meanwhile; the first,
                # to say when they came.
                if not history or sent - read >= REPORT_EVERY:
                    collect(max(len(pending) - 1, 1))
                elif len(pending) > IN_FLIGHT:
                    jax.block_until_ready(pending[-IN_FLIGHT][1])
                sent += taken
                if stop := asked(sent):
                    break
            collect(len(pending))
            _check_parameters(own[0], sent)
            if saves:
                saves.save(sent, _savable(own), _joined(history))
                stop = stop or asked(sent)
            if saves and stop:
                saves.wait()
                raise KeyboardInterrupt(f"stopped by {stop.name} after step {sent}, saved in {saves.folder}")
    return own, _joined(history)


def _joined(history: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([rows[name] for rows in history]) for name in history[0]}


def _savable(own: Any) -> dict[str, Any]:
    """A training's state as dicts and lists of arrays."""
    params, state, order, done = own
    return {"params": params, "optimizer": jax.tree.leaves(state), "order": jax.tree.leaves(order), "done": done}


def _restored(own: Any, saved: dict[str, Any]) -> Any:
    """A state like this one with the arrays of a saved one."""
    _, state, order, _ = (jax.tree.structure(part) for part in own)
    return saved["params"], state.unflatten(saved["optimizer"]), order.unflatten(saved["order"]), saved["done"]


def _casting(dtype: Any) -> Callable[..., Any]:
    """What turns all floats of a tree into a dtype, and if asked integers too."""
    if dtype is None:
        return lambda tree, **_: tree
    try:
        floating = jnp.issubdtype(dtype, jnp.floating)
    except TypeError:
        floating = False
    if not floating:
        raise TypeError(f"compute_dtype: expected a floating dtype, got {dtype!r}")

    def cast(tree: Any, integers: bool = False) -> Any:
        return jax.tree.map(lambda x: x.astype(dtype) if integers or jnp.issubdtype(x.dtype, jnp.floating) else x, tree)

    return cast


def _strong(array: Array) -> Array:
    """The same numbers of no weak type, lest a loop or the next call find another type."""
    return array if jnp.issubdtype(array.dtype, jax.dtypes.extended) else array.astype(array.dtype)


def _check_parameters(params: Params, step: int) -> None:
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        raise FloatingPointError(f"parameters are not finite after step {step}: try a lower learning rate")


def _check_labels(labels: np.ndarray, scores: Any) -> None:
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        found = f"{labels.dtype} of shape {labels.shape}"
        raise TypeError(f"data: expected one integer label an image, or another loss, got labels as {found}")
    low, high = labels.min(), labels.max()
    if low < 0 or high >= scores.shape[-1]:
        raise ValueError(f"data: expected labels from 0 to {scores.shape[-1] - 1}, got {low} to {high}")


def _check_finite(losses: np.ndarray, first: int) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise FloatingPointError(
            f"loss is {losses[bad[0]]} at step {first + bad[0]}: try a lower learning rate, or look for NaN in the data"
        )
