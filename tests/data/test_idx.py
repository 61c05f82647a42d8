"""IDX files, whole and damaged."""

import contextlib
import gzip
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_jax.data._idx import read_idx
from tests.helpers.idx import idx_bytes

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3), (1, 2, 3, 4), (0, 2)])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_arrays_come_back(tmp_path, shape, compress):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    (tmp_path / "a").write_bytes(compress(idx_bytes(array)))
    read = read_idx(tmp_path / "a")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"magic number of 0, 0, 8 and up to 4 axes, got \[\]"),
        (idx_bytes(IMAGES, (0, 1, 8)), r"magic number .* got \[0, 1, 8, 3\]"),
        (idx_bytes(IMAGES, (0, 0, 13)), r"magic number .* got \[0, 0, 13, 3\]"),
        (bytes([0, 0, 8, 9]), "magic number"),
        (idx_bytes(IMAGES)[:9], "it ends within its header"),
        (idx_bytes(IMAGES)[:-1], r"expected 3,920 bytes for \(5, 28, 28\), got 3,919"),
        (idx_bytes(IMAGES) + b"1", r"expected 3,920 bytes for \(5, 28, 28\), got more"),
        (bytes([0, 0, 8, 2]) + struct.pack(">2I", 2**31, 2**31), "are more than the 2,147,483,648 bytes accepted"),
        (gzip.compress(idx_bytes(IMAGES))[:-20], "Compressed file ended"),
        (gzip.compress(idx_bytes(IMAGES))[:50] + b"0" * 9999, "CRC check failed"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    path = tmp_path / "images.idx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path}: not an IDX file that can be read \(.*{message}"):
        read_idx(path)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "none")


@given(st.binary(max_size=60), st.booleans(), st.booleans())
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, has_magic, compress):
    content = bytes([0, 0, 8, 1]) + content if has_magic else content
    path = tmp_path_factory.getbasetemp() / "any.idx"
    path.write_bytes(gzip.compress(content) if compress else content)
    with contextlib.suppress(ValueError):  # and nothing else
        assert read_idx(path).dtype == np.uint8


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_member_of_a_zip_archive(tmp_path, compress):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/images", compress(idx_bytes(IMAGES)))
    np.testing.assert_array_equal(read_idx(tmp_path / "a.zip", member="folder/images"), IMAGES)
    with pytest.raises(ValueError, match=r"a\.zip, missing: not an IDX file that can be read"):
        read_idx(tmp_path / "a.zip", member="missing")
