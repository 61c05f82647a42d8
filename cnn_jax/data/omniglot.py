"""The Latin X's and O's of Omniglot: 105x105 drawings of each letter by 20 people, black on white.

Source: Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program induction"
(2015), https://doi.org/10.1126/science.aab3050.
"""

import io
import os
import zipfile

import numpy as np
from jaxtyping import Float32, Int32

from . import _download, image_io, xo

__all__ = ["load_xo"]

NAME = "omniglot/images_background_small1.zip"
URL = "https://github.com/brendenlake/omniglot/raw/master/python/images_background_small1.zip"
CHECKSUM = "sha256:f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4"
# Folders of the Latin alphabet in the archive.
CHARACTERS = {"X": "character24", "O": "character15"}


def load_xo(
    data_dir: str | os.PathLike[str] | None = None,
) -> tuple[Float32[np.ndarray, "N 105 105"], Int32[np.ndarray, " N"]]:
    """Loads the drawings of X and O, and their labels.

        drawings, labels = omniglot.load_xo()

    Args:
      data_dir: the folder that contains omniglot/images_background_small1.zip; by default the one that the environment
        variable CNN_JAX_DATA names. If it does not contain the archive, the archive is downloaded.

    Returns:
      The drawings in [-1, 1], white = 1 (strokes are black), and their labels: indices into `cnn_jax.data.xo.CLASSES`.

    Raises:
      ValueError: the folder does not exist, or the archive has another checksum than the published one.
      ConnectionError: the archive is not on this machine and cannot be downloaded.

    >>> load_xo("missing")
    Traceback (most recent call last):
    ValueError: data_dir: expected a folder, got missing
    """
    path = _download.fetch(NAME, url=URL, checksum=CHECKSUM, data_dir=data_dir)
    drawings = []
    labels = []
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            label = _label(name)
            if label is not None:
                drawings.append(image_io.read_image(io.BytesIO(archive.read(name))))
                labels.append(label)
    return np.stack(drawings), np.array(labels, np.int32)


def _label(name: str) -> int | None:
    """The label of a drawing in the archive, or None if the file is not a drawing of X or O."""
    if not name.endswith(".png"):
        return None
    for label, letter in enumerate(xo.CLASSES):
        if f"/Latin/{CHARACTERS[letter]}/" in name:
            return label
    return None
