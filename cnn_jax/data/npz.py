"""LabeledImages images in one .npz file."""

import os
import zipfile

import numpy as np
from jaxtyping import Num, Shaped

MAX_BYTES = 4 * 2**30


def load_npz(path: str | os.PathLike[str]) -> tuple[Num[np.ndarray, "N H W"], Shaped[np.ndarray, " N"]]:
    """Reads the arrays `images` (N, H, W) and `labels` (N,) of a file written by `numpy.savez`; labels come as text.

    Raises:
      ValueError: the file is damaged, is no .npz, unpacks to over 4 GiB, lacks an array, holds pickled objects or
        labels of several parts, or its arrays do not fit together; the message names it.
      OSError: the file cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_BYTES:
                raise ValueError(f"it unpacks to {size:,} bytes, and at most {MAX_BYTES:,} are accepted")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                missing = {"images", "labels"} - set(arrays.files)
                if missing:
                    raise ValueError(f"no array {' and '.join(sorted(missing))}, only {arrays.files}")
                images, labels = arrays["images"], arrays["labels"]
            if not (isinstance(images, np.ndarray) and isinstance(labels, np.ndarray)):
                raise ValueError("an entry that is no array")
        except Exception as error:  # zipfile, zlib and NumPy each have many of their own for a damaged file
            raise ValueError(f"{path}: not an .npz of images and labels that can be read ({error})") from error
    if images.ndim != 3 or 0 in images.shape or images.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected images of (N, H, W) grey levels, got {images.shape} {images.dtype}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{path}: expected {len(images)} labels, one an image, got shape {labels.shape}")
    if labels.dtype.kind == "V":
        raise ValueError(f"{path}: expected labels that are texts or numbers, got {labels.dtype}")
    return images, np.char.decode(labels, "latin1") if labels.dtype.kind == "S" else labels.astype(str)
