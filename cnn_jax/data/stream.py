"""Data loader: endless shuffled batches of images that do not fit into memory, read by Grain during training."""

import contextlib
import itertools
import logging
import threading
from collections.abc import Generator, Iterable, Iterator
from types import ModuleType
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Integer, Shaped, UInt8

from .._errors import one_line
from .._optional import optional_import
from .._validation import check_int

__all__ = ["Source", "Stream", "StreamBatch"]

MAX_EPOCHS = 2**30  # Grain repeats a data set a finite number of times; no run reaches the last epoch
NAMED_IN_ERROR = 3  # corrupt images that an error names
log = logging.getLogger(__name__)


@runtime_checkable
class Source(Protocol):
    """Labeled images that can be read one by one, such as those of `cnn_jax.data.sources`.

    `source[index]` returns the pixels and the label of an image, and raises an error if it cannot be read.
    """

    size: int
    """The height and width of the images."""
    classes: tuple[str, ...]
    """The names of the labels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[UInt8[np.ndarray, "size size 3"], int]: ...

    def name(self, index: int, /) -> str:
        """The name of an image for messages, such as its path."""
        ...


class StreamBatch(NamedTuple):
    """A batch that a stream has read."""

    images: Shaped[np.ndarray, "N H W *C"]
    labels: Shaped[np.ndarray, "N ..."]
    indices: Integer[np.ndarray, " N"]
    """The index of each image in the source."""
    epoch: int
    """The number of complete passes over the source before the first image."""
    position: int
    """Where to start in order to continue after this batch."""


class _Example(NamedTuple):
    """An image of a stream."""

    image: UInt8[np.ndarray, "size size 3"]
    label: np.int32
    source_index: int
    readable: bool
    position: int
    """Where to start in order to continue after this image."""


class _Reader:
    """Reads an image by its index. It is sent to the worker processes."""

    def __init__(self, source: Source):
        self._source = source

    def __call__(self, index: int) -> tuple[UInt8[np.ndarray, "size size 3"], np.int32, np.int64, np.bool_]:
        try:
            image, label = self._source[index]
        except Exception:  # of any kind: one bad file must not end the reading of all others
            size = self._source.size
            return np.zeros((size, size, 3), np.uint8), np.int32(-1), np.int64(index), np.bool_(False)
        return image, np.int32(label), np.int64(index), np.bool_(True)


class Stream:
    """Endless batches of a source, shuffled every epoch, for `fit`.

    Images are read ahead. With several JAX processes each reads its share of the source. An image that cannot be
    read is left out, reported in the log, and listed in `corrupt` with the reason.

    Args:
      source: the images.
      seed: determines the order.
      workers: the number of processes that read images; with 0, threads of this process read them.
      max_corrupt_fraction: the largest fraction of this process's images that may be unreadable.

    Raises:
      ValueError: seed or workers is negative; max_corrupt_fraction is not in [0, 1); the source has fewer images than
        there are processes.
      TypeError: seed or workers is not an int.
      ImportError: Grain is not installed.

    Example:

        from cnn_jax.data.sources import FolderSource

        stream = Stream(FolderSource("photos", size=64), workers=4)
        params, history = fit(net, stream, optimizer=optimizer, steps=1000, key=key)
    """

    def __init__(self, source: Source, *, seed: int = 0, workers: int = 0, max_corrupt_fraction: float = 0.05):
        seed = check_int("seed", seed, minimum=0)
        self._workers = check_int("workers", workers, minimum=0)
        if not 0 <= max_corrupt_fraction < 1:
            raise ValueError(f"max_corrupt_fraction: expected at least 0 and less than 1, got {max_corrupt_fraction}")
        self.source = source
        self.corrupt: dict[str, str] = {}
        self._max_corrupt_fraction = max_corrupt_fraction
        processes = jax.process_count()
        self.fingerprint: dict[str, object] = {
            "seed": seed,
            "images": len(source),
            "size": source.size,
            "classes": list(source.classes),
            "processes": processes,
        }
        shuffled = _import_grain().MapDataset.source(range(len(source))).shuffle(seed=seed)
        self._order = shuffled[jax.process_index() :: processes]
        if not len(self._order):
            raise ValueError(f"source: expected an image for each of {processes} processes, got {len(source)}")

    def __len__(self) -> int:
        """The number of this process's images in an epoch, unreadable ones included."""
        return len(self._order)

    def batches(self, batch_size: int, start: int = 0) -> Generator[StreamBatch]:
        """Yields batches of `batch_size` images without end.

        Args:
          batch_size: the number of images in a batch.
          start: where to begin: 0, or the `position` of an earlier batch.

        Raises:
          ValueError: batch_size is below 1, or more images than `max_corrupt_fraction` allows cannot be read.
          TypeError: batch_size is not an int.
        """
        batch_size = check_int("batch_size", batch_size)
        readable_examples: list[_Example] = []
        for example in self._examples(batch_size, start):
            if not example.readable:
                self._leave_out(example.source_index)
                continue
            readable_examples.append(example)
            if len(readable_examples) == batch_size:
                yield self._stack(readable_examples)
                readable_examples = []

    def _examples(self, chunk_size: int, start: int) -> Iterator[_Example]:
        """The examples from `start` on, unreadable ones included, read in chunks."""
        grain = _import_grain()
        first_chunk = start // chunk_size
        ordered = self._order.repeat(MAX_EPOCHS).map(_Reader(self.source)).batch(chunk_size)[first_chunk:]
        chunks = ordered.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2))
        if self._workers:
            chunks = chunks.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
        with _readable_grain_flags():  # Grain reads them when it starts its threads or processes
            chunk_iterator = iter(chunks)
            first = next(chunk_iterator)
        rows = itertools.chain.from_iterable(zip(*c, strict=True) for c in itertools.chain([first], chunk_iterator))
        for offset, (image, label, index, readable) in enumerate(rows, first_chunk * chunk_size):
            if offset >= start:
                yield _Example(image, label, int(index), bool(readable), position=offset + 1)

    def _stack(self, examples: Iterable[_Example]) -> StreamBatch:
        images, labels, indices, _, positions = zip(*examples, strict=True)
        return StreamBatch(
            images=np.stack(images),
            labels=np.array(labels),
            indices=np.array(indices),
            epoch=(positions[0] - 1) // len(self),
            position=positions[-1],
        )

    def _leave_out(self, index: int) -> None:
        """Reports an unreadable image. Raises a ValueError if there are too many of them."""
        name = self.source.name(index)
        if name in self.corrupt:
            return
        self.corrupt[name] = reason = self._why_unreadable(index)
        log.warning("%s: left out (%s)", name, reason)
        if len(self.corrupt) > self._max_corrupt_fraction * len(self):
            named = "; ".join(f"{name} ({reason})" for name, reason in list(self.corrupt.items())[:NAMED_IN_ERROR])
            raise ValueError(f"source: {len(self.corrupt)} of {len(self)} images cannot be read, among them {named}")

    def _why_unreadable(self, index: int) -> str:
        try:
            self.source[index]
        except Exception as error:
            return one_line(error)
        return "readable now, but not when its batch was read"


_FLAGS_LOCK = threading.RLock()  # held while Grain's flags count as parsed, so that each block restores what it found


@contextlib.contextmanager
def _readable_grain_flags() -> Iterator[None]:
    """Marks Grain's Abseil flags as parsed, with their defaults. Abseil parses flags only in programs that it starts.

    Without this, starting worker processes raises an UnparsedFlagAccessError (Grain 0.2.18).
    """
    with optional_import(needed_by="Stream", extra="stream"):
        from absl import flags
    with _FLAGS_LOCK:
        grain_flags = [flags.FLAGS[name] for name in flags.FLAGS if name.startswith("grain_")]
        saved = [(flag, flag.present) for flag in grain_flags]
        for flag, _ in saved:
            flag.present = flag.present or 1
        try:
            yield
        finally:
            for flag, present in saved:
                flag.present = present


def _import_grain() -> ModuleType:
    with optional_import(needed_by="Stream", extra="stream"):
        import grain
    return grain
