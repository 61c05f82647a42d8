"""Paths of this machine, folders that can be written to, and atomic file writes."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ._errors import describe

__all__ = ["atomic_write", "local_path", "writable_folder"]

# `Path` drops one slash of "gs://". A single letter is a drive of Windows.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
PROBE_BYTES = bytes(256)


def local_path(path: str | os.PathLike[str], *, name: str = "path") -> Path:
    """The path of a file or folder on this machine. A leading `~` becomes the user's home folder.

    Args:
      path: a path, which need not exist.
      name: the argument's name, for error messages.

    Raises:
      ValueError: the path is empty or a URL, or names an unknown user's home folder.
      TypeError: it is not a path.

    Example:

    >>> local_path("~/runs") == Path.home() / "runs"
    True
    >>> local_path("gs://bucket/runs", name="checkpoint_dir")
    Traceback (most recent call last):
    ValueError: checkpoint_dir: expected a path on this machine, got the URL 'gs://bucket/runs'; mount it as a folder,
    or copy the files
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"{name}: expected a path, got {describe(path)}") from None
    if not text:
        raise ValueError(f"{name}: expected a path, got an empty one")
    if URL.match(text):
        hint = "mount it as a folder, or copy the files"
        raise ValueError(f"{name}: expected a path on this machine, got the URL {text!r}; {hint}")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name}: expected a path, got {text!r} ({error})") from None


def writable_folder(path: str | os.PathLike[str], *, name: str = "path", free_bytes: int = 0) -> Path:
    """A folder that can be written to: it is created if needed, and a file is written to it and deleted.

    Args:
      path: the folder.
      name: the argument's name, for error messages.
      free_bytes: the least free space that its file system must have.

    Returns:
      The folder's path, as `local_path` returns it.

    Raises:
      OSError: the folder cannot be created or written to, or has less free space; the message names it.
      ValueError, TypeError: as `local_path`.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     folder = writable_folder(os.path.join(parent, "run"))
    ...     list(folder.iterdir())
    []
    """
    folder = local_path(path, name=name)
    probe = folder / f".{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with probe.open("xb") as file:
                file.write(PROBE_BYTES)
                file.flush()
                os.fsync(file.fileno())  # some file systems find out only now that they are full
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"{name}: expected a folder that can be written to, got {folder} ({reason})") from error
    free = shutil.disk_usage(folder).free
    if free < free_bytes:
        raise OSError(f"{name}: expected {free_bytes:,} bytes of free space, got {free:,} in {folder}")
    return folder


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path to write to, and renames it to `path` when the block ends.

    The file at `path` is therefore complete or absent, whatever happens. If the block raises, the temporary file is
    removed and an older file at `path` stays. The temporary file is in the same folder and has the same suffix.
    Missing folders are created.

    Args:
      path: the file to write.

    Raises:
      OSError: the folder cannot be created or written to.
      ValueError, TypeError: as `local_path`.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "reports" / "today.txt"
    ...     with atomic_write(path) as temporary:
    ...         characters = temporary.write_text("all is well")
    ...     path.read_text()
    'all is well'
    """
    target = local_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{secrets.token_hex(8)}{target.suffix}")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
