"""Labeled images in one folder per class, of any size and format."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..files import atomic_write, local_path
from ..progress import Progress
from . import _download, image_io
from .dataset import LabeledImages, train_val_split, validation_mask

__all__ = ["load"]

# Part of the cache's key: raise it if files are decoded differently.
CACHE_VERSION = 2

Images = UInt8[np.ndarray, "N size size 3"]


def load(
    folder: str | os.PathLike[str], *, size: int = 32, validation: float = 0.2, seed: int = 0, progress: bool = True
) -> tuple[LabeledImages, LabeledImages]:
    """Loads `folder/CLASS/IMAGE` and splits it at random into a training set and a validation set.

        train, validation = image_folder.load("photos", size=64)

    Images become squares, (size, size, 3) uint8: the shorter side is scaled, the longer side is cropped around its
    center. Hidden files, files of other formats and folders inside a class's folder are ignored.

    Args:
      folder: the folder with one folder per class; classes are in alphabetical order.
      size: rows and columns of every image, up to 4096.
      validation: the share of each class in the validation set, at least one image.
      seed: of the split.
      progress: show a progress bar on stderr.

    Raises:
      ValueError: fewer than two classes, a class of fewer than two images, a file that is not an image, an invalid
        size, share or seed; the message names it.
      TypeError: a size or seed that is not an int, a share that is not a number.
      OSError: the folder or a file cannot be read.

    Notes:
      The arrays are kept in the user's cache and reused until a file changes. Nothing is ever removed from the cache.

    >>> import tempfile
    >>> from unittest import mock
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for color in ("red", "blue"):
    ...         Path(folder, "images", color).mkdir(parents=True)
    ...         for i in range(5):
    ...             Image.new("RGB", (30, 20), color).save(Path(folder, "images", color, f"{i}.png"))
    ...     with mock.patch.dict(os.environ, XDG_CACHE_HOME=folder):  # leaves the user's cache alone
    ...         train, validation = load(Path(folder, "images"), size=8, progress=False)
    >>> train.images.shape, train.classes, validation.labels
    ((8, 8, 8, 3), ('blue', 'red'), array([0, 1], dtype=int32))
    """
    size = image_io.check_size(size)
    folder = local_path(folder, name="folder")
    files = _files_by_class(folder)
    paths = [path for class_files in files.values() for path in class_files]
    labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(class_files) for class_files in files.values()])
    validation_mask(labels, validation, seed=seed)  # rejects a bad share or seed before files are decoded
    images = _load_cached(paths, size, progress)
    classes = tuple(_printable(name) for name in files)
    return train_val_split(LabeledImages(images, labels, classes), validation, seed=seed)


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of the folders in a folder, in alphabetical order, without hidden ones."""
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def image_files(folder: Path) -> list[Path]:
    """The image files in a folder, by their suffixes, in alphabetical order, without hidden ones."""
    return sorted(path for path in folder.iterdir() if _is_image_file(path))


def _is_image_file(path: Path) -> bool:
    return path.suffix.lower() in image_io.SUFFIXES and not path.name.startswith(".") and path.is_file()


def _files_by_class(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class, at least two each."""
    names = class_names(folder)
    if len(names) < 2:
        raise ValueError(f"{folder}: expected a folder for each of at least two classes, got {list(names)}")
    files = {name: image_files(folder / name) for name in names}
    for name, class_files in files.items():
        if len(class_files) < 2:
            has_folders = any(path.is_dir() for path in (folder / name).iterdir())
            hint = "; folders in it are ignored" if has_folders else ""
            raise ValueError(
                f"{folder / name}: expected at least two images (one for validation), got {len(class_files)}{hint}"
            )
    return files


def _printable(name: str) -> str:
    """A file name as valid text: bytes that are not UTF-8 become escape sequences."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _load_cached(paths: Sequence[Path], size: int, progress: bool) -> Images:
    """Decodes the files, or loads the result of a previous call with the same files."""
    shape = (len(paths), size, size, 3)
    cache_path = _cache_path(paths, size)
    cached = _read_cache(cache_path, shape)
    if cached is not None:
        return cached
    images = np.empty(shape, np.uint8)
    with Progress("reading", len(paths), show=progress) as bar:
        for i, path in enumerate(paths):
            images[i] = image_io.read_square(path, size=size)
            bar.update(i + 1)
    _write_cache(cache_path, images)
    return images


def _read_cache(path: Path, shape: tuple[int, ...]) -> Images | None:
    try:
        cached = np.lib.format.open_memmap(path, mode="r")
    except Exception:  # there is no such file or it is damaged, for which NumPy has many types of errors
        return None
    return np.array(cached) if cached.shape == shape and cached.dtype == np.uint8 else None


def _write_cache(path: Path, images: Images) -> None:
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, images)
    except OSError:  # a cache that cannot be written to only costs time
        pass


def _cache_path(paths: Sequence[Path], size: int) -> Path:
    fingerprints = [_fingerprint(path) for path in paths]
    key = hashlib.sha256(json.dumps([CACHE_VERSION, size, fingerprints]).encode()).hexdigest()[:32]
    return _download.cache_dir() / "folders" / f"{key}.npy"


def _fingerprint(path: Path) -> tuple[str, int, int, int, int]:
    """What changes with a file's content. The inode tells apart two swapped files of equal size and time."""
    status = path.stat()
    return str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns
