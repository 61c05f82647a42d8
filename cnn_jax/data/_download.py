"""Data sets as local files: from a folder of the user's, or downloaded once, checked, and kept."""

import functools
import os
from pathlib import Path

MIRROR = "CNN_JAX_DATA"


try:
    import pooch
except ImportError as error:
    raise ImportError("cnn_jax.data.cache needs pooch: pip install 'cnn_jax[experiments]'") from error


def folder() -> Path:
    """The user's cache folder, which may not be there yet."""
    return Path(pooch.os_cache("cnn_jax"))


def find(name: str, *, checksum: str, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The local path of a file of a data set that the user has, or None.

    Looks for `name` (such as "omniglot/images.zip") below `data_dir`, or else below the folder that the environment
    variable CNN_JAX_DATA names. `checksum` is "sha256:..." or "md5:...".

    Raises a ValueError for a folder that is not there, or a file with another checksum.
    """
    algorithm, _, expected = checksum.partition(":")
    place = data_dir or os.environ.get(MIRROR)
    if not place:
        return None
    if not Path(place).is_dir():
        raise ValueError(f"{'data_dir' if data_dir else MIRROR}: expected a folder, got {place}")
    path = Path(place) / name
    if not path.is_file():
        return None
    found = pooch.file_hash(str(path), alg=algorithm)
    if found != expected:
        raise ValueError(f"{path}: expected {checksum}, got {algorithm}:{found}")
    return path


def fetch(name: str, *, url: str, checksum: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The local path of a file of a data set: what `find` finds, or else the file in the user's cache.

    What is not there is downloaded; a download that broke off goes on where it stopped, and a file takes its place in
    the cache only when its checksum is right.

    Raises:
      ValueError: the folder is not there; a file was found or downloaded with another checksum.
      ConnectionError: it is not on this machine and cannot be downloaded; the message says where to put it.
    """
    path = find(name, checksum=checksum, data_dir=data_dir)
    if path is not None:
        return path
    place = folder() / name
    resume = functools.partial(_resume, part=place.with_name(f".{place.name}.part"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        kept = pooch.retrieve(url, checksum, place.name, place.parent, downloader=resume)  # pyright: ignore[reportArgumentType]
    except OSError as error:
        hint = f"download it by hand and put it at FOLDER/{name} with {MIRROR}=FOLDER or --data-dir FOLDER"
        raise ConnectionError(f"{name}: cannot be downloaded from {url} ({type(error).__name__}); {hint}") from error
    return Path(kept)


def _resume(url: str, output: str, _: object, *, part: Path) -> None:
    """A downloader for pooch that keeps what came before the connection broke, and asks only for the rest."""
    import requests

    done = part.stat().st_size if part.exists() else 0
    with requests.get(url, headers={"Range": f"bytes={done}-"} if done else {}, stream=True, timeout=30) as answer:
        if answer.status_code != 416:  # 416: nothing is left to send
            answer.raise_for_status()
            with part.open("ab" if answer.status_code == 206 else "wb") as file:
                for chunk in answer.iter_content(1 << 16):
                    file.write(chunk)
    part.replace(output)
