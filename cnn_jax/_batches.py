"""Sources of training batches: arrays in memory, a function that samples examples, or a stream."""

import abc
import contextlib
from collections.abc import Generator, Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Int, PyTree, Shaped

from ._checksums import array_checksum
from ._fit_arguments import check_images_and_labels
from ._sharding import Placement
from ._train_state import DataState
from .data.stream import StreamBatch

FINGERPRINT_IMAGES = 1000  # images that the fingerprint of arrays covers, evenly spaced


class Batch(NamedTuple):
    """A batch as it is stored, which `fit(augment=...)` transforms."""

    images: Shaped[Array, "N H W *C"]
    labels: Shaped[Array, "N ..."]
    indices: Int[Array, " N"]
    """The position of each example in the data."""
    epoch: Int[Array, ""]
    """The number of complete passes over the data before this batch."""


@runtime_checkable
class Augment(Protocol):
    """Transforms a stored batch into the images and labels of one step, on the device."""

    def __call__(self, key: Array, batch: Batch, /) -> tuple[Array, Array]: ...


@runtime_checkable
class Sample(Protocol):
    """Draws one example, an image (H, W) or (H, W, C) and its label, on the device."""

    def __call__(self, key: Array, /) -> tuple[Array, ArrayLike]: ...


@runtime_checkable
class BatchStream(Protocol):
    """Batches read on the host, such as `cnn_jax.data.stream.Stream`; with several processes, this process's share."""

    @property
    def fingerprint(self) -> Mapping[str, object]:
        """JSON-serializable identification of the examples and their order, compared on resume."""
        ...

    def batches(self, batch_size: int, start: int = 0) -> Generator[StreamBatch]:
        """Endless batches from the position `start` on, which is 0 or the `position` of an earlier batch."""
        ...


ArrayData = tuple[Shaped[ArrayLike, "N H W *C"], Shaped[ArrayLike, "N ..."]]
"""Images and labels."""
Data = ArrayData | Sample | BatchStream


class BatchSource(abc.ABC):
    """Where the batches of a training run come from.

    `next_arrays` provides the device arrays for one call of the compiled program. In the program, `load` builds the
    batch of each step from them.
    """

    initial_data_state: DataState = None
    """The state of `load` before the first step."""
    labels: np.ndarray | None = None
    """All labels, if they are known and `load` returns them unchanged."""
    max_steps_per_call: int | None = None
    """The number of steps that the arrays of one call suffice for; None if there is no limit."""
    position: int | None = None
    """Where this process continues to read, for sources with a position on the host."""

    @property
    @abc.abstractmethod
    def example_arrays(self) -> PyTree:
        """Arrays of the shapes and dtypes that `next_arrays` returns."""

    @property
    def fingerprint(self) -> Mapping[str, object] | None:
        """JSON-serializable identification of the data, compared on resume; None if it is not compared."""
        return None

    @abc.abstractmethod
    def next_arrays(self) -> PyTree:
        """The device arrays that the next call of the program reads."""

    @abc.abstractmethod
    def load(self, arrays: PyTree, data_state: DataState, step: Array) -> tuple[Array, Array, DataState]:
        """The images (N, H, W, C), the labels and the next data state of the step after `step` steps; traced."""

    def seek(self, position: int) -> None:  # noqa: B027
        """Continues at an earlier `position`; nothing to do for a source without one."""

    def close(self) -> None:  # noqa: B027
        """Ends the reading; nothing to do for a source that holds nothing open."""


@contextlib.contextmanager
def open_source(
    data: Data, batch_size: int, key: Array, augment: Augment | None, placement: Placement
) -> Iterator[BatchSource]:
    """The source of any kind of data, closed on exit. Raises the errors that `fit` lists for data and batch_size."""
    if isinstance(data, BatchStream):
        source = StreamBatches(data, batch_size, key, augment, placement)
    elif callable(data):
        if augment is not None:
            raise TypeError("augment: expected None when data is a function; vary the examples in that function")
        source = SampledBatches(data, batch_size, key, placement)
    else:
        source = ArrayBatches(data, batch_size, key, augment, placement)
    with contextlib.closing(source):
        yield source


class ArrayBatches(BatchSource):
    """Batches of arrays on the device, shuffled every epoch; an epoch's last partial batch is left out."""

    def __init__(self, data: ArrayData, batch_size: int, key: Array, augment: Augment | None, placement: Placement):
        self._images, self._labels = _check_arrays(data, batch_size)
        self._batch_size = batch_size
        self._augment = augment
        self._arrays = placement.replicate((self._images, self._labels, tuple(jax.random.split(key))))
        self.initial_data_state = jnp.arange(len(self._images))
        self.labels = None if augment else np.asarray(self._labels)

    @property
    def example_arrays(self) -> PyTree:
        return self._arrays

    @property
    def fingerprint(self) -> Mapping[str, object]:
        stride = max(1, len(self._images) // FINGERPRINT_IMAGES)
        return {"images": array_checksum(self._images[::stride]), "labels": array_checksum(self._labels)}

    def next_arrays(self) -> PyTree:
        return self._arrays

    def load(self, arrays: PyTree, data_state: DataState, step: Array) -> tuple[Array, Array, DataState]:
        images, labels, (order_key, augment_key) = arrays
        count = len(images)
        epoch, index = jnp.divmod(step, count // self._batch_size)

        def shuffle() -> Array:
            return jax.random.permutation(jax.random.fold_in(order_key, epoch), count)

        order = lax.cond(index == 0, shuffle, lambda: data_state)
        indices = lax.dynamic_slice_in_dim(order, index * self._batch_size, self._batch_size)
        batch = Batch(images=images[indices], labels=labels[indices], indices=indices, epoch=epoch)
        return *_augmented(self._augment, augment_key, step, batch), order


class SampledBatches(BatchSource):
    """Batches of examples that a function draws on the device, new ones in every step."""

    def __init__(self, sample: Sample, batch_size: int, key: Array, placement: Placement):
        self._sample = sample
        self._batch_size = batch_size
        self._key = placement.replicate(key)

    @property
    def example_arrays(self) -> PyTree:
        return self._key

    def next_arrays(self) -> PyTree:
        return self._key

    def load(self, arrays: PyTree, data_state: DataState, step: Array) -> tuple[Array, Array, DataState]:
        keys = jax.random.split(jax.random.fold_in(arrays, step), self._batch_size)
        images, labels = jax.vmap(self._sample)(keys)
        return _with_channels(images), jnp.asarray(labels), data_state


class StreamBatches(BatchSource):
    """Batches of a stream, one for each call; every process reads its share, and they are joined on the devices."""

    max_steps_per_call = 1

    def __init__(self, stream: BatchStream, batch_size: int, key: Array, augment: Augment | None, placement: Placement):
        self._stream = stream
        self._local_batch_size = batch_size // jax.process_count()
        self._augment = augment
        self._placement = placement
        self._key = placement.replicate(key)
        self._batches = stream.batches(self._local_batch_size)
        # The first batch is read at once, because its shapes are needed before the first step.
        self._read_ahead: tuple[int, PyTree] | None = self._read()
        self._example_arrays = jax.eval_shape(lambda arrays: arrays, self._read_ahead[1])
        self.position = 0

    @property
    def example_arrays(self) -> PyTree:
        return self._example_arrays

    @property
    def fingerprint(self) -> Mapping[str, object]:
        return self._stream.fingerprint

    def next_arrays(self) -> PyTree:
        self.position, arrays = self._read_ahead or self._read()
        self._read_ahead = None
        return arrays

    def load(self, arrays: PyTree, data_state: DataState, step: Array) -> tuple[Array, Array, DataState]:
        images, labels, indices, epochs, key = arrays
        batch = Batch(images=images, labels=labels, indices=indices, epoch=epochs[0])
        return *_augmented(self._augment, key, step, batch), data_state

    def seek(self, position: int) -> None:
        if position == self.position:
            return
        self._batches.close()
        self._batches = self._stream.batches(self._local_batch_size, position)
        self._read_ahead = None
        self.position = position

    def close(self) -> None:
        self._batches.close()

    def _read(self) -> tuple[int, PyTree]:
        """The next batch on the devices, and the position after it."""
        batch = next(self._batches)
        # The epoch is repeated for every image, so that it can be sharded as they are.
        epochs = np.full(self._local_batch_size, batch.epoch, np.int32)
        rows = (batch.images, batch.labels, batch.indices.astype(np.int32), epochs)
        return batch.position, (*self._placement.shard_process_local(rows), self._key)


def _check_arrays(data: ArrayData, batch_size: int) -> tuple[Array, Array]:
    images, labels = check_images_and_labels("data", data, "(images, labels), a function sample(key) or a stream")
    if len(images) < batch_size:
        raise ValueError(f"batch_size: expected at most the number of images ({len(images)}), got {batch_size}")
    return jnp.asarray(images), jnp.asarray(labels)


def _augmented(augment: Augment | None, key: Array, step: Array, batch: Batch) -> tuple[Array, Array]:
    """The images (N, H, W, C) and labels to learn from."""
    images, labels = (batch.images, batch.labels) if augment is None else augment(jax.random.fold_in(key, step), batch)
    return _with_channels(images), labels


def _with_channels(images: Array) -> Array:
    if images.ndim not in (3, 4):
        raise ValueError(f"data: expected images (H, W) or (H, W, C), got shape {images.shape[1:]}")
    return images if images.ndim == 4 else images[..., None]
