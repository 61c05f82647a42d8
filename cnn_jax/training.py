"""Training of a network: `fit`, the state and the step that it is made of, and the types of what it takes."""

import contextlib
import os
from typing import NamedTuple

import optax
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array

from . import _run_setup
from ._batch_loaders import Augment, Batch, Sample
from ._batches import BatchStream, Data, ValidationData, open_source
from ._fit_arguments import check_optimizer
from ._history import History
from ._layer import check_net
from ._load_checkpoint import Checkpoint, load_checkpoint
from ._metrics import Loss, default_loss
from ._run_steps import compile_steps
from ._sharding import make_placement
from ._signals import stop_on_signal
from ._train_loop import Callback, TrainingInterrupted, TrainLoop, resume, skips_nonfinite
from ._train_state import TrainState, split_run_key
from ._train_step import TrainStep, check_compute_dtype, train_step
from ._validation import check_bool, check_int
from .layers import Layer, Params
from .progress import Progress

__all__ = [
    "Augment",
    "Batch",
    "BatchStream",
    "Callback",
    "Checkpoint",
    "Data",
    "Loss",
    "Sample",
    "TrainState",
    "TrainStep",
    "Trained",
    "TrainingInterrupted",
    "fit",
    "load_checkpoint",
    "train_step",
]


class _ParamsAndHistory(NamedTuple):
    params: Params
    history: History


class Trained(_ParamsAndHistory):
    """What `fit` returns: the pair `params, history`, with the attribute `state`, which trees do not keep.

    params, history = fit(net, data, ...)
    state = fit(net, data, ...).state
    """

    state: TrainState
    """The state after the last step, with which `fit(state=...)` continues. Its parameters are not calibrated."""


def fit(
    net: Layer,
    data: Data,
    *,
    optimizer: optax.GradientTransformation,
    steps: int,
    key: Array | None = None,
    batch_size: int = 256,
    params: Params | None = None,
    state: TrainState | None = None,
    augment: Augment | None = None,
    loss: Loss = default_loss,
    validation: ValidationData | None = None,
    validate_every: int = 1000,
    callback: Callback | None = None,
    callback_every: int = 100,
    calibrate: bool = True,
    steps_per_call: int | None = None,
    compute_dtype: DTypeLike | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    save_every: int = 1000,
    mesh: Mesh | None = None,
    progress: bool = True,
) -> Trained:
    """Runs optimizer updates on the mean loss of a batch until there were `steps`.

    Args:
      net: the network.
      data: `(images, labels)`, arrays of shapes (N, H, W) or (N, H, W, C) and (N, ...); or a function
        `sample(key) -> (image, label)` that draws one example; or a stream, such as `cnn_jax.data.stream.Stream`.
      optimizer: an optax optimizer. Its `update` receives the gradients, the parameters and, for line searches,
        `value=`, `grad=` and `value_fn=` of the batch's loss.
      steps: the number of updates, including those of `state` or of a checkpoint.
      key: a `jax.random.key`. The same key gives the same run. With `state` it may be left out.
      batch_size: examples in a batch.
      params: the initial parameters, which are not modified. By default `net.init` makes them.
      state: continues from the `state` of an earlier call, which is not modified.
      augment: `augment(key, batch) -> (images, labels)` transforms each `Batch` of stored images on the device, for
        example with the functions of `cnn_jax.augment`. It may replace the labels, for example by mixtures, if `loss`
        accepts them.
      loss: `loss(logits, label)` of one example. By default it is the softmax cross-entropy of integer labels.
      validation: `(images, labels)` as the network and `loss` see them, any number of them. `augment` is not applied.
      validate_every: the number of steps between evaluations on the validation data; the last step has one too.
      callback: `callback(step, state, metrics)` is called after every `callback_every` steps, after every validation,
        and after the last step. The run stops if it returns True. The metrics are those of the step's batch before the
        update, "loss" and "accuracy", and "validation_loss" and "validation_accuracy" after a validation.
      callback_every: the number of steps between calls of `callback`.
      calibrate: whether to set the statistics of BatchNorm at the end, from batches that the run learned from. Only
        stored images and sampling functions can be drawn again for this.
      steps_per_call: steps that run as one program, without returning to Python. The default is 1 on CPU and 50
        elsewhere.
      compute_dtype: a floating dtype for the forward and backward pass, such as `jnp.bfloat16`.
      checkpoint_dir: a directory for checkpoints. If it holds checkpoints of the same run, training resumes.
      save_every: the number of steps between checkpoints.
      mesh: the devices that share every batch. By default training runs on one device.
      progress: whether to show a progress bar on stderr, or plain lines if stderr is not a terminal.

    Returns:
      The pair of the trained parameters and the history, with the attribute `state`. The history is {"loss": (steps,)}
      and, where labels are integers, one for at least two logits each, {"accuracy": (steps,)} in [0, 1], of images or
      of pixels. Each value is that of the step's batch before the update. After `state` the history begins
      with the first step of this call. With validation it also has "validation_step", "validation_loss" and, as above,
      "validation_accuracy", with one value for each validation.

    Raises:
      TrainingInterrupted: Ctrl-C or SIGTERM stopped the run after a step. The exception, a KeyboardInterrupt, has the
        `state` and the `history`. A checkpoint was saved, if there is a directory for it.
      FloatingPointError: a loss is not finite (the message names the first such step), or the parameters are not
        finite at the end, at a validation or at a checkpoint.
      OSError: checkpoint_dir or a checkpoint cannot be written.
      ImportError: Orbax, which checkpoint_dir needs, is not installed.
      ValueError: images have a wrong rank, or differ in number from the labels; labels are no classes of the network,
        or it has one logit, with the default loss; data have less than a batch; steps, batch_size, steps_per_call or a
        period is below 1; steps are not more than those of state; key is another one than that of state, state is that
        of another optimizer, or params are given beside it; checkpoint_dir holds checkpoints of another run (another
        key, batch_size, data or arrays of other shapes), of more steps or of less than state has, or only damaged ones;
        a BatchNorm cannot be calibrated.
      TypeError: net is not a Layer, optimizer not an optax optimizer, key not a random key, state not a TrainState,
        loss, augment or callback not a function; params are not floats; data are of another kind or are not numbers;
        labels do not suit the default loss; a count is not an int; compute_dtype is not a floating dtype; augment is
        given with a function that draws examples.

    Notes:
      Parts of a run. Two calls, the second with the state of the first, give the parameters of a single one bit for
      bit. Pass `calibrate=False` to all calls but the last one to save time. Hyperparameters that
      `optax.inject_hyperparams` keeps in a state are those of the state.

      Compilation. Calls with equal networks and optimizers, the same functions and equal shapes are compiled once.
      `optax.adam(1e-3)` is equal to another one, `functools.partial(loss, alpha=0.1)` too; a lambda is not. As for
      `jax.jit`, functions must be pure: a change of an array of NumPy or an object that a function reads beside its
      arguments is not noticed.

      Order of the data. Arrays are shuffled every epoch; the last partial batch of an epoch is left out. A sampling
      function runs on the device and draws new examples in every step. A stream determines its own order.

      Steps per call. With more than one, the steps run in a loop on the device. XLA:CPU is tens of times slower in a
      loop for gradients of `lax.conv_general_dilated`, which a layer of your own may use. The gradients of `conv` and
      `match` are not affected.

      Mixed precision. With `compute_dtype` the network is applied and differentiated in that dtype. The parameters, the
      loss and the optimizer keep their dtypes. Validation uses the parameters' dtypes.

      BatchNorm. Its statistics are taken from 1024 images or more, the first of the run with their augmentation, for
      every validation and at the end. Each BatchNorm of a network needs a pass over them. The parameters in a state and
      in a checkpoint are not calibrated.

      Losses that are not finite end the run, unless the optimizer leaves out such updates
      (`optax.apply_if_finite`, or `optax.skip_not_finite` in `optax.MultiSteps`).

      Checkpoints. The directory is tried before the first step. A checkpoint holds the parameters, the optimizer's
      state, the position in the data and the history, so a resumed run ends with the same result as an uninterrupted
      one, bit for bit. The two newest checkpoints are kept, and the one with the lowest loss: on the validation data,
      where every validation with a new lowest loss saves one, or otherwise in training, as the mean since the
      checkpoint before it. `load_checkpoint` reads them. The code of `net`, `optimizer`, `loss` and `augment` is not
      compared when a run resumes: pass the same. Of hyperparameters injected by `optax.inject_hyperparams`, those that
      differ from the saved run's are taken from the new optimizer and named in a warning. Checkpoints are written by
      Orbax, which the extra `train` installs.

      Several devices. Batches are sharded over all axes of `mesh`. Stored images are copied whole to every device; of a
      stream each device gets its share. The parameters are replicated, and so are those returned, on `mesh` itself.
      BatchNorm normalizes over the whole batch. The mesh may have devices of several processes: then every process
      passes the same arrays, or a stream, of which it reads its share.

    Example:

    >>> import jax
    >>> from cnn_jax.layers import Chain, Dense, Flatten
    >>> data = [[[-1.0]], [[1.0]]], [0, 1]
    >>> net = Chain(Flatten(), Dense(2))
    >>> options = {"optimizer": optax.sgd(1.0), "batch_size": 2, "progress": False}
    >>> params, history = fit(net, data, steps=20, key=jax.random.key(0), **options)
    >>> float(history["accuracy"][-1])
    1.0

    Ten steps, and ten more:

    >>> half = fit(net, data, steps=10, key=jax.random.key(0), **options)
    >>> whole = fit(net, data, steps=20, state=half.state, **options)
    >>> bool((whole.params["dense1"]["kernel"] == params["dense1"]["kernel"]).all())
    True

    Early stopping, after three validations without a lower loss:

    >>> losses = []
    >>> def stop_early(step, state, metrics):
    ...     losses.append(metrics["validation_loss"])
    ...     return len(losses) > 3 and min(losses[-3:]) >= min(losses[:-3])
    >>> options |= {"validation": data, "validate_every": 5, "callback": stop_early, "callback_every": 5}
    >>> trained = fit(net, data, steps=20, key=jax.random.key(0), **options)
    >>> trained.history["validation_step"].tolist()
    [5, 10, 15, 20]

    Logs are callbacks too. A row of a CSV file:

        def log_csv(step, state, metrics):
            csv.DictWriter(file, ["step", *metrics]).writerow({"step": step} | metrics)

    TensorBoard, by `tensorboardX` or `torch.utils.tensorboard`:

        def log_tensorboard(step, state, metrics):
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)

    Weights & Biases:

        def log_wandb(step, state, metrics):
            wandb.log(metrics, step=step)
    """
    check_net(net)
    check_optimizer(optimizer)
    _run_setup.check_functions(loss, augment, callback)
    steps = _run_setup.check_steps(steps)
    batch_size = check_int("batch_size", batch_size)
    validate_every = check_int("validate_every", validate_every)
    callback_every = check_int("callback_every", callback_every)
    save_every = check_int("save_every", save_every)
    check_bool("calibrate", calibrate)
    check_bool("progress", progress)
    steps_per_call = _run_setup.check_steps_per_call(steps_per_call)
    check_compute_dtype(compute_dtype)
    _run_setup.check_checkpoint_dir(checkpoint_dir)
    key = _run_setup.run_key(key, state, params, steps)
    placement = make_placement(mesh, batch_size)
    with contextlib.ExitStack() as stack:
        stop_signal = stack.enter_context(stop_on_signal(several_processes=checkpoint_dir is not None))
        source = stack.enter_context(open_source(data, batch_size, split_run_key(key).data, augment, placement))
        start = _run_setup.initial_state(net, optimizer, params, state, key, source)
        setup = _run_setup.Setup(net, start.params, source, placement, batch_size, loss)
        setup.check_labels()
        steps_per_call = min(steps_per_call, source.max_steps_per_call or steps_per_call)
        checkpointer = stack.enter_context(_run_setup.open_checkpoints(checkpoint_dir, key, batch_size, source))
        calibration = setup.make_calibration() if calibrate or validation is not None else None
        step = train_step(net, optimizer, loss=loss, compute_dtype=compute_dtype)
        loop = TrainLoop(
            run_steps=compile_steps(step, source.load, placement, steps_per_call),
            source=source,
            placement=placement,
            steps=steps,
            steps_per_call=steps_per_call,
            stop_signal=stop_signal,
            checkpointer=checkpointer,
            save_every=save_every,
            validate=None if validation is None else setup.make_validation(validation, calibration),
            validate_every=validate_every,
            callback=callback,
            callback_every=callback_every,
        )
        bar = stack.enter_context(Progress("training", steps, show=progress))
        run = resume(loop, placement.replicate(start), bar, allow_nonfinite=skips_nonfinite(start.opt_state))
        run.run()
        learned = run.state.params
        calibrated = calibration(learned) if calibration and calibrate else learned
        trained = Trained(placement.give_back(calibrated), run.metrics.history())
        trained.state = run.state
        run.raise_if_asked()
    return trained
