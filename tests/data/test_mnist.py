"""MNIST and its kin: from small files that the tests write, and the published ones where available."""

import gzip
import hashlib
import io
import os
import zipfile

import numpy as np
import pytest

from cnn_jax.data import _download, mnist
from tests.helpers.idx import idx_bytes

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
LABELS = np.array([3, 0, 9, 9, 1], np.uint8)


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Writes a file of a data set and makes its checksum the expected one."""

    def write(name, file, content):
        path = tmp_path / name / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        kind = mnist.CATALOG[name].checksums[file].split(":")[0]
        monkeypatch.setitem(mnist.CATALOG[name].checksums, file, f"{kind}:{hashlib.new(kind, content).hexdigest()}")
        return path

    return write


@pytest.fixture
def mnist_dir(put, tmp_path):
    """A folder with five training images."""
    put("mnist", "train-images-idx3-ubyte.gz", gzip.compress(idx_bytes(IMAGES)))
    put("mnist", "train-labels-idx1-ubyte.gz", gzip.compress(idx_bytes(LABELS)))
    return tmp_path


def test_a_data_set(mnist_dir):
    data = mnist.load("mnist", data_dir=mnist_dir)
    np.testing.assert_array_equal(data.images, IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert (data.labels.dtype, data.classes[3]) == (np.int32, "3")


def test_the_folder_of_the_environment(mnist_dir, monkeypatch):
    monkeypatch.setenv(_download.DATA_DIR_VARIABLE, str(mnist_dir))
    assert len(mnist.load("mnist").labels) == 5


def test_other_files_are_refused(mnist_dir):
    (mnist_dir / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(LABELS[::-1])))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte.gz: expected sha256:"):
        mnist.load("mnist", data_dir=mnist_dir)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:4], r"expected a label for each of the images \(5, 28, 28\), got shape \(4,\)"),
        (LABELS[:, None], "expected a label for each of the images"),
        (np.array([3, 0, 10, 9, 1], np.uint8), "expected labels below 10, got 10 at 2"),
    ],
)
def test_labels_that_do_not_fit(mnist_dir, put, labels, message):
    path = put("mnist", "train-labels-idx1-ubyte.gz", gzip.compress(idx_bytes(labels)))
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        mnist.load("mnist", data_dir=mnist_dir)


def test_emnists_letters_are_upright_and_start_at_0(put, tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for kind, array in (("images-idx3", IMAGES.swapaxes(1, 2)), ("labels-idx1", LABELS + np.uint8(1))):
            archive.writestr(f"gzip/emnist-letters-test-{kind}-ubyte.gz", gzip.compress(idx_bytes(array)))
    path = put("emnist-letters", "gzip.zip", file.getvalue())
    data = mnist.load("emnist-letters", "test", data_dir=tmp_path)
    np.testing.assert_array_equal(data.images, IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.classes[0] == "a"
    with pytest.raises(ValueError, match=rf"{path}, gzip/emnist-letters-train-images-idx3-ubyte.gz: not an IDX file"):
        mnist.load("emnist-letters", "train", data_dir=tmp_path)


def test_a_label_without_class_is_refused(put, tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for kind, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):  # 0 is not a letter
            archive.writestr(f"gzip/emnist-letters-test-{kind}-ubyte.gz", gzip.compress(idx_bytes(array)))
    put("emnist-letters", "gzip.zip", file.getvalue())
    with pytest.raises(ValueError, match="expected labels below 26, got 255 at 1"):
        mnist.load("emnist-letters", "test", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mnists",), "name: expected one of .*got 'mnists'"),
        ((["mnist"],), r"name: expected one of .*got \['mnist'\]"),
        ((None,), "name: expected one of .*got None"),
        (("mnist", "valid"), "split: expected 'train'"),
    ],
)
def test_unknown_names_and_splits(arguments, message):
    with pytest.raises(ValueError, match=message):
        mnist.load(*arguments)


@pytest.mark.skipif(not os.environ.get(_download.DATA_DIR_VARIABLE), reason=f"{_download.DATA_DIR_VARIABLE} is not set")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_data(name):
    train, test = mnist.load(name), mnist.load(name, "test")
    assert (train.images.shape, test.images.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert len(train.classes) == 10
    assert set(np.unique(test.labels)) == set(range(10))
    assert train.images[:, 0, 0].mean() < 1  # the background is 0
