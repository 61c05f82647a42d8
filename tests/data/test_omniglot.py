"""Omniglot's X's and O's: from a small archive in the same format, and from the real one where available."""

import hashlib
import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import _download, omniglot


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with an archive of three X's and two O's, identified by their gray levels."""
    path = tmp_path / omniglot.NAME
    path.parent.mkdir()
    root = "images_background_small1/Latin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{root}/{omniglot.CHARACTERS['X']}/notes.txt", "not a drawing")
        archive.writestr("images_background_small1/Greek/character24/0.png", "another alphabet")
        for name, character, gray in [
            ("b", omniglot.CHARACTERS["X"], 51),
            ("a", omniglot.CHARACTERS["X"], 0),
            ("c", omniglot.CHARACTERS["X"], 102),
            ("d", omniglot.CHARACTERS["O"], 204),
            ("e", omniglot.CHARACTERS["O"], 255),
            ("f", "character01", 7),
        ]:
            file = io.BytesIO()
            Image.new("L", (105, 105), gray).save(file, "PNG")
            archive.writestr(f"{root}/{character}/{name}.png", file.getvalue())
    monkeypatch.setattr(omniglot, "CHECKSUM", f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")
    return tmp_path


def test_a_small_archive(folder):
    images, labels = omniglot.load_xo(folder)
    assert (images.shape, images.dtype, labels.dtype) == ((5, 105, 105), np.float32, np.int32)
    levels = {(int(label), round(float(image[0, 0]), 3)) for image, label in zip(images, labels, strict=True)}
    assert levels == {(0, -1.0), (0, -0.6), (0, -0.2), (1, 0.6), (1, 1.0)}


def test_the_folder_of_the_environment(folder, monkeypatch):
    monkeypatch.setenv(_download.DATA_DIR_VARIABLE, str(folder))
    assert len(omniglot.load_xo()[0]) == 5


def test_another_archive_is_refused(folder, monkeypatch):
    monkeypatch.setattr(omniglot, "CHECKSUM", "sha256:" + "0" * 64)
    with pytest.raises(ValueError, match="expected sha256:0000"):
        omniglot.load_xo(folder)


@pytest.mark.skipif(not os.environ.get(_download.DATA_DIR_VARIABLE), reason=f"{_download.DATA_DIR_VARIABLE} is not set")
def test_the_real_archive():
    images, labels = omniglot.load_xo()
    assert images.shape == (40, 105, 105)
    np.testing.assert_array_equal(np.bincount(labels), [20, 20])
    assert set(np.unique(images)) == {-1, 1}
    assert np.all(images.mean((1, 2)) > 0.8)  # black strokes on white
    darkest_in_the_middle = images[:, 35:70, 35:70].min((1, 2))
    assert darkest_in_the_middle[labels == 0].max() == -1  # an X crosses there
