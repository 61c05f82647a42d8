"""Labeled images in an .npz file, and the files that are refused."""

import io
import zipfile

import numpy as np
import pytest

from cnn_jax.data.npz import load_npz

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "letters.npz"


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float64"])
def test_images_come_as_they_are(path, dtype):
    np.savez_compressed(path, images=IMAGES.astype(dtype), labels=["X", "O"], more=[1])
    images, labels = load_npz(path)
    assert images.dtype == dtype
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, ["X", "O"])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(["X", "Ö"], ["X", "Ö"]), ([b"X", b"\xd6"], ["X", "Ö"]), ([3, 14], ["3", "14"]), (["long", ""], ["long", ""])],
)
def test_labels_come_as_text(path, labels, expected):
    np.savez(path, images=IMAGES, labels=labels)
    loaded = load_npz(str(path))[1]
    assert loaded.dtype.kind == "U"
    assert list(loaded) == expected


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, "no array labels"),
        ({"labels": ["X", "O"]}, "no array images"),
        ({"a": IMAGES, "b": ["X", "O"]}, "no array images and labels"),
        ({"images": IMAGES, "labels": np.array(["X", None])}, "pickle"),
        ({"images": np.array([None, 1]), "labels": ["X", "O"]}, "pickle"),
        ({"images": IMAGES[0], "labels": ["X", "O", "X"]}, r"\(3, 4\)"),
        ({"images": IMAGES[..., None], "labels": ["X", "O"]}, r"\(2, 3, 4, 1\)"),
        ({"images": IMAGES[:0], "labels": []}, r"\(0, 3, 4\)"),
        ({"images": IMAGES[:, :0], "labels": ["X", "O"]}, r"\(2, 0, 4\)"),
        ({"images": IMAGES.astype(complex), "labels": ["X", "O"]}, "complex"),
        ({"images": IMAGES.astype(str), "labels": ["X", "O"]}, "<U"),
        ({"images": IMAGES, "labels": ["X"]}, r"expected 2 labels.*\(1,\)"),
        ({"images": IMAGES, "labels": [["X", "O"]]}, r"expected 2 labels.*\(1, 2\)"),
        ({"images": IMAGES, "labels": "X"}, r"expected 2 labels.*\(\)"),
        ({"images": IMAGES, "labels": np.zeros(2, "V3")}, r"expected labels that are text or numbers, got \|V3"),
        ({"images": IMAGES, "labels": np.zeros(2, [("a", int)])}, "expected labels that are text .* got .*'a'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(path, arrays, message):
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=rf"letters\.npz: .*{message}"):
        load_npz(path)


def npz_bytes(labels=("X", "O")):
    file = io.BytesIO()
    np.savez(file, images=IMAGES, labels=labels)
    return file.getvalue()


def npy_bytes(shape, content=b""):
    """An .npy file that declares a shape and holds something else."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + content


def zip_bytes(images, labels=None):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images.npy", images)
        archive.writestr("labels.npy", npy_bytes((2,), b"ab") if labels is None else labels)
    return file.getvalue()


def array_bytes():
    file = io.BytesIO()
    np.save(file, IMAGES)
    return file.getvalue()


def damaged_bytes():
    content = bytearray(npz_bytes())
    start = content.find(bytes(IMAGES))
    content[start : start + 10] = bytes(10)
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an archive",
        array_bytes(),
        npz_bytes()[:-30],
        npz_bytes()[: len(npz_bytes()) // 2],
        damaged_bytes(),
        zip_bytes(b"not an array"),
        zip_bytes(npy_bytes((2, 3, 4), b"short")),
        zip_bytes(npy_bytes((10**8, 10**8, 10**8))),
        zip_bytes(npy_bytes((2, 3, 4), bytes(IMAGES)), b""),
    ],
    ids=["empty", "text", "npy", "cut", "half", "damaged", "no_array", "short", "declares_much", "empty_array"],
)
def test_other_files_are_refused_by_name(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"letters\.npz: not an \.npz"):
        load_npz(path)


def test_files_that_unpack_to_too_much_are_refused_before_unpacking(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", npy_bytes((2, 3, 4), bytes(IMAGES)))
        archive.filelist[0].file_size = 5 * 2**30
    with pytest.raises(ValueError, match=r"letters\.npz: .*unpacks to 5,368,709,120 bytes"):
        load_npz(path)


@pytest.mark.parametrize("fault", ["encrypted", "unknown method"])
def test_archives_of_an_unknown_kind_are_refused_by_name(path, fault):
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in {"images": IMAGES, "labels": np.array(["X", "O"])}.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.save(file, array)
    content = path.read_bytes()
    for mark, flags_offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # local and central headers of members
        offset = flags_offset + 2 * (fault == "unknown method")
        value = bytes([1 if fault == "encrypted" else 77])
        start = -1
        while (start := content.find(mark, start + 1)) >= 0:
            content = content[: start + offset] + value + content[start + offset + 1 :]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"letters\.npz"):
        load_npz(path)


def test_a_missing_file(path):
    with pytest.raises(FileNotFoundError, match=r"letters\.npz"):
        load_npz(path)
