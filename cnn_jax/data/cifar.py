"""CIFAR-10: 60,000 colour pictures of 32x32 in ten classes, from its binary files or their archive.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

import os
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import _download
from .dataset import LabeledImages

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE_CHECKSUM = "md5:c32a1d4ab5d03f1284b67883e8d87530"
CHECKSUMS = {
    "data_batch_1.bin": "md5:5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "md5:5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "md5:942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "md5:ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "md5:53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "md5:803d5f7f4d78ea53de84dbe85f74fb6d",
}
RECORD = 1 + 3 * 32 * 32  # a label, then the planes of red, green and blue
MOST = 10_000  # records in a file


def load(split: str = "train", *, data_dir: str | os.PathLike[str] | None = None) -> LabeledImages:
    """The pictures, (N, 32, 32, 3) uint8, and their labels.

    Args:
      split: "train" or "test", as published.
      data_dir: the folder that has cifar-10-batches-bin/ or cifar-10-binary.tar.gz, in place of CNN_JAX_DATA; if
        neither has, the archive is downloaded.

    Raises:
      ValueError: an unknown split; a folder that is not there; a file with another checksum than the published one, or
        whose content is not what it should be; the message names it.
      ConnectionError: the files are not on this machine and cannot be downloaded.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split: expected 'train' or 'test', got {split!r}")
    names = [name for name in CHECKSUMS if name.startswith("test") == (split == "test")]
    paths = [_download.find(f"{FOLDER}/{name}", checksum=CHECKSUMS[name], data_dir=data_dir) for name in names]
    found = [path for path in paths if path is not None]
    if len(found) < len(names):
        archive = _download.fetch(ARCHIVE, url=URL, checksum=ARCHIVE_CHECKSUM, data_dir=data_dir)
        parts = _members(archive, names)
    else:
        parts = [read_batch(path) for path in found]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return LabeledImages(images, labels, CLASSES)


def read_batch(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """The pictures (N, 32, 32, 3) and labels of one binary file.

    Raises:
      ValueError: the file is not made of whole records, has more than 10,000, or has a label above 9; the message
        names it.
      OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return _parse(file.read(MOST * RECORD + 1), str(path))


def _members(archive: Path, names: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The named files of the archive, of which nothing is unpacked to disk."""
    parts = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.removeprefix(f"{FOLDER}/")
                if name in names and member.isfile():
                    content = tar.extractfile(member)
                    assert content is not None  # it is a file
                    parts[name] = _parse(content.read(MOST * RECORD + 1), f"{archive}, {name}")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{archive}: not an archive that can be read ({error})") from error
    missing = [name for name in names if name not in parts]
    if missing:
        raise ValueError(f"{archive}: expected {FOLDER}/{missing[0]} in it, and it is not")
    return [parts[name] for name in names]


def _parse(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not content or len(content) % RECORD or len(content) > MOST * RECORD:
        raise ValueError(f"{where}: expected up to {MOST:,} records of {RECORD:,} bytes, got {len(content):,} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    labels = records[:, 0].astype(np.int32)
    if labels.max() >= len(CLASSES):
        first = int(np.argmax(labels >= len(CLASSES)))
        raise ValueError(f"{where}: expected labels below {len(CLASSES)}, got {labels[first]} at {first}")
    return np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels
