"""Data sets as local files: from a folder of the user's, or downloaded once, checked, and kept."""

import functools
import os
from pathlib import Path

MIRROR = "CNN_JAX_DATA"


def fetch(name: str, *, url: str, sha256: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """The local path of a file of a data set.

    Looks for `name` (such as "omniglot/images.zip") below `data_dir`, or else below the folder that the environment
    variable CNN_JAX_DATA names. What is not there is downloaded into the user's cache; a download that broke off goes
    on where it stopped, and a file takes its place in the cache only when its checksum is right.

    Raises:
      ValueError: a file was found or downloaded whose SHA-256 is not the expected one.
      ConnectionError: it is not on this machine and cannot be downloaded; the message says where to put it.
    """
    try:
        import pooch
    except ImportError as error:
        raise ImportError("cnn_jax.data.cache needs pooch: pip install 'cnn_jax[experiments]'") from error

    for folder in filter(None, (data_dir, os.environ.get(MIRROR))):
        path = Path(folder) / name
        if not path.is_file():
            continue
        found = pooch.file_hash(str(path))
        if found != sha256:
            raise ValueError(f"{path}: expected SHA-256 {sha256}, got {found}")
        return path

    place = pooch.os_cache("cnn_jax") / name
    resume = functools.partial(_resume, part=place.with_name(f".{place.name}.part"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        kept = pooch.retrieve(url, f"sha256:{sha256}", place.name, place.parent, downloader=resume)  # pyright: ignore[reportArgumentType]
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
