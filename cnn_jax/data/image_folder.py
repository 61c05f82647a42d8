"""Pictures of one's own: a folder for every class, files of any kind and size in it."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from ..files import atomic_write
from ..progress import Progress
from . import _download, image_io
from .dataset import LabeledImages, train_val_split, validation_mask

DECODING = 2  # to be raised when pictures are read in another way
KINDS = frozenset(end for end, kind in image_io.Image.registered_extensions().items() if kind in image_io.FORMATS)


def load(
    folder: str | os.PathLike[str], *, size: int = 32, validation: float = 0.2, seed: int = 0, progress: bool = True
) -> tuple[LabeledImages, LabeledImages]:
    """Reads `folder/CLASS/PICTURE` and splits each class at random: a part to train on and a part to choose by.

    Pictures are made square, (size, size, 3) uint8: the shorter side is scaled and the middle cut out. The arrays are
    kept in the user's cache, from which nothing is removed, and read from there while no file changes. Hidden files and
    other kinds are passed over.

    Args:
      folder: the folder of folders; classes are in alphabetical order.
      size: rows and columns of every picture, up to 4096.
      validation: the share of every class in the second part, at least one picture.
      seed: of the split.
      progress: show a bar on stderr.

    Raises:
      ValueError: fewer than two classes, a class of fewer than two pictures, a file that is no picture, a size, share
        or seed that cannot be; the message names it.
      TypeError: a size or seed that is no int, a share that is no number.
      OSError: the folder or a file cannot be read.
    """
    size, folder = image_io.check_size(size), Path(folder)
    names = classes(folder)
    if len(names) < 2:
        raise ValueError(f"{folder}: expected a folder for each of at least two classes, got {list(names)}")
    files = {name: pictures(folder / name) for name in names}
    for name, own in files.items():
        if len(own) < 2:
            inside = "; folders in it are not looked into" if any(p.is_dir() for p in (folder / name).iterdir()) else ""
            raise ValueError(
                f"{folder / name}: expected at least two pictures, one to choose by, got {len(own)}{inside}"
            )
    paths = [path for own in files.values() for path in own]
    labels = np.repeat(np.arange(len(names), dtype=np.int32), [len(own) for own in files.values()])
    validation_mask(labels, validation, seed=seed)  # a share that cannot be is refused before all is read
    return train_val_split(
        LabeledImages(_cached(paths, size, progress), labels, tuple(map(_text, names))), validation, seed=seed
    )


def _text(name: str) -> str:
    """A file's name as text that can be written, whatever bytes it is made of."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def classes(folder: Path) -> tuple[str, ...]:
    """The names of the folders in a folder, in alphabetical order, but for hidden ones."""
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))


def pictures(folder: Path) -> list[Path]:
    """The picture files in a folder, in alphabetical order."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in KINDS and not path.name.startswith(".") and path.is_file()
    )


def _cached(paths: list[Path], size: int, progress: bool) -> np.ndarray:
    states = [_state(path) for path in paths]
    name = hashlib.sha256(json.dumps([DECODING, size, states]).encode()).hexdigest()[:32]
    kept = _download.folder() / "folders" / f"{name}.npy"
    out = np.empty((len(paths), size, size, 3), np.uint8)
    try:
        found = np.lib.format.open_memmap(kept, mode="r")
        if found.shape == out.shape and found.dtype == out.dtype:
            return np.array(found)
    except Exception:  # NumPy has many for a damaged file
        pass  # not there yet, or not whole
    with Progress("reading", len(paths), show=progress) as bar:
        for i, path in enumerate(paths):
            out[i] = image_io.read_square(path, size=size)
            bar.update(i + 1)
    try:
        with atomic_write(kept) as temporary, temporary.open("wb") as file:
            np.save(file, out)
    except OSError:
        pass  # a cache that cannot be written to only costs time
    return out


def _state(path: Path) -> tuple[str, int, int, int, int]:
    """What changes with a file: two that change places may be of one size and time, but are not the same file."""
    found = path.stat()
    return str(path.absolute()), found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns
