"""Sources: the images and labels of folders and of record files."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data.sources import FolderSource, RecordSource, write_records
from tests.helpers.pictures import CORRUPT, READABLE, SIZE, write_pictures


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return FolderSource(write_pictures(tmp_path_factory.mktemp("pictures") / "all"), size=SIZE)


def png_bytes():
    buffer = io.BytesIO()
    Image.new("L", (5, 5)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_folder_has_a_class_for_each_subfolder(source):
    assert source.classes == ("dark", "light")
    assert len(source) == READABLE + CORRUPT
    for index in (0, 29, READABLE + CORRUPT - 1):
        image, label = source[index]
        assert (image.shape, image.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert source.classes[label] in source.name(index)
        assert label == (image[0, 0, 0] >= 120)


def test_a_corrupt_file_is_named(source):
    index = next(i for i in range(len(source)) if "bad1" in source.name(i))
    with pytest.raises(ValueError, match=r"dark/bad1\.png"):
        source[index]


def test_folders_without_classes_or_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="path: expected a folder with a subfolder for every class, got none"):
        FolderSource(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="path: expected images of every class, got none of empty"):
        FolderSource(tmp_path)


def test_records_are_the_images_of_their_files(source, tmp_path):
    def files():
        for index in range(len(source)):
            with open(source.name(index), "rb") as file:
                yield file.read(), int(source.labels[index])

    assert write_records(tmp_path / "all.array_record", files()) == READABLE + CORRUPT
    records = RecordSource([tmp_path / "all.array_record"], source.classes, size=SIZE)
    assert len(records) == len(source)
    for index in (0, 29, READABLE + CORRUPT - 1):
        np.testing.assert_array_equal(records[index][0], source[index][0])
        assert records[index][1] == source[index][1]
    with pytest.raises(ValueError, match=r"all\.array_record\[30\]: not an image file that can be read"):
        records[30]


def test_a_label_without_a_class_is_refused(tmp_path):
    write_records(tmp_path / "a.array_record", iter([(png_bytes(), 7), (png_bytes(), 0)]))
    source = RecordSource([tmp_path / "a.array_record"], ("only",), size=SIZE)
    with pytest.raises(ValueError, match=r"a\.array_record\[0\]: expected a label from 0 to 0, got 7"):
        source[0]
    assert source[1][0].shape == (SIZE, SIZE, 3)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "other").write_bytes(b"no records at all")
    with pytest.raises(ValueError, match=r"paths: cannot read ArrayRecord files .*other"):
        RecordSource([tmp_path / "other"], ("only",))
    with pytest.raises(FileNotFoundError):
        RecordSource([tmp_path / "none"], ("only",))


def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    with pytest.raises(ImportError, match=r"write_records needs array_record: pip install 'cnn_jax\[stream\]'"):
        write_records(tmp_path / "a", [])
