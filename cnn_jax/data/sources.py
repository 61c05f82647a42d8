"""Sources of labeled images that are read one by one: folders of image files, and ArrayRecord files."""

import io
import os
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
from jaxtyping import UInt8

from .._optional import optional_import
from ..files import local_path
from . import image_folder, image_io

__all__ = ["FolderSource", "RecordSource", "write_records"]

LABEL_DTYPE = np.dtype("<i4")  # the first bytes of a record, before those of the image file


class FolderSource:
    """The images of a folder with one subfolder per class, read as squares as `image_folder` reads them.

    Args:
      path: the folder.
      size: the height and width of the images.

    Raises:
      ValueError: there is no class, or a class without images.
      OSError: the folder cannot be read.

    Example:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         Path(folder, name).mkdir()
    ...         Image.new("L", (50, 40)).save(Path(folder, name, "1.png"))
    ...     source = FolderSource(folder, size=8)
    ...     image, label = source[1]
    >>> len(source), image.shape, source.classes[label]
    (2, (8, 8, 3), 'dog')
    """

    def __init__(self, path: str | os.PathLike[str], *, size: int = 32):
        self.path = local_path(path)
        self.size = image_io.check_size(size)
        self.classes = image_folder.class_names(self.path)
        if not self.classes:
            raise ValueError(f"path: expected a folder with a subfolder for every class, got none in {self.path}")
        files = [[file.name for file in image_folder.image_files(self.path / name)] for name in self.classes]
        empty = [name for name, names in zip(self.classes, files, strict=True) if not names]
        if empty:
            raise ValueError(f"path: expected images of every class, got none of {', '.join(empty)} in {self.path}")
        self.files = [name for names in files for name in names]
        self.labels = np.repeat(np.arange(len(files)), [len(names) for names in files])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[UInt8[np.ndarray, "size size 3"], int]:
        return image_io.read_square(self.name(index), size=self.size), int(self.labels[index])

    def name(self, index: int) -> str:
        """The path of an image file."""
        return str(self.path / self.classes[self.labels[index]] / self.files[index])


class RecordSource:
    """The images of ArrayRecord files, as `write_records` writes them.

    Args:
      paths: the files.
      classes: the names of the labels 0, 1 and so on.
      size: the height and width of the images, which are read as squares.

    Raises:
      OSError: a file cannot be opened.
      ValueError: a file is not an ArrayRecord file.

    Example:

        source = RecordSource(["part0.array_record", "part1.array_record"], ("cat", "dog"), size=64)
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]], classes: Sequence[str], *, size: int = 32):
        self.size = image_io.check_size(size)
        self.classes = tuple(classes)
        self.paths = [str(local_path(path, name="paths")) for path in paths]
        for path in self.paths:
            with open(path, "rb"):  # raises a plain FileNotFoundError or PermissionError
                pass
        with optional_import(needed_by="RecordSource", extra="stream"):
            from grain.sources import ArrayRecordDataSource
        try:
            self._records = cast(Sequence[bytes], ArrayRecordDataSource(self.paths))
            self._length = len(self._records)
        except Exception as error:  # its C++ code raises errors of many kinds
            raise ValueError(f"paths: cannot read ArrayRecord files {', '.join(self.paths)} ({error})") from error

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[UInt8[np.ndarray, "size size 3"], int]:
        record = self._records[index]
        if len(record) < LABEL_DTYPE.itemsize:
            raise ValueError(f"{self.name(index)}: expected a label, got a record of {len(record)} bytes")
        label = int(np.frombuffer(record, LABEL_DTYPE, count=1)[0])
        if not 0 <= label < len(self.classes):
            raise ValueError(f"{self.name(index)}: expected a label from 0 to {len(self.classes) - 1}, got {label}")
        try:
            image = image_io.read_square(io.BytesIO(record[LABEL_DTYPE.itemsize :]), size=self.size)
        except ValueError as error:
            raise ValueError(f"{self.name(index)}: not an image file that can be read") from error
        return image, label

    def name(self, index: int) -> str:
        """The files' names and the record's index in them."""
        return f"{', '.join(self.paths)}[{index}]"


def write_records(path: str | os.PathLike[str], images: Iterable[tuple[bytes, int]]) -> int:
    """Writes image files and their labels into an ArrayRecord file, which `RecordSource` reads.

    Args:
      path: the file to write.
      images: the bytes and the label of each image file.

    Returns:
      The number of records.

    Example:

        source = FolderSource("photos")
        images = ((Path(source.name(i)).read_bytes(), int(source.labels[i])) for i in range(len(source)))
        write_records("photos.array_record", images)
    """
    with optional_import(needed_by="write_records", extra="stream"):
        from array_record.python.array_record_module import ArrayRecordWriter
    writer = ArrayRecordWriter(str(local_path(path)), "group_size:1")
    count = 0
    for image_file, label in images:
        writer.write(np.array(label, LABEL_DTYPE).tobytes() + image_file)
        count += 1
    writer.close()
    return count
