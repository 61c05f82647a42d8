"""CIFAR-10: 60,000 color images of 32x32 in ten classes, from its binary files or their archive.

Source: Krizhevsky, "Learning multiple layers of features from tiny images" (2009),
https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf; format: https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from ..files import local_path
from . import _download
from .dataset import LabeledImages

__all__ = ["CLASSES", "load"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE_CHECKSUM = "md5:c32a1d4ab5d03f1284b67883e8d87530"
BATCH_CHECKSUMS = {
    "data_batch_1.bin": "md5:5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "md5:5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "md5:942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "md5:ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "md5:53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "md5:803d5f7f4d78ea53de84dbe85f74fb6d",
}
RECORD_BYTES = 1 + 3 * 32 * 32  # a label, then the planes of red, green and blue
MAX_RECORDS = 10_000  # in a file

Batch = tuple[UInt8[np.ndarray, "N 32 32 3"], Int32[np.ndarray, " N"]]


def load(split: str = "train", *, data_dir: str | os.PathLike[str] | None = None) -> LabeledImages:
    """Loads CIFAR-10: images (N, 32, 32, 3), uint8, and labels from 0.

        train = cifar.load()
        test = cifar.load("test")

    Args:
      split: "train" or "test", as published.
      data_dir: the folder that contains cifar-10-batches-bin/ or cifar-10-binary.tar.gz; by default the one that the
        environment variable CNN_JAX_DATA names. If it contains neither, the archive is downloaded.

    Raises:
      ValueError: an unknown split; a folder that does not exist; a file whose checksum is not the published one, or
        whose content is invalid; the message names it.
      ConnectionError: the files are not available locally and cannot be downloaded.

    >>> load(data_dir="missing")
    Traceback (most recent call last):
    ValueError: data_dir: expected a folder, got missing
    """
    if split not in ("train", "test"):
        raise ValueError(f"split: expected 'train' or 'test', got {split!r}")
    names = [name for name in BATCH_CHECKSUMS if name.startswith("test") == (split == "test")]
    paths = [_find_batch(name, data_dir) for name in names]
    local_paths = [path for path in paths if path is not None]
    if len(local_paths) == len(names):
        batches = [read_batch(path) for path in local_paths]
    else:
        archive = _download.fetch(ARCHIVE, url=URL, checksum=ARCHIVE_CHECKSUM, data_dir=data_dir)
        batches = _read_archive(archive, names)
    images = np.concatenate([batch_images for batch_images, _ in batches])
    labels = np.concatenate([batch_labels for _, batch_labels in batches])
    return LabeledImages(images, labels, CLASSES)


def read_batch(path: str | os.PathLike[str]) -> Batch:
    """Reads the images, (N, 32, 32, 3), and the labels of one binary file.

    Raises:
      ValueError: the file does not consist of whole records, has more than 10,000, or has a label above 9; the message
        names it.
      OSError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes([3, *[255] * 1024, *[0] * 2048]))
    ...     file.flush()
    ...     images, labels = read_batch(file.name)
    >>> CLASSES[labels[0]], images[0, 0, 0]
    ('cat', array([255,   0,   0], dtype=uint8))
    """
    path = local_path(path)
    with open(path, "rb") as file:
        return _parse_records(file.read(MAX_RECORDS * RECORD_BYTES + 1), str(path))


def _find_batch(name: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    return _download.find_local(f"{FOLDER}/{name}", checksum=BATCH_CHECKSUMS[name], data_dir=data_dir)


def _read_archive(archive: Path, names: Sequence[str]) -> list[Batch]:
    """Reads the named binary files from the archive, without unpacking them to disk."""
    try:
        batches = dict(_iterate_batches(archive, names))
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{archive}: not an archive that can be read ({error})") from error
    missing = [name for name in names if name not in batches]
    if missing:
        raise ValueError(f"{archive}: archive does not contain {FOLDER}/{missing[0]}")
    return [batches[name] for name in names]


def _iterate_batches(archive: Path, names: Sequence[str]) -> Iterator[tuple[str, Batch]]:
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = member.name.removeprefix(f"{FOLDER}/")
            if name not in names or not member.isfile():
                continue
            file = tar.extractfile(member)
            assert file is not None  # extractfile gives None for other members than files alone
            yield name, _parse_records(file.read(MAX_RECORDS * RECORD_BYTES + 1), f"{archive}, {name}")


def _parse_records(content: bytes, location: str) -> Batch:
    size = len(content)
    if size == 0 or size % RECORD_BYTES or size > MAX_RECORDS * RECORD_BYTES:
        raise ValueError(
            f"{location}: expected up to {MAX_RECORDS:,} records of {RECORD_BYTES:,} bytes, got {size:,} bytes"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    labels = records[:, 0].astype(np.int32)
    if labels.max() >= len(CLASSES):
        index = int(np.argmax(labels >= len(CLASSES)))
        raise ValueError(f"{location}: expected labels below {len(CLASSES)}, got {labels[index]} at {index}")
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels
