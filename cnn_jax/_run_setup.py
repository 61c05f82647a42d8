"""The parts of a training run, made from the arguments of `fit`."""

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from ._batch_loaders import Augment, Loader
from ._batches import BatchSource, ValidationData
from ._fit_arguments import check_classes, check_trainable
from ._metrics import Loss, Metric, default_loss
from ._object_checks import check_callable, check_key
from ._orbax import import_orbax
from ._programs import program_of
from ._run_calibration import RunCalibration, paths_to_calibrate
from ._run_checkpoint import RunCheckpointer
from ._sharding import Placement
from ._train_loop import Callback, Validate
from ._train_state import DataState, TrainState, copy_tree, split_run_key, strip_weak_types
from ._typing import AnyArray
from ._validation import check_int
from .evaluation import check_labeled, example_shape, mean_metrics, metrics_for_data, output_shape
from .files import local_path
from .layers import Layer, Params

MAX_STEPS = 2**31 - 1  # the step is counted in 32 bits
# Measured on two CPU cores: a call costs 0.15 ms, but the gradients of XLA's own convolution are tens of times slower
# within a loop. On accelerators steps are shorter; 50 is a guess.
CPU_STEPS_PER_CALL = 1
ACCELERATOR_STEPS_PER_CALL = 50
LABELS_HINT = "pass loss= for other labels"

Directory = str | os.PathLike[str] | None


def check_steps(steps: int) -> int:
    """The number of updates."""
    steps = check_int("steps", steps)
    if steps > MAX_STEPS:
        raise ValueError(f"steps: expected at most {MAX_STEPS}, got {steps}")
    return steps


def check_steps_per_call(steps_per_call: int | None) -> int:
    """The given number of steps, or the backend's."""
    if steps_per_call is not None:
        return check_int("steps_per_call", steps_per_call)
    return CPU_STEPS_PER_CALL if jax.default_backend() == "cpu" else ACCELERATOR_STEPS_PER_CALL


def run_key(key: Array | None, state: TrainState | None, params: Params | None, steps: int) -> Array:
    """The run's key, which a state brings along. Raises the errors that `fit` lists for a state."""
    if key is not None:
        check_key(key)
    if state is None:
        if key is None:
            raise TypeError(
                "key: expected a random key, such as jax.random.key(0), got None; only state= has one already"
            )
        return key
    if not isinstance(state, TrainState):
        raise TypeError(f"state: expected a TrainState, got {type(state).__name__}")
    if params is not None:
        raise ValueError("params: expected None, got parameters beside those of state=")
    if key is not None and key_numbers(key) != key_numbers(state.key):
        raise ValueError("key: expected None or the key of state=, got another one")
    done = int(state.step)
    if steps <= done:
        raise ValueError(f"steps: expected more than the {done} of state=, which count too, got {steps}")
    return state.key


def key_numbers(key: Array) -> list[int]:
    """The raw data of a key, as JSON holds it."""
    return np.asarray(jax.random.key_data(key)).tolist()


def check_functions(loss: Loss, augment: Augment | None, callback: Callback | None) -> None:
    """Raises a TypeError for an argument that is not a function."""
    check_callable("loss", loss, "loss(logits, label)")
    if augment is not None:
        check_callable("augment", augment, "augment(key, batch)")
    if callback is not None:
        check_callable("callback", callback, "callback(step, state, metrics)")


def check_checkpoint_dir(checkpoint_dir: Directory) -> None:
    """Raises an error if checkpoints are wanted and Orbax is missing, or if the directory is not a path."""
    if checkpoint_dir is not None:
        import_orbax()
        local_path(checkpoint_dir, name="checkpoint_dir")


@contextlib.contextmanager
def open_checkpoints(
    checkpoint_dir: Directory, key: Array, batch_size: int, source: BatchSource
) -> Iterator[RunCheckpointer | None]:
    """The run's checkpoints, if there is a directory for them."""
    if checkpoint_dir is None:
        yield None
        return
    with RunCheckpointer(checkpoint_dir, describe_run(key, batch_size, source)) as checkpointer:
        yield checkpointer


def describe_run(key: Array, batch_size: int, source: BatchSource) -> dict[str, object]:
    """JSON-serializable identification of a run, compared on resume."""
    return {"key": key_numbers(key), "batch_size": batch_size, "data": source.fingerprint}


def example_batch(source: BatchSource) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The shapes of one image that the network gets, and of the labels of a batch."""
    load = program_of(_load, source.load)
    images, labels = jax.eval_shape(load, source.example_arrays, source.initial_data_state, jnp.int32(0))
    return jax.ShapeDtypeStruct(images.shape[1:], images.dtype), labels


def initial_state(
    net: Layer,
    optimizer: optax.GradientTransformation,
    params: Params | None,
    state: TrainState | None,
    key: Array,
    source: BatchSource,
) -> TrainState:
    """The given state, or that before the first step, in memory of its own. The source continues at its position."""
    if state is None:
        if params is None:
            params = net.init(split_run_key(key).init, example_batch(source)[0].shape)
        check_trainable(params)
        state = TrainState.create(params, optimizer, key)
    else:
        _check_opt_state(optimizer, state)
    source.import_position(state.data_state)
    return strip_weak_types(copy_tree(state._replace(data_state=source.initial_data_state)))


def _check_opt_state(optimizer: optax.GradientTransformation, state: TrainState) -> None:
    """Raises a ValueError for a state of another optimizer."""
    expected = jax.eval_shape(optimizer.init, state.params)
    if jax.tree.structure(expected) != jax.tree.structure(state.opt_state) or any(
        leaf.shape != jnp.shape(given)
        for leaf, given in zip(jax.tree.leaves(expected), jax.tree.leaves(state.opt_state), strict=True)
    ):
        raise ValueError("state: expected a state of optimizer=, got that of another optimizer")


class Setup(NamedTuple):
    """What the parts of a run are made from, beside its data."""

    net: Layer
    params: Params
    """The parameters at the start."""
    source: BatchSource
    placement: Placement
    batch_size: int
    loss: Loss

    def check_labels(self) -> None:
        """Raises an error if the labels do not suit the default loss and the network's outputs."""
        if self.loss is default_loss:
            image, labels = example_batch(self.source)
            known = labels if self.source.labels is None else self.source.labels
            check_classes("data", known, output_shape(self.net, self.params, image), LABELS_HINT)

    def make_calibration(self) -> RunCalibration | None:
        """What sets the statistics of BatchNorm; None for a stream, whose batches cannot be drawn again.

        Raises a ValueError for a BatchNorm that cannot be observed.
        """
        if not self.source.can_draw_again:
            return None
        paths = paths_to_calibrate(self.net, self.params, example_batch(self.source)[0])
        return RunCalibration(self.net, paths, self.source, self.placement, self.batch_size)

    def make_validation(self, validation: ValidationData, calibration: RunCalibration | None) -> Validate:
        """What computes the loss and the accuracy on validation data.

        Raises a ValueError or a TypeError for data or labels that do not suit the network and the loss.
        """
        data = check_labeled("validation", validation)
        if calibration is None and paths_to_calibrate(self.net, self.params, example_shape(data[0])):
            raise ValueError("validation: expected None for a stream and BatchNorm, which other data must calibrate")
        metrics = metrics_for_data("validation", self.net, self.params, data, self.loss, LABELS_HINT)
        return functools.partial(_validate, self.net, data, metrics, calibration, self.placement, self.batch_size)


def _validate(
    net: Layer,
    data: tuple[AnyArray, AnyArray],
    metrics: Mapping[str, Metric],
    calibration: RunCalibration | None,
    placement: Placement,
    batch_size: int,
    params: Params,
) -> dict[str, float]:
    calibrated = params if calibration is None else calibration(params)
    return mean_metrics(net, calibrated, data, metrics, batch_size, placement)


def _load(load: Loader, arrays: PyTree, data_state: DataState, step: Array) -> tuple[Array, Array]:
    images, labels, _ = load(arrays, data_state, step)
    return images, labels
