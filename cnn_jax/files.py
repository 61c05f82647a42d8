"""Atomic file writes."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_write"]


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

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "reports" / "today.txt"
    ...     with atomic_write(path) as temporary:
    ...         characters = temporary.write_text("all is well")
    ...     path.read_text()
    'all is well'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
