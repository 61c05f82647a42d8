"""MNIST, Fashion-MNIST and EMNIST Letters: 28x28 gray images and their labels.

Sources:
- MNIST: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998),
  https://doi.org/10.1109/5.726791.
- Fashion-MNIST: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
  algorithms" (2017), https://arxiv.org/abs/1708.07747.
- EMNIST: Cohen, Afshar, Tapson and van Schaik, "EMNIST: an extension of MNIST to handwritten letters" (2017),
  https://arxiv.org/abs/1702.05373.
"""

import os
import string
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import _download
from ._idx import read_idx
from .dataset import LabeledImages

__all__ = ["CLOTHES", "DIGITS", "load"]

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
EMNIST_ARCHIVE = "gzip.zip"


class CatalogEntry(NamedTuple):
    """A published data set."""

    url: str
    """URL of the folder that holds its files."""
    classes: tuple[str, ...]
    """The meaning of each label."""
    checksums: dict[str, str]
    """Checksum of each file, by its name."""


CATALOG = {
    "mnist": CatalogEntry(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        DIGITS,
        {
            "train-images-idx3-ubyte.gz": "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
    ),
    "fashion-mnist": CatalogEntry(
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        CLOTHES,
        {
            "train-images-idx3-ubyte.gz": "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
    ),
    "emnist-letters": CatalogEntry(
        "https://biometrics.nist.gov/cs_links/EMNIST/",
        tuple(string.ascii_lowercase),
        {EMNIST_ARCHIVE: "md5:58c8d27c78d21e728a6bc7b3cc06412e"},
    ),
}


def load(name: str, split: str = "train", *, data_dir: str | os.PathLike[str] | None = None) -> LabeledImages:
    """Loads a data set: images (N, 28, 28), uint8 with background 0, and labels from 0.

        train = mnist.load("mnist")
        test = mnist.load("mnist", "test")

    Args:
      name: "mnist", "fashion-mnist" or "emnist-letters", where upper and lower case are merged.
      split: "train" or "test", as published.
      data_dir: the folder that contains the folder `name` with the published files (for EMNIST, gzip.zip); by default
        the one that the environment variable CNN_JAX_DATA names. Files that are missing there are downloaded.

    Raises:
      ValueError: an unknown name or split; a folder that does not exist; a file whose checksum is not the published
        one, or whose content is invalid; the message names it.
      ConnectionError: a file is not available locally and cannot be downloaded.

    >>> CATALOG["fashion-mnist"].classes[:3]
    ('T-shirt/top', 'trouser', 'pullover')
    >>> load("mnist", "test", data_dir="missing")
    Traceback (most recent call last):
    ValueError: data_dir: expected a folder, got missing
    """
    if not isinstance(name, str) or name not in CATALOG:
        raise ValueError(f"name: expected one of {list(CATALOG)}, got {name!r}")
    if split not in ("train", "test"):
        raise ValueError(f"split: expected 'train' or 'test', got {split!r}")
    if EMNIST_ARCHIVE in CATALOG[name].checksums:
        return _load_emnist(name, split, data_dir)
    prefix = "train" if split == "train" else "t10k"
    images = read_idx(_fetch(name, f"{prefix}-images-idx3-ubyte.gz", data_dir))
    labels_path = _fetch(name, f"{prefix}-labels-idx1-ubyte.gz", data_dir)
    return _labeled_images(images, read_idx(labels_path), CATALOG[name].classes, labels_path)


def _fetch(name: str, file: str, data_dir: str | os.PathLike[str] | None) -> Path:
    entry = CATALOG[name]
    return _download.fetch(f"{name}/{file}", url=entry.url + file, checksum=entry.checksums[file], data_dir=data_dir)


def _load_emnist(name: str, split: str, data_dir: str | os.PathLike[str] | None) -> LabeledImages:
    archive = _fetch(name, EMNIST_ARCHIVE, data_dir)
    images = read_idx(archive, member=f"gzip/{name}-{split}-images-idx3-ubyte.gz")
    labels = read_idx(archive, member=f"gzip/{name}-{split}-labels-idx1-ubyte.gz")
    images = images.swapaxes(1, 2)  # EMNIST stores columns first
    labels = labels - np.uint8(1)  # and starts at 1
    return _labeled_images(images, labels, CATALOG[name].classes, archive)


def _labeled_images(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], path: Path) -> LabeledImages:
    """Checks that images, labels and classes fit together; errors name the file."""
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise ValueError(f"{path}: expected a label for each of the images {images.shape}, got shape {labels.shape}")
    if labels.size and labels.max() >= len(classes):
        index = int(np.argmax(labels >= len(classes)))
        raise ValueError(f"{path}: expected labels below {len(classes)}, got {labels[index]} at {index}")
    return LabeledImages(images, labels.astype(np.int32), classes)
