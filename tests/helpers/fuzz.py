"""Bad input by the million: what reads files must end with what it documents, whatever bytes they hold.

    python tests/helpers/fuzz.py TARGET [-max_total_time=600]       needs Atheris; stops at the first other error

Targets: images, idx, cifar, params, npz.
"""

import contextlib
import io
import os
import sys
import tarfile
import tempfile
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["cnn_jax.data", "cnn_jax.serialization", "PIL"]):
    from cnn_jax import serialization
    from cnn_jax.data import _idx, cifar, image_io, npz

FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
DOCUMENTED = (ValueError, OSError)


def on_file(read):
    """What reads a path, as what reads bytes."""

    def target(data):
        path = FOLDER / "file"
        path.write_bytes(data)
        with contextlib.suppress(*DOCUMENTED):
            read(path)

    return target


def read_cifar(path):
    with contextlib.suppress(*DOCUMENTED):
        cifar.read_batch(path)
    cifar._members(path, ["test_batch.bin"])


def seeds():
    """A good file of every kind, to start from."""
    from PIL import Image

    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA"):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        yield "images", buffer.getvalue()
    yield "idx", bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, *range(8)])
    yield "idx", bytes([0, 0, 8, 1, 0, 0, 0, 2, 3, 4])
    record = bytes([3, *[7] * 3072])
    yield "cifar", record
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(f"{cifar.FOLDER}/test_batch.bin")
        member.size = len(record)
        tar.addfile(member, io.BytesIO(record))
    yield "cifar", buffer.getvalue()
    serialization.save_params(FOLDER / "seed", {"a": {"b": np.ones(3, np.float32)}}, net="xo_net", options={"x": [1]})
    yield "params", (FOLDER / "seed").read_bytes()
    buffer = io.BytesIO()
    np.savez(buffer, images=np.zeros((2, 3, 3), np.uint8), labels=np.array(["X", "O"]))
    yield "npz", buffer.getvalue()


def main():
    readers = {"images": image_io.read_image, "idx": _idx.read_idx, "cifar": read_cifar}
    readers |= {"params": serialization.load_params, "npz": npz.load_npz}
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in readers:
        raise SystemExit(f"expected one of {', '.join(readers)}, got {name!r}")
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for i, (kind, data) in enumerate(seeds()):
        if kind == name:
            (corpus / str(i)).write_bytes(data)
    limits = ["-rss_limit_mb=4096", "-timeout=20", "-max_len=8192"]
    atheris.Setup([sys.argv[0], *limits, *sys.argv[2:], str(corpus)], on_file(readers[name]))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
