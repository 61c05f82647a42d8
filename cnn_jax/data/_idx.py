"""IDX files: arrays of bytes, gzipped or not."""

import contextlib
import gzip
import lzma
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from jaxtyping import UInt8

DAMAGED = (
    *(ValueError, EOFError, KeyError, OSError, RuntimeError),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
MAX_BYTES = 2 * 2**30
BYTES = 8  # the type of the numbers, in the third byte of the magic number


def read_idx(path: str | os.PathLike[str], *, member: str | None = None) -> UInt8[np.ndarray, "..."]:
    """Reads an array of bytes from an IDX file, gzipped or not, by itself or a member of a zip archive.

    Raises:
      ValueError: the file is damaged, is no IDX file of bytes, is shorter or longer than it says, or unpacks to over 2
        GiB; the message names it.
      OSError: the file cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            with _unpacked(file, member) as content:
                return _parse(content)
        except DAMAGED as error:
            inside = f", {member}" if member else ""
            raise ValueError(f"{path}{inside}: not an IDX file that can be read ({error})") from error


@contextlib.contextmanager
def _unpacked(file: IO[bytes], member: str | None) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        if member:
            file = stack.enter_context(stack.enter_context(zipfile.ZipFile(file)).open(member))
        start = file.read(2)
        file.seek(0)
        yield stack.enter_context(gzip.GzipFile(fileobj=file)) if start == b"\x1f\x8b" else file


def _parse(file: IO[bytes]) -> np.ndarray:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != bytes((0, 0, BYTES)) or not 1 <= magic[3] <= 4:
        raise ValueError(f"expected a magic number of 0, 0, 8 and up to 4 axes, got {list(magic)}")
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ValueError("it ends within its header")
    shape = struct.unpack(f">{magic[3]}I", sizes)
    size = math.prod(shape)
    if size > MAX_BYTES:
        raise ValueError(f"{shape} are more than the {MAX_BYTES:,} bytes accepted")
    content = file.read(size + 1)
    if len(content) != size:
        found = f"{len(content):,}" if len(content) < size else "more"
        raise ValueError(f"expected {size:,} bytes for {shape}, got {found}")
    return np.frombuffer(content, np.uint8).reshape(shape).copy()
