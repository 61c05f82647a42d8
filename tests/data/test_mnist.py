"""IDX files that the tests write, whole and damaged, and the published data sets where they are at hand."""

import contextlib
import gzip
import hashlib
import io
import os
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_jax.data import _download
from cnn_jax.data import mnist as mnist_files

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
LABELS = np.array([3, 0, 9, 9, 1], np.uint8)


def packed(array, magic=(0, 0, 8)):
    return bytes([*magic, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Writes a file of a data set and makes its checksum the expected one."""

    def write(name, file, content):
        path = tmp_path / name / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        kind = mnist_files.SOURCES[name].checksums[file].split(":")[0]
        monkeypatch.setitem(
            mnist_files.SOURCES[name].checksums, file, f"{kind}:{hashlib.new(kind, content).hexdigest()}"
        )
        return path

    return write


@pytest.fixture
def mnist(put, tmp_path):
    """A folder with five training images."""
    put("mnist", "train-images-idx3-ubyte.gz", gzip.compress(packed(IMAGES)))
    put("mnist", "train-labels-idx1-ubyte.gz", gzip.compress(packed(LABELS)))
    return tmp_path


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3), (1, 2, 3, 4), (0, 2)])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_arrays_come_back(tmp_path, shape, compress):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    (tmp_path / "a").write_bytes(compress(packed(array)))
    got = mnist_files.read_idx(tmp_path / "a")
    np.testing.assert_array_equal(got, array)
    assert got.dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"magic number of 0, 0, 8 and up to 4 axes, got \[\]"),
        (packed(IMAGES, (0, 1, 8)), r"magic number .* got \[0, 1, 8, 3\]"),
        (packed(IMAGES, (0, 0, 13)), r"magic number .* got \[0, 0, 13, 3\]"),
        (bytes([0, 0, 8, 9]), "magic number"),
        (packed(IMAGES)[:9], "it ends within its header"),
        (packed(IMAGES)[:-1], r"expected 3,920 bytes for \(5, 28, 28\), got 3,919"),
        (packed(IMAGES) + b"1", r"expected 3,920 bytes for \(5, 28, 28\), got more"),
        (bytes([0, 0, 8, 2]) + struct.pack(">2I", 2**31, 2**31), "are more than the 2,147,483,648 bytes accepted"),
        (gzip.compress(packed(IMAGES))[:-20], "Compressed file ended"),
        (gzip.compress(packed(IMAGES))[:50] + b"0" * 9999, "CRC check failed"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    path = tmp_path / "images.idx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path}: not an IDX file that can be read \(.*{message}"):
        mnist_files.read_idx(path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        mnist_files.read_idx(tmp_path / "none")


@given(st.binary(max_size=60), st.booleans(), st.booleans())
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, starts_well, compress):
    content = bytes([0, 0, 8, 1]) + content if starts_well else content
    path = tmp_path_factory.getbasetemp() / "any.idx"
    path.write_bytes(gzip.compress(content) if compress else content)
    with contextlib.suppress(ValueError):  # and nothing else
        assert mnist_files.read_idx(path).dtype == np.uint8


def test_a_data_set(mnist):
    data = mnist_files.load("mnist", data_dir=mnist)
    np.testing.assert_array_equal(data.images, IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert (data.labels.dtype, data.classes[3]) == (np.int32, "3")


def test_the_mirror(mnist, monkeypatch):
    monkeypatch.setenv(_download.MIRROR, str(mnist))
    assert len(mnist_files.load("mnist").labels) == 5


def test_other_files_are_refused(mnist):
    (mnist / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(packed(LABELS[::-1])))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte.gz: expected sha256:"):
        mnist_files.load("mnist", data_dir=mnist)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:4], r"expected a label for each of the images \(5, 28, 28\), got shape \(4,\)"),
        (LABELS[:, None], "expected a label for each of the images"),
        (np.array([3, 0, 10, 9, 1], np.uint8), "expected labels below 10, got 10 at 2"),
    ],
)
def test_labels_that_do_not_fit(mnist, put, labels, message):
    path = put("mnist", "train-labels-idx1-ubyte.gz", gzip.compress(packed(labels)))
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        mnist_files.load("mnist", data_dir=mnist)


def test_emnists_letters_stand_upright_and_start_at_0(put, tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for kind, array in (("images-idx3", IMAGES.swapaxes(1, 2)), ("labels-idx1", LABELS + np.uint8(1))):
            archive.writestr(f"gzip/emnist-letters-test-{kind}-ubyte.gz", gzip.compress(packed(array)))
    path = put("emnist-letters", "gzip.zip", file.getvalue())
    data = mnist_files.load("emnist-letters", "test", data_dir=tmp_path)
    np.testing.assert_array_equal(data.images, IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.classes[0] == "a"
    with pytest.raises(ValueError, match=rf"{path}, gzip/emnist-letters-train-images-idx3-ubyte.gz: not an IDX file"):
        mnist_files.load("emnist-letters", "train", data_dir=tmp_path)


def test_a_letter_of_no_class_is_refused(put, tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for kind, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):  # 0 is no letter
            archive.writestr(f"gzip/emnist-letters-test-{kind}-ubyte.gz", gzip.compress(packed(array)))
    put("emnist-letters", "gzip.zip", file.getvalue())
    with pytest.raises(ValueError, match="expected labels below 26, got 255 at 1"):
        mnist_files.load("emnist-letters", "test", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnists",), "name: expected one of .*got 'mnists'"),
        ((["mnist"],), r"name: expected one of .*got \['mnist'\]"),
        ((None,), "name: expected one of .*got None"),
        (("mnist", "valid"), "split: expected 'train'"),
    ],
)
def test_unknown_names(arguments, message):
    with pytest.raises(ValueError, match=message):
        mnist_files.load(*arguments)


@pytest.mark.skipif(not os.environ.get(_download.MIRROR), reason=f"{_download.MIRROR} names no folder with the data")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_data(name):
    train, test = mnist_files.load(name), mnist_files.load(name, "test")
    assert (train.images.shape, test.images.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert len(train.classes) == 10
    assert set(np.unique(test.labels)) == set(range(10))
    assert train.images[:, 0, 0].mean() < 1  # the ground is 0
