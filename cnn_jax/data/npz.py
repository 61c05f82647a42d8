"""Labeled images in one .npz file."""

import io
import os
import zipfile

import numpy as np
from jaxtyping import Num, Shaped

from ..files import local_path

__all__ = ["load_npz"]

MAX_BYTES = 4 * 2**30


def load_npz(path: str | os.PathLike[str]) -> tuple[Num[np.ndarray, "N H W"], Shaped[np.ndarray, " N"]]:
    """Loads the arrays `images` (N, H, W) and `labels` (N,) of a file written by `numpy.savez`.

    Labels are returned as text, whatever their dtype in the file.

    Raises:
      ValueError: the file is damaged, is not an .npz, unpacks to more than 4 GiB, lacks an array, holds pickled objects
        or structured-dtype labels, or its arrays do not fit together; the message names it.
      OSError: the file cannot be opened.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".npz") as file:
    ...     np.savez(file, images=np.zeros((2, 28, 28), np.uint8), labels=["X", "O"])
    ...     file.flush()
    ...     images, labels = load_npz(file.name)
    >>> images.shape, labels
    ((2, 28, 28), array(['X', 'O'], dtype='<U1'))
    """
    path = local_path(path)
    with open(path, "rb") as file:
        try:
            images, labels = _read_arrays(file)
        except Exception as error:  # zipfile, zlib and NumPy each have several types of errors for a damaged file
            raise ValueError(f"{path}: not an .npz of images and labels that can be read ({error})") from error
    if images.ndim != 3 or 0 in images.shape or images.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected images of (N, H, W) gray levels, got {images.shape} {images.dtype}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{path}: expected {len(images)} labels, one per image, got shape {labels.shape}")
    if labels.dtype.kind == "V":
        raise ValueError(f"{path}: expected labels that are text or numbers, got {labels.dtype}")
    return images, _as_text(labels)


def _read_arrays(file: io.BufferedReader) -> tuple[np.ndarray, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_BYTES:
        raise ValueError(f"it unpacks to {size:,} bytes, and at most {MAX_BYTES:,} are accepted")
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        missing = {"images", "labels"} - set(arrays.files)
        if missing:
            raise ValueError(f"no array {' and '.join(sorted(missing))}, only {arrays.files}")
        images = arrays["images"]
        labels = arrays["labels"]
    if not (isinstance(images, np.ndarray) and isinstance(labels, np.ndarray)):
        raise ValueError("an entry that is not an array")
    return images, labels


def _as_text(labels: np.ndarray) -> np.ndarray:
    return np.char.decode(labels, "latin1") if labels.dtype.kind == "S" else labels.astype(str)
