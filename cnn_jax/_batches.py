"""Sources of training batches: arrays in memory, a function that samples examples, or a stream."""

import abc
import contextlib
from collections.abc import Generator, Iterator, Mapping
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree, Shaped

from ._batch_loaders import UNKNOWN, ArrayLoader, Augment, Loader, Sample, SampleLoader, StreamLoader
from ._checksums import array_checksum
from ._contents import Contents
from ._fit_arguments import check_images_and_labels
from ._processes import HALF_POSITION
from ._sharding import Placement
from ._train_state import DataState
from .data.stream import StreamBatch

FINGERPRINT_IMAGES = 1000  # images that the fingerprint of arrays covers, evenly spaced


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
ValidationData = tuple[Shaped[ArrayLike, "M ..."], Shaped[ArrayLike, "M ..."]]
"""Images and labels, as many of each, which may be more or less than those of the data."""
Data = ArrayData | Sample | BatchStream


class BatchSource(abc.ABC):
    """Where the batches of a training run come from.

    `next_arrays` provides the device arrays for one call of the compiled program. In the program, `load` builds the
    batch of each step from them.
    """

    load: Loader
    initial_data_state: DataState = None
    """The data state of `load` before the first step of a call, whatever its number."""
    can_draw_again: bool = True
    """Whether `example_arrays` are the arrays of every call, from which the batch of any step can be loaded."""
    labels: np.ndarray | None = None
    """All labels, if they are known and `load` returns them unchanged."""
    max_steps_per_call: int | None = None
    """The largest number of steps in a call of the program; None if there is no limit."""
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

    def export_position(self) -> DataState:
        """The position as an array, for a `TrainState`; None for a source without one."""
        if self.position is None:
            return None
        return jnp.array(divmod(self.position, HALF_POSITION), jnp.int32)

    def import_position(self, exported: DataState) -> None:
        """Continues at a position that `export_position` returned; nothing to do for a source without one."""
        if self.position is not None and exported is not None:
            high, low = exported.tolist()
            self.seek(high * HALF_POSITION + low)

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
        self.load = ArrayLoader(batch_size, Contents(augment))
        self._arrays = placement.replicate((self._images, self._labels, tuple(jax.random.split(key))))
        self.initial_data_state = jnp.full(len(self._images), UNKNOWN, int)
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


class SampledBatches(BatchSource):
    """Batches of examples that a function draws on the device, new ones in every step."""

    def __init__(self, sample: Sample, batch_size: int, key: Array, placement: Placement):
        self.load = SampleLoader(Contents(sample), batch_size)
        self._key = placement.replicate(key)

    @property
    def example_arrays(self) -> PyTree:
        return self._key

    def next_arrays(self) -> PyTree:
        return self._key


class StreamBatches(BatchSource):
    """Batches of a stream, one for each call; every process reads its share, and they are joined on the devices."""

    can_draw_again = False
    max_steps_per_call = 1

    def __init__(self, stream: BatchStream, batch_size: int, key: Array, augment: Augment | None, placement: Placement):
        self._stream = stream
        self._local_batch_size = batch_size // jax.process_count()
        self.load = StreamLoader(Contents(augment))
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
