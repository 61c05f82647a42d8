"""IDX files: arrays of bytes, gzipped or not, in a folder or in a zip archive.

Format: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", http://yann.lecun.com/exdb/mnist/.
"""

import contextlib
import gzip
import io
import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

# What damaged IDX, gzip and zip files make the standard library raise.
DAMAGED = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
)
MAX_BYTES = 2 * 2**30
MAX_AXES = 4
UINT8_CODE = 8  # the code of unsigned bytes, in the third byte of the magic number
GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | os.PathLike[str], *, member: str | None = None) -> UInt8[np.ndarray, "..."]:
    """Reads an array of bytes from an IDX file, which may be gzipped.

    Args:
      path: the IDX file, or a zip archive.
      member: name of the IDX file in the zip archive; None if `path` is the IDX file.

    Raises:
      ValueError: the file is damaged, is not an IDX file of bytes, is shorter or longer than its header says, or
        unpacks to more than 2 GiB; the message names it.
      OSError: the file cannot be opened.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     magic = [0, 0, 8, 2]  # bytes, two axes
    ...     _ = file.write(bytes([*magic, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 9]))
    ...     file.flush()
    ...     read_idx(file.name)
    array([[7, 8, 9]], dtype=uint8)
    """
    with open(path, "rb") as file:
        try:
            with _decompressed(file, member) as content:
                return _parse_idx(content)
        except DAMAGED as error:
            location = f"{path}, {member}" if member else path
            raise ValueError(f"{location}: not an IDX file that can be read ({error})") from error


@runtime_checkable
class ByteReader(Protocol):
    """A file, a member of an archive, or a decompressor."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, /) -> int: ...

    def seekable(self) -> bool: ...


@contextlib.contextmanager
def _decompressed(file: io.BufferedReader, member: str | None) -> Iterator[ByteReader]:
    """The file, or its member if it is a zip archive, decompressed if it is gzipped."""
    with contextlib.ExitStack() as stack:
        content: ByteReader = file
        if member:
            archive = stack.enter_context(zipfile.ZipFile(file))
            content = stack.enter_context(archive.open(member))
        magic = content.read(len(GZIP_MAGIC))
        content.seek(0)
        yield stack.enter_context(gzip.GzipFile(fileobj=content)) if magic == GZIP_MAGIC else content


def _parse_idx(content: ByteReader) -> UInt8[np.ndarray, "..."]:
    magic = content.read(4)
    if len(magic) < 4 or magic[:3] != bytes((0, 0, UINT8_CODE)) or not 1 <= magic[3] <= MAX_AXES:
        raise ValueError(f"expected a magic number of 0, 0, {UINT8_CODE} and up to {MAX_AXES} axes, got {list(magic)}")
    axes = magic[3]
    header = content.read(4 * axes)
    if len(header) < 4 * axes:
        raise ValueError("it ends within its header")
    shape = struct.unpack(f">{axes}I", header)
    size = math.prod(shape)
    if size > MAX_BYTES:
        raise ValueError(f"{shape} are more than the {MAX_BYTES:,} bytes accepted")
    values = content.read(size + 1)
    if len(values) != size:
        length = f"{len(values):,}" if len(values) < size else "more"
        raise ValueError(f"expected {size:,} bytes for {shape}, got {length}")
    return np.frombuffer(values, np.uint8).reshape(shape).copy()
