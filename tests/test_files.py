"""Paths of this machine, folders that can be written to, and atomic writes: a file is complete or absent."""

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest

import cnn_jax
from cnn_jax.data import cifar, image_folder, image_io, mnist, npz, sources
from cnn_jax.files import atomic_write, local_path, writable_folder

PATHS = {"~": "{home}", "~/run": "{home}/run", "run": "run", "a:b": "a:b", "C:/run": "C:/run", "/a/~": "/a/~"}


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


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.parametrize(("path", "expected"), PATHS.items())
def test_a_leading_tilde_is_the_home_folder(home, path, expected):
    expected_path = Path(expected.format(home=home))
    assert local_path(path) == local_path(Path(path)) == expected_path


@pytest.mark.parametrize(
    "path", ["gs://bucket/run", Path("gs://bucket/run"), "s3://bucket", "file:///tmp/run", "HTTPS://a.org/run"]
)
def test_urls_are_refused_by_name_and_make_no_folder(home, path):
    with pytest.raises(ValueError, match=r"checkpoint_dir: expected a path on this machine, got the URL '\w+:/"):
        local_path(path, name="checkpoint_dir")
    with pytest.raises(ValueError, match="path: expected a path on this machine"), atomic_write(path):
        pass
    with pytest.raises(ValueError, match="path: expected a path on this machine"):
        writable_folder(path)
    assert os.listdir(home.parent) == []


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (3, TypeError, "path: expected a path, got 3"),
        (None, TypeError, "path: expected a path, got None"),
        ("", ValueError, "path: expected a path, got an empty one"),
        ("~no such user/run", ValueError, "path: expected a path, got '~no such user/run'"),
    ],
)
def test_what_is_no_path_is_refused(path, error, message):
    with pytest.raises(error, match=message):
        local_path(path)


def test_files_are_written_to_the_home_folder(home):
    with atomic_write("~/run/file.txt") as temporary:
        temporary.write_text("text")
    assert (home / "run" / "file.txt").read_text() == "text"
    assert os.listdir(home.parent) == ["home"]


def test_a_writable_folder_is_made_and_left_empty(home):
    assert writable_folder("~/a/b") == home / "a" / "b"
    assert writable_folder("~/a/b") == home / "a" / "b"
    assert os.listdir(home / "a" / "b") == []


def test_a_file_in_the_place_of_a_folder_is_found_out(tmp_path):
    (tmp_path / "file").write_text("text")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(OSError, match=r"out: expected a folder that can be written to, got .*file"):
            writable_folder(path, name="out")
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_found_out(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="path: expected a folder that can be written to"):
        writable_folder(tmp_path)


def test_too_little_free_space_is_found_out(tmp_path):
    with pytest.raises(OSError, match=r"out: expected 1,000,000,000,000,000,000 bytes of free space, got [\d,]+ in /"):
        writable_folder(tmp_path, name="out", free_bytes=10**18)
    assert writable_folder(tmp_path, free_bytes=1) == tmp_path


def test_a_full_file_system_is_found_out_and_the_probe_is_removed(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"path: expected a folder that can be written to, got .*No space left"):
        writable_folder(tmp_path)
    assert os.listdir(tmp_path) == []


READERS = {
    "load_params": cnn_jax.load_params,
    "image_folder": image_folder.load,
    "load_npz": npz.load_npz,
    "read_image": image_io.read_image,
    "read_color": image_io.read_color,
    "count_frames": image_io.count_frames,
    "FolderSource": sources.FolderSource,
    "RecordSource": lambda path: sources.RecordSource([path], ("cat", "dog")),
    "cifar": cifar.read_batch,
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_looks_in_the_home_folder_and_refuses_urls(home, name):
    with pytest.raises(FileNotFoundError, match=f"{home}/missing"):
        READERS[name]("~/missing")
    with pytest.raises(ValueError, match="expected a path on this machine, got the URL"):
        READERS[name]("gs://bucket/missing")


def test_the_folder_of_data_sets_may_be_in_the_home_folder(home, monkeypatch):
    monkeypatch.setenv("CNN_JAX_DATA", "~/data")
    with pytest.raises(ValueError, match=f"CNN_JAX_DATA: expected a folder, got {home}/data"):
        mnist.load("mnist")
    with pytest.raises(ValueError, match="data_dir: expected a path on this machine, got the URL 'gs://data'"):
        mnist.load("mnist", data_dir="gs://data")


def test_parameters_are_saved_in_the_home_folder_and_never_in_a_folder_of_a_scheme(home):
    params = {"bias": np.zeros(2, np.float32)}
    cnn_jax.save_params("~/model.safetensors", params)
    assert cnn_jax.load_params("~/model.safetensors").params.keys() == {"bias"}
    with pytest.raises(ValueError, match="path: expected a path on this machine, got the URL 'gs://bucket"):
        cnn_jax.save_params("gs://bucket/model.safetensors", params)
    assert (os.listdir(home), os.listdir(home.parent)) == (["model.safetensors"], ["home"])
