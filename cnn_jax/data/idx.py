"""MNIST, Fashion-MNIST and the letters of EMNIST: 28x28 grey pictures and their labels, in gzipped IDX files.

Sources: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998); Xiao,
Rasul and Vollgraf, "Fashion-MNIST" (2017); Cohen, Afshar, Tapson and van Schaik, "EMNIST" (2017).
"""

import contextlib
import gzip
import lzma
import math
import os
import string
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from . import cache
from .labelled import Labelled

DIGITS = tuple(string.digits)
CLOTHES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
DAMAGED = (
    *(ValueError, EOFError, KeyError, OSError, RuntimeError),
    *(zlib.error, lzma.LZMAError, zipfile.BadZipFile),
)
MAX_BYTES = 2 * 2**30
BYTES = 8  # the type of the numbers, in the third byte of the magic number


class Source(NamedTuple):
    """Where a data set is, and what its labels mean."""

    url: str
    classes: tuple[str, ...]
    checksums: dict[str, str]
    """Of every file."""


SOURCES = {
    "mnist": Source(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        DIGITS,
        {
            "train-images-idx3-ubyte.gz": "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
    "fashion-mnist": Source(
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        CLOTHES,
        {
            "train-images-idx3-ubyte.gz": "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
    ),
    "emnist-letters": Source(
        "https://biometrics.nist.gov/cs_links/EMNIST/",
        tuple(string.ascii_lowercase),
        {"gzip.zip": "md5:58c8d27c78d21e728a6bc7b3cc06412e"},
    ),
}


def load(name: str, split: str = "train", *, data_dir: str | os.PathLike[str] | None = None) -> Labelled:
    """The pictures of a data set, (N, 28, 28) uint8 with the ground 0, and their labels from 0.

    Args:
      name: "mnist", "fashion-mnist" or "emnist-letters", whose capital and small letters are one class.
      split: "train" or "test", as published.
      data_dir: the folder that has the folder `name` with the published files (for EMNIST gzip.zip), in place of
        CNN_JAX_DATA; what is in neither is downloaded.

    Raises:
      ValueError: an unknown name or split; a folder that is not there; a file with another checksum than the published
        one, or whose content is not what it should be; the message names it.
      ConnectionError: a file is not on this machine and cannot be downloaded.
    """
    if not isinstance(name, str) or name not in SOURCES:
        raise ValueError(f"name: expected one of {list(SOURCES)}, got {name!r}")
    if split not in ("train", "test"):
        raise ValueError(f"split: expected 'train' or 'test', got {split!r}")
    source = SOURCES[name]

    def path(file: str) -> Path:
        url, checksum = source.url + file, source.checksums[file]
        return cache.fetch(f"{name}/{file}", url=url, checksum=checksum, data_dir=data_dir)

    if "gzip.zip" in source.checksums:
        where = path("gzip.zip")
        images, labels = (
            read_idx(where, member=f"gzip/{name}-{split}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")
        )
        images, labels = images.swapaxes(1, 2), labels - np.uint8(1)  # columns come first there, and "a" is 1
    else:
        first = "train" if split == "train" else "t10k"
        images, where = read_idx(path(f"{first}-images-idx3-ubyte.gz")), path(f"{first}-labels-idx1-ubyte.gz")
        labels = read_idx(where)
    return check(images, labels, source.classes, where)


def check(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], path: Path) -> Labelled:
    """Images and labels that belong together, or a ValueError that names the file."""
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(f"{path}: expected a label for each of the images {images.shape}, got shape {labels.shape}")
    if labels.size and labels.max() >= len(classes):
        first = int(np.argmax(labels >= len(classes)))
        raise ValueError(f"{path}: expected labels below {len(classes)}, got {labels[first]} at {first}")
    return Labelled(images, labels.astype(np.int32), classes)


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
