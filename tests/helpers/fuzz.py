"""Fuzz targets: functions that read files raise nothing but their documented errors, whatever the bytes.

    python tests/helpers/fuzz.py TARGET [-max_total_time=600]       needs Atheris; stops at the first other error

Targets: images, idx, cifar, params, npz.
"""

import contextlib
import importlib
import io
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

atheris: Any = importlib.import_module("atheris")  # the published type stubs lack instrument_imports

with atheris.instrument_imports(include=["cnn_jax.data", "cnn_jax.serialization", "PIL"]):
    from PIL import Image

    from cnn_jax import serialization
    from cnn_jax.data import _idx, cifar, image_io, npz

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
DOCUMENTED = (ValueError, OSError)
FUZZER_LIMITS = ("-rss_limit_mb=4096", "-timeout=20", "-max_len=8192")


def read_cifar(path: Path) -> None:
    with contextlib.suppress(*DOCUMENTED):
        cifar.read_batch(path)
    cifar._read_archive(path, ["test_batch.bin"])


READERS: dict[str, Callable[[Path], Any]] = {
    "images": image_io.read_image,
    "idx": _idx.read_idx,
    "cifar": read_cifar,
    "params": serialization.load_params,
    "npz": npz.load_npz,
}


def on_bytes(read: Callable[[Path], Any]) -> Callable[[bytes], None]:
    """Makes a fuzz target, a function of bytes, from a function that reads a path."""

    def target(data: bytes) -> None:
        path = FOLDER / "file"
        path.write_bytes(data)
        with contextlib.suppress(*DOCUMENTED):
            read(path)

    return target


def image_seeds() -> Iterator[bytes]:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        yield buffer.getvalue()


def idx_seeds() -> Iterator[bytes]:
    yield bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, *range(8)])
    yield bytes([0, 0, 8, 1, 0, 0, 0, 2, 3, 4])


def cifar_seeds() -> Iterator[bytes]:
    record = bytes([3, *[7] * 3072])
    yield record
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(f"{cifar.FOLDER}/test_batch.bin")
        member.size = len(record)
        tar.addfile(member, io.BytesIO(record))
    yield buffer.getvalue()


def params_seeds() -> Iterator[bytes]:
    path = FOLDER / "seed"
    serialization.save_params(path, {"a": {"b": np.ones(3, np.float32)}}, net="xo_net", options={"x": [1]})
    yield path.read_bytes()


def npz_seeds() -> Iterator[bytes]:
    buffer = io.BytesIO()
    np.savez(buffer, images=np.zeros((2, 3, 3), np.uint8), labels=np.array(["X", "O"]))
    yield buffer.getvalue()


# Valid files to start from.
SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "images": image_seeds,
    "idx": idx_seeds,
    "cifar": cifar_seeds,
    "params": params_seeds,
    "npz": npz_seeds,
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in READERS:
        raise SystemExit(f"expected one of {', '.join(READERS)}, got {name!r}")
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for i, content in enumerate(SEEDS[name]()):
        (corpus / str(i)).write_bytes(content)
    atheris.Setup([sys.argv[0], *FUZZER_LIMITS, *sys.argv[2:], str(corpus)], on_bytes(READERS[name]))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
