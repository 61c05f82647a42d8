"""Atomic writes: a file is complete or absent."""

import os
import stat

import pytest

from cnn_jax.files import atomic_write


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    with atomic_write(str(path)) as temporary:
        temporary.write_text("new")
        assert (temporary.parent, temporary.suffix) == (path.parent, ".txt")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_failed_block_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_write(path) as temporary:  # noqa: PT012
        temporary.write_text("new")
        raise KeyError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_are_those_of_other_new_files(tmp_path, mask):
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "file") as temporary:
            temporary.write_bytes(b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(OSError, match="file"), atomic_write(tmp_path / "file" / "other"):
        pass
