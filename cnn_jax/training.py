"""Training of a network: `fit`, and the types of what it takes."""

import contextlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array

from ._batches import Augment, Batch, BatchSource, BatchStream, Data, Sample, open_source
from ._fit_arguments import (
    check_callable,
    check_classes,
    check_key,
    check_optimizer,
    check_trainable,
)
from ._layer import check_net
from ._orbax import import_orbax
from ._run_checkpoint import RunCheckpointer
from ._run_steps import compile_steps
from ._sharding import make_placement
from ._train_loop import TrainLoop, resume, run_loop
from ._train_state import init_train_state
from ._train_step import Loss, check_compute_dtype, make_train_step
from ._validation import check_bool, check_int
from .layers import Layer, Params
from .progress import Progress

__all__ = ["Augment", "Batch", "BatchStream", "Data", "Loss", "Sample", "fit"]

MAX_STEPS = 2**31 - 1  # the step is counted in 32 bits
# Measured on two CPU cores: a call costs 0.15 ms, but the gradients of XLA's own convolution are tens of times slower
# within a loop. On accelerators steps are shorter; 50 is a guess.
CPU_STEPS_PER_CALL = 1
ACCELERATOR_STEPS_PER_CALL = 50


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
    compute_dtype: DTypeLike | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    save_every: int = 1000,
    mesh: Mesh | None = None,
    progress: bool = True,
) -> tuple[Params, dict[str, np.ndarray]]:
    """Runs `steps` optimizer updates on the mean loss of a batch.

    Args:
      net: the network.
      data: `(images, labels)`, arrays of shapes (N, H, W) or (N, H, W, C) and (N, ...); or a function
        `sample(key) -> (image, label)` that draws one example; or a stream, such as `cnn_jax.data.stream.Stream`.
      optimizer: an optax optimizer. Its `update` receives the gradients, the parameters and `value=loss`.
      steps: the number of updates.
      key: a `jax.random.key`. The same key gives the same run.
      batch_size: examples in a batch.
      params: the initial parameters, which are not modified. By default `net.init` makes them.
      augment: `augment(key, batch) -> (images, labels)` transforms each `Batch` of stored images on the device, for
        example with the functions of `cnn_jax.augment`. It may replace the labels, for example by mixtures, if `loss`
        accepts them.
      loss: `loss(logits, label)` of one example. By default it is the softmax cross-entropy of integer labels.
      steps_per_call: steps that run as one program, without returning to Python. The default is 1 on CPU and 50
        elsewhere.
      compute_dtype: a floating dtype for the forward and backward pass, such as `jnp.bfloat16`.
      checkpoint_dir: a directory for checkpoints. If it holds checkpoints of the same run, training resumes.
      save_every: the number of steps between checkpoints.
      mesh: the devices that share every batch. By default training runs on one device.
      progress: whether to show a progress bar on stderr, or plain lines if stderr is not a terminal.

    Returns:
      The trained parameters and the history of metrics. With BatchNorm, pass the parameters to `calibrate` before use.
      The history is {"loss": (steps,)} and, for one integer label per image, {"accuracy": (steps,)} in [0, 1]. Each
      value is that of the step's batch before the update.

    Raises:
      FloatingPointError: a loss is not finite (the message names the first such step), or the parameters are not
        finite at the end or at a checkpoint.
      KeyboardInterrupt: a signal asked the run to stop, and a checkpoint was saved; the message names its directory.
      OSError: checkpoint_dir or a checkpoint cannot be written.
      ImportError: Orbax, which checkpoint_dir needs, is not installed.
      ValueError: images have a wrong rank, or differ in number from the labels; labels are no classes of the network,
        or it has one logit, with the default loss; data have less than a batch; steps,
        batch_size, steps_per_call or save_every is below 1; checkpoint_dir holds checkpoints of another run (another
        key, batch_size, data or arrays of other shapes) or of more steps, or only damaged ones.
      TypeError: net is not a Layer, optimizer not an optax optimizer, key not a random key, loss or augment not a
        function; params are not floats; data are of another kind or are not numbers; labels do not suit the default
        loss; a count is not an int; compute_dtype is not a floating dtype; augment is given with a function that draws
        examples.

    Notes:
      Order of the data. Arrays are shuffled every epoch; the last partial batch of an epoch is left out. A sampling
      function runs on the device and draws new examples in every step. A stream determines its own order.

      Steps per call. With more than one, the steps run in a loop on the device. XLA:CPU is tens of times slower in a
      loop for gradients of `lax.conv_general_dilated`, which a layer of your own may use. The gradients of `conv` and
      `match` are not affected.

      Mixed precision. With `compute_dtype` the network is applied and differentiated in that dtype. The parameters, the
      loss and the optimizer keep their dtypes.

      Checkpoints. The directory is tried before the first step. A checkpoint holds the parameters, the optimizer's
      state, the position in the data and the history, so a resumed run ends with the same result as an uninterrupted
      one, bit for bit. The two newest checkpoints are
      kept, and the one with the lowest mean loss since the checkpoint before it. SIGTERM or SIGINT stops the run after
      a step and saves a checkpoint. The code of `net`, `optimizer`, `loss` and `augment` is not compared when a run
      resumes: pass the same. Of hyperparameters injected by `optax.inject_hyperparams`, those that differ from the
      saved run's are taken from the new optimizer and named in a warning. Checkpoints are written by Orbax, which the
      extra `train` installs.

      Several devices. Batches are sharded over all axes of `mesh`. The parameters are replicated, and so are those
      returned, on `mesh` itself. BatchNorm normalizes over the whole batch. The mesh may have devices of several
      processes: then every process passes the same arrays, or a stream, of which it reads its share.

    Example:

    >>> from cnn_jax.layers import Chain, Dense, Flatten
    >>> data = jnp.array([[[-1.0]], [[1.0]]]), jnp.array([0, 1])
    >>> net = Chain(Flatten(), Dense(2))
    >>> options = {"steps": 20, "batch_size": 2, "progress": False}
    >>> params, history = fit(net, data, optimizer=optax.sgd(1.0), key=jax.random.key(0), **options)
    >>> float(history["accuracy"][-1])
    1.0
    """
    check_net(net)
    check_optimizer(optimizer)
    check_key(key)
    check_callable("loss", loss, "loss(logits, label)")
    if augment is not None:
        check_callable("augment", augment, "augment(key, batch)")
    check_bool("progress", progress)
    steps = _check_steps(steps)
    batch_size = check_int("batch_size", batch_size)
    save_every = check_int("save_every", save_every)
    steps_per_call = min(steps, _check_steps_per_call(steps_per_call))
    check_compute_dtype(compute_dtype)
    if checkpoint_dir is not None:
        import_orbax()
    placement = make_placement(mesh, batch_size)
    init_key, data_key, step_key = jax.random.split(key, 3)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_source(data, batch_size, data_key, augment, placement))
        steps_per_call = min(steps_per_call, source.max_steps_per_call or steps_per_call)
        params = _initial_params(net, params, init_key, source, loss)
        state = placement.replicate(init_train_state(params, optimizer, source.initial_data_state))
        train_step = make_train_step(net, optimizer, loss, compute_dtype)
        checkpointer = None
        if checkpoint_dir is not None:
            run = _describe_run(key, batch_size, source)
            checkpointer = stack.enter_context(RunCheckpointer(checkpoint_dir, run))
        loop = TrainLoop(
            run_steps=compile_steps(train_step, source, placement, steps_per_call),
            source=source,
            placement=placement,
            key=placement.replicate(step_key),
            steps=steps,
            steps_per_call=steps_per_call,
            checkpointer=checkpointer,
            save_every=save_every,
        )
        bar = stack.enter_context(Progress("training", steps, show=progress))
        state, metrics = resume(loop, state, bar)
        state = run_loop(loop, state, metrics)
    return placement.give_back(state.params), metrics.history()


def _check_steps(steps: int) -> int:
    steps = check_int("steps", steps)
    if steps > MAX_STEPS:
        raise ValueError(f"steps: expected at most {MAX_STEPS}, got {steps}")
    return steps


def _check_steps_per_call(steps_per_call: int | None) -> int:
    if steps_per_call is not None:
        return check_int("steps_per_call", steps_per_call)
    return CPU_STEPS_PER_CALL if jax.default_backend() == "cpu" else ACCELERATOR_STEPS_PER_CALL


def _initial_params(net: Layer, params: Params | None, key: Array, source: BatchSource, loss: Loss) -> Params:
    """The given parameters, or new ones, once the labels are known to fit the network's outputs."""
    images, labels, _ = jax.eval_shape(source.load, source.example_arrays, source.initial_data_state, jnp.int32(0))
    image = jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
    if params is None:
        params = net.init(key, image.shape)
    check_trainable(params)
    if loss is optax.softmax_cross_entropy_with_integer_labels:
        logits = jax.eval_shape(net.apply, params, image)
        known = labels if source.labels is None else source.labels
        check_classes("data", known, logits.shape, "pass loss= for other labels")
    return params


def _describe_run(key: Array, batch_size: int, source: BatchSource) -> dict[str, object]:
    """JSON-serializable identification of a run, compared on resume."""
    return {
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "batch_size": batch_size,
        "data": source.fingerprint,
    }
