"""Files of data sets: found in a local folder, or downloaded once, verified and cached."""

import functools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from .._optional import optional_import
from ..files import local_path

with optional_import(needed_by="cnn_jax.data", extra="data"):
    import pooch

# The environment variable that names the user's folder of data sets.
DATA_DIR_VARIABLE = "CNN_JAX_DATA"
CHUNK_BYTES = 1 << 16
TIMEOUT_SECONDS = 30
# HTTP status codes.
PARTIAL_CONTENT = 206
RANGE_NOT_SATISFIABLE = 416


def cache_dir() -> Path:
    """The user's cache folder of this package, which may not exist yet."""
    return Path(pooch.os_cache("cnn_jax"))


def find_local(name: str, *, checksum: str, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The path of a data file that the user has, or None.

    Args:
      name: path of the file below the folder, such as "omniglot/images.zip".
      checksum: "sha256:..." or "md5:...".
      data_dir: the folder; by default the one that the environment variable CNN_JAX_DATA names.

    Raises:
      ValueError: the folder does not exist, or the file has another checksum.
    """
    given = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    if not given:
        return None
    argument = "data_dir" if data_dir else DATA_DIR_VARIABLE
    folder = local_path(given, name=argument)
    if not folder.is_dir():
        raise ValueError(f"{argument}: expected a folder, got {folder}")
    path = folder / name
    if not path.is_file():
        return None
    algorithm, _, expected_hash = checksum.partition(":")
    file_hash = pooch.file_hash(str(path), alg=algorithm)
    if file_hash != expected_hash:
        raise ValueError(f"{path}: expected {checksum}, got {algorithm}:{file_hash}")
    return path


def fetch(name: str, *, url: str, checksum: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The path of a data file: the user's, by `find_local`, or else the one in the user's cache.

    A file that is missing in both is downloaded. Interrupted downloads are resumed, and a file enters the cache only if
    its checksum is right.

    Args:
      name: path of the file below the folder and below the cache.
      url: where to download it.
      checksum: "sha256:..." or "md5:...".
      data_dir: the user's folder; by default the one that the environment variable CNN_JAX_DATA names.

    Raises:
      ValueError: the folder does not exist, or a local or downloaded file has another checksum.
      ConnectionError: the file is not available locally and the download fails; the message says where to put it.
    """
    local_path = find_local(name, checksum=checksum, data_dir=data_dir)
    if local_path is not None:
        return local_path
    cached_path = cache_dir() / name
    part = cached_path.with_name(f".{cached_path.name}.part")
    download = functools.partial(_resume_download, part=part)
    try:
        cached_path.parent.mkdir(parents=True, exist_ok=True)
        # Pooch annotates its downloaders with other parameter names than its documentation has.
        path = pooch.retrieve(url, checksum, cached_path.name, cached_path.parent, downloader=download)  # pyright: ignore[reportArgumentType]
    except OSError as error:
        hint = f"download it by hand and put it at FOLDER/{name} with {DATA_DIR_VARIABLE}=FOLDER or --data-dir FOLDER"
        raise ConnectionError(f"{name}: cannot be downloaded from {url} ({type(error).__name__}); {hint}") from error
    return Path(path)


def _resume_download(url: str, output: str, _: object, *, part: Path) -> None:
    """A downloader for Pooch that keeps the bytes of an interrupted download in `part` and requests only the others."""
    import requests  # imported here: it is slow to import, and files are rarely downloaded

    bytes_done = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={bytes_done}-"} if bytes_done else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code != RANGE_NOT_SATISFIABLE:  # the answer if `part` is complete already
            response.raise_for_status()
            mode = "ab" if response.status_code == PARTIAL_CONTENT else "wb"
            _write_chunks(part, mode, response.iter_content(CHUNK_BYTES))
    part.replace(output)


def _write_chunks(path: Path, mode: Literal["ab", "wb"], chunks: Iterable[bytes]) -> None:
    with path.open(mode) as file:
        for chunk in chunks:
            file.write(chunk)
