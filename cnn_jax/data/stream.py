"""More pictures than memory holds: read by Grain while a network learns from them, in files or in ArrayRecords."""

import io
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from absl import flags
from jaxtyping import Int32, Int64, UInt8

from .._validation import check_int
from . import image_folder, image_io

LABEL = np.dtype("<i4")  # at the start of every record; the picture file follows
EPOCHS = 2**30  # in a stream without end
log = logging.getLogger(__name__)


class Source(Protocol):
    """LabeledImages pictures that can be read one by one."""

    size: int
    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[UInt8[np.ndarray, "size size 3"], int]: ...

    def name(self, index: int) -> str: ...


class Folder:
    """The pictures in a folder for every class, made square as `image_folder.load` makes them.

    Raises a ValueError if there is no class or a class has no picture, an OSError if the folder cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str], *, size: int = 32):
        self.path, self.size = Path(path), image_io.check_size(size)
        self.classes = image_folder.classes(self.path)
        files = [[path.name for path in image_folder.pictures(self.path / name)] for name in self.classes]
        empty = [name for name, own in zip(self.classes, files, strict=True) if not own]
        if not self.classes or empty:
            what = f"no picture in {', '.join(empty)}" if empty else "none"
            raise ValueError(f"{self.path}: expected a folder of pictures for every class, got {what}")
        self.files = [file for own in files for file in own]
        self.labels = np.repeat(np.arange(len(files)), [len(own) for own in files])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[UInt8[np.ndarray, "size size 3"], int]:
        return image_io.read_square(self.name(index), size=self.size), int(self.labels[index])

    def name(self, index: int) -> str:
        """The file's path."""
        return str(self.path / self.classes[self.labels[index]] / self.files[index])


class Records:
    """The pictures in ArrayRecord files, each a label (four bytes, the lowest first) and then a picture file's bytes.

    Raises an OSError or a ValueError if a file cannot be read.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], classes: Sequence[str], *, size: int = 32):
        self.size, self.classes = image_io.check_size(size), tuple(classes)
        self.paths = [str(path) for path in paths]
        for path in self.paths:
            with open(path, "rb"):  # for a plain FileNotFoundError or PermissionError
                pass
        try:
            self.source = _grain().sources.ArrayRecordDataSource(self.paths)
            self.length = len(self.source)
        except Exception as error:  # whatever its C++ says
            raise ValueError(f"{', '.join(self.paths)}: not ArrayRecord files that can be read ({error})") from error

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[UInt8[np.ndarray, "size size 3"], int]:
        record = self.source[index]
        if len(record) < LABEL.itemsize:
            raise ValueError(f"{self.name(index)}: a record without a label")
        label = int(np.frombuffer(record, LABEL, 1)[0])
        if not 0 <= label < len(self.classes):
            raise ValueError(f"{self.name(index)}: a label from 0 to {len(self.classes) - 1} was expected, got {label}")
        try:
            return image_io.read_square(io.BytesIO(record[LABEL.itemsize :]), size=self.size), label
        except ValueError as error:
            raise ValueError(f"{self.name(index)}: not a picture that can be read") from error

    def name(self, index: int) -> str:
        """The record's file or files, and its number in them."""
        return f"{', '.join(self.paths)}[{index}]"


def write_records(path: str | os.PathLike[str], pictures: Iterator[tuple[bytes, int]]) -> int:
    """Writes picture files' bytes with their labels into an ArrayRecord file, for `Records`; returns how many."""
    _grain()
    from array_record.python.array_record_module import ArrayRecordWriter

    writer, written = ArrayRecordWriter(str(path), "group_size:1"), 0
    for picture, label in pictures:
        writer.write(np.array(label, LABEL).tobytes() + picture)
        written += 1
    writer.close()
    return written


class Piece(NamedTuple):
    """Some pictures of a stream."""

    images: UInt8[np.ndarray, "N size size 3"]
    labels: Int32[np.ndarray, " N"]
    indices: Int64[np.ndarray, " N"]
    """Their places in the source."""
    epoch: int
    """Of the first of them, from 0."""
    position: int
    """Where to start, to go on after them."""


class Stream:
    """LabeledImages pictures without end, shuffled anew every epoch, read ahead by other processes.

        stream = Stream(Folder("pictures", size=64), workers=4)
        params, history = fit(net, stream, optimizer=rule, steps=1000, key=key)

    Of several JAX processes each reads its own share. A picture that cannot be read is left out, named in the log, and
    kept in `corrupt` with the reason.

    Args:
      source: where the pictures are.
      seed: of the order.
      workers: processes that read; with 0 threads of this one do.
      max_corrupt_fraction: the share of this process's pictures that may be unreadable.
    """

    def __init__(self, source: Source, *, seed: int = 0, workers: int = 0, max_corrupt_fraction: float = 0.05):
        if not 0 <= max_corrupt_fraction < 1:
            raise ValueError(f"max_corrupt_fraction: expected at least 0 and less than 1, got {max_corrupt_fraction}")
        self.source, self.workers, self.max_corrupt_fraction = (
            source,
            check_int("workers", workers, minimum=0),
            max_corrupt_fraction,
        )
        self.corrupt: dict[str, str] = {}
        self.identity = {"seed": seed, "pictures": len(source), "size": source.size, "classes": list(source.classes)}
        self.identity["processes"] = jax.process_count()
        self.order = (
            _grain()
            .MapDataset.source(range(len(source)))
            .shuffle(seed=check_int("seed", seed, minimum=0))[jax.process_index() :: jax.process_count()]
        )
        if not len(self.order):
            raise ValueError(
                f"source: expected a picture for each of {jax.process_count()} processes, got {len(source)}"
            )

    def __len__(self) -> int:
        """Pictures of this process in an epoch, those that cannot be read among them."""
        return len(self.order)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[Piece]:
        """Pieces of `batch_size` pictures without end, from a position on.

        Raises a ValueError when more pictures than `max_corrupt_fraction` says cannot be read.
        """
        grain, batch_size = _grain(), check_int("batch_size", batch_size)
        first = start // batch_size
        chunks = self.order.repeat(EPOCHS).map(_Reader(self.source)).batch(batch_size)[first:]
        ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
        read = chunks.to_iter_dataset(ahead)
        if self.workers:
            if not flags.FLAGS.is_parsed():  # by which Grain means to be run by Abseil
                flags.FLAGS.mark_as_parsed()
            read = read.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers))
        kept: list[tuple[Any, ...]] = []  # (picture, label, index, position after it)
        for number, chunk in enumerate(read, first):
            for i, (picture, label, index, good) in enumerate(zip(*chunk, strict=True), number * batch_size):
                if i < start:
                    continue
                if not good:
                    self._leave_out(int(index))
                    continue
                kept.append((picture, label, index, i + 1))
                if len(kept) == batch_size:
                    pictures, labels, indices, positions = zip(*kept, strict=True)
                    epoch = (positions[0] - 1) // len(self)
                    yield Piece(np.stack(pictures), np.array(labels), np.array(indices), epoch, positions[-1])
                    kept = []

    def _leave_out(self, index: int) -> None:
        name = self.source.name(index)
        if name in self.corrupt:
            return
        try:
            self.source[index]
            why = "at first"
        except Exception as error:
            why = " ".join(str(error).split())[:200]
        self.corrupt[name] = why
        log.warning("%s: left out (%s)", name, why)
        if len(self.corrupt) > self.max_corrupt_fraction * len(self):
            some = "; ".join(f"{name} ({why})" for name, why in list(self.corrupt.items())[:3])
            raise ValueError(f"{len(self.corrupt)} of {len(self)} pictures cannot be read, among them {some}")


class _Reader:
    """Reads a picture by its index: (picture, label, index, whether it could be read)."""

    def __init__(self, source: Source):
        self.source = source

    def __call__(self, index: int) -> tuple[Any, ...]:
        try:
            picture, label = self.source[index]
        except Exception:  # of whatever kind: one bad file must not end the reading of all others
            picture, label, good = np.zeros((self.source.size, self.source.size, 3), np.uint8), -1, False
        else:
            good = True
        return picture, np.int32(label), np.int64(index), np.bool_(good)


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise ImportError("streams need Grain: pip install 'cnn_jax[experiments]'") from error
    return grain
