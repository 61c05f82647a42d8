"""The Latin X's and O's of Omniglot: 20 people's drawings of each, black on white, 105x105.

Source: Lake, Salakhutdinov and Tenenbaum, "Human-level concept learning through probabilistic program induction"
(2015).
"""

import io
import os
import zipfile

import numpy as np
from jaxtyping import Float, Int

from . import _download, image_io, xo

NAME = "omniglot/images_background_small1.zip"
URL = "https://github.com/brendenlake/omniglot/raw/master/python/images_background_small1.zip"
CHECKSUM = "sha256:f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4"
CHARACTERS = {"X": "character24", "O": "character15"}


def load_xo(
    data_dir: str | os.PathLike[str] | None = None,
) -> tuple[Float[np.ndarray, "40 105 105"], Int[np.ndarray, " 40"]]:
    """The drawings in [-1, 1], white = 1 (strokes are black), and their labels, as in `cnn_jax.data.xo.CLASSES`.

    Raises what `_download.fetch` raises when the archive is not to be had.
    """
    path = _download.fetch(NAME, url=URL, checksum=CHECKSUM, data_dir=data_dir)
    drawings, labels = [], []
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            for label, letter in enumerate(xo.CLASSES):
                if f"/Latin/{CHARACTERS[letter]}/" in name and name.endswith(".png"):
                    drawings.append(image_io.read_image(io.BytesIO(archive.read(name))))
                    labels.append(label)
    return np.stack(drawings), np.array(labels, np.int32)
