"""CIFAR-10 from small files in the same format, in a folder and in an archive, and the real files where available."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cnn_jax.data import _download, cifar

NAMES = [name for name in cifar.BATCH_CHECKSUMS if name.startswith("data")]
GENERATOR = np.random.default_rng(0)
RECORDS = {name: GENERATOR.integers(0, 256, (3, cifar.RECORD_BYTES), dtype=np.uint8) for name in cifar.BATCH_CHECKSUMS}
for records in RECORDS.values():
    records[:, 0] %= 10


def md5(content):
    return f"md5:{hashlib.md5(content).hexdigest()}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with small batch files."""
    (tmp_path / cifar.FOLDER).mkdir()
    for name, records in RECORDS.items():
        (tmp_path / cifar.FOLDER / name).write_bytes(records.tobytes())
        monkeypatch.setitem(cifar.BATCH_CHECKSUMS, name, md5(records.tobytes()))
    return tmp_path


@pytest.fixture
def put_archive(tmp_path, monkeypatch):
    """Writes an archive of the given files and makes its checksum the expected one."""

    def write(files):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        content = file.getvalue()
        (tmp_path / cifar.ARCHIVE).write_bytes(content)
        monkeypatch.setattr(cifar, "ARCHIVE_CHECKSUM", md5(content))
        return tmp_path

    return write


def archive_files(**others):
    return {f"{cifar.FOLDER}/{name}": records.tobytes() for name, records in RECORDS.items()} | others


def check(data, names):
    assert (data.images.shape, data.images.dtype) == ((3 * len(names), 32, 32, 3), np.uint8)
    records = np.concatenate([RECORDS[name] for name in names])
    np.testing.assert_array_equal(data.labels, records[:, 0])
    assert data.images[1, 2, 3, 0] == records[1, 1 + 2 * 32 + 3]
    assert data.images[2, 5, 7, 2] == records[2, 1 + 2 * 1024 + 5 * 32 + 7]
    assert data.classes == cifar.CLASSES


@pytest.mark.parametrize(("split", "names"), [("train", NAMES), ("test", ["test_batch.bin"])])
def test_batch_files(folder, split, names):
    check(cifar.load(split, data_dir=folder), names)


@pytest.mark.parametrize(("split", "names"), [("train", NAMES), ("test", ["test_batch.bin"])])
def test_the_archive(put_archive, monkeypatch, split, names):
    monkeypatch.setenv(_download.DATA_DIR_VARIABLE, str(put_archive(archive_files())))
    check(cifar.load(split), names)


def test_the_archive_is_not_unpacked(put_archive):
    """No file is written, whatever the archive contains."""
    folder = put_archive(archive_files(**{"../evil": b"x", "/tmp/evil": b"x"}))
    cifar.load("test", data_dir=folder)
    assert sorted(path.name for path in folder.iterdir()) == [cifar.ARCHIVE]


def test_damaged_archives_are_named(put_archive, monkeypatch):
    folder = put_archive({name: content for name, content in archive_files().items() if "batch_3" not in name})
    with pytest.raises(ValueError, match=rf"{cifar.ARCHIVE}: archive does not contain {cifar.FOLDER}/data_batch_3.bin"):
        cifar.load(data_dir=folder)
    path = folder / cifar.ARCHIVE
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=rf"{cifar.ARCHIVE}: expected md5:"):
        cifar.load(data_dir=folder)
    monkeypatch.setattr(cifar, "ARCHIVE_CHECKSUM", md5(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{cifar.ARCHIVE}: not an archive that can be read"):
        cifar.load(data_dir=folder)


def test_other_files_are_refused(folder):
    path = folder / cifar.FOLDER / "test_batch.bin"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(ValueError, match=r"test_batch.bin: expected md5:"):
        cifar.load("test", data_dir=folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got 0 bytes"),
        (RECORDS["test_batch.bin"].tobytes()[:-1], "got 9,218 bytes"),
        (bytes([10]) + bytes(3072), "expected labels below 10, got 10 at 0"),
        (bytes(cifar.RECORD_BYTES * 10_001), "up to 10,000 records of 3,073 bytes, got 30,730,001 bytes"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    path = tmp_path / "batch.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: .*{message}"):
        cifar.read_batch(path)


def test_unknown_splits():
    with pytest.raises(ValueError, match="split: expected 'train' or 'test', got 'valid'"):
        cifar.load("valid")


REAL_FILE = Path(os.environ.get(_download.DATA_DIR_VARIABLE, "none")) / cifar.FOLDER / "test_batch.bin"


@pytest.mark.skipif(
    not REAL_FILE.is_file(), reason=f"{_download.DATA_DIR_VARIABLE} does not name a folder with CIFAR-10"
)
def test_the_real_data():
    data = cifar.load("test")
    assert data.images.shape == (10000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(data.labels), 1000)
