"""MNIST, Fashion-MNIST and the letters of EMNIST: 28x28 grey pictures and their labels, in gzipped IDX files.

Sources: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998); Xiao,
Rasul and Vollgraf, "Fashion-MNIST" (2017); Cohen, Afshar, Tapson and van Schaik, "EMNIST" (2017).
"""

import os
import string
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import _download
from ._idx import read_idx
from .dataset import LabeledImages

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


def load(name: str, split: str = "train", *, data_dir: str | os.PathLike[str] | None = None) -> LabeledImages:
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
        return _download.fetch(f"{name}/{file}", url=url, checksum=checksum, data_dir=data_dir)

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


def check(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], path: Path) -> LabeledImages:
    """Images and labels that belong together, or a ValueError that names the file."""
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(f"{path}: expected a label for each of the images {images.shape}, got shape {labels.shape}")
    if labels.size and labels.max() >= len(classes):
        first = int(np.argmax(labels >= len(classes)))
        raise ValueError(f"{path}: expected labels below {len(classes)}, got {labels[first]} at {first}")
    return LabeledImages(images, labels.astype(np.int32), classes)
