"""Images of any format and size, in one folder per class."""

import os
import time
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import image_folder, image_io

COLORS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path):
    """Five images of each color, of several sizes and formats, and files that are not images."""
    root = tmp_path / "images"
    for name, color in COLORS.items():
        (root / name).mkdir(parents=True)
        for i, kind in enumerate(["png", "jpg", "bmp", "PNG", "gif"]):
            Image.new("RGB", (10 + 20 * i, 40 - 5 * i), color).save(root / name / f"{i}.{kind}")
        (root / name / "notes.txt").write_text("not an image")
        (root / name / ".hidden.png").write_text("not an image")
    (root / ".git").mkdir()
    (root / "readme.md").write_text("not a class")
    return root


def load(path, **options):
    return image_folder.load(path, progress=False, **{"size": 8} | options)


def test_classes_and_images(images):
    train, validation = load(images)
    assert train.classes == validation.classes == ("blue", "red")
    assert train.images.dtype == np.uint8
    assert train.images.shape == (8, 8, 8, 3)
    assert validation.images.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(np.bincount(train.labels), [4, 4])
    np.testing.assert_array_equal(np.bincount(validation.labels), [1, 1])
    for part in (train, validation):
        reddish = part.images[..., 0].mean((1, 2)) > 200
        np.testing.assert_array_equal(reddish, part.labels == 1)


def test_the_split_follows_the_seed(images):
    for i in range(5):  # images that differ
        Image.new("L", (8, 8), 50 * i).save(images / "blue" / f"{i}.png")
    validation_sets = [load(images, seed=seed)[1].images.tobytes() for seed in (0, 0, 1, 2, 3)]
    assert validation_sets[0] == validation_sets[1]
    assert len(set(validation_sets)) > 1


def test_the_arrays_are_cached_until_a_file_changes(images, cache, monkeypatch):
    first = load(images)
    assert len(list(cache.rglob("*.npy"))) == 1
    monkeypatch.setattr(image_io, "read_square", None)
    cached = load(images)
    np.testing.assert_array_equal(first[0].images, cached[0].images)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    Image.new("RGB", (9, 9), (0, 255, 0)).save(images / "blue" / "0.png")
    changed = load(images)
    assert len(list(cache.rglob("*.npy"))) == 2
    greenish = [np.sum(part.images[..., 1].mean((1, 2)) > 200) for part in changed]
    assert sum(greenish) == 1


def count_matching(parts):
    """The number of images whose color is that of their class."""
    return sum(np.sum((part.images[..., 0].mean((1, 2)) > 200) == (part.labels == 1)) for part in parts)


@pytest.mark.parametrize("hidden", ["st_ino", "st_ctime_ns"])
def test_swapped_files_are_read_again(images, monkeypatch, hidden):
    """Even if size and time are equal: the inode or the time of the renaming suffices."""
    blue, red = (images / name / "2.bmp" for name in COLORS)
    for path in (blue, red):
        os.utime(path, (1, 1))
    stat = Path.stat

    def stat_without_hidden(path, **options):
        status = stat(path, **options)
        fields = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
        return types.SimpleNamespace(**fields | {hidden: 0})

    monkeypatch.setattr(Path, "stat", stat_without_hidden)
    assert count_matching(load(images)) == 10
    time.sleep(0.02)  # file times have a resolution of some milliseconds
    blue.rename(images / "2.bmp")
    red.rename(blue)
    (images / "2.bmp").rename(red)
    assert count_matching(load(images)) == 8


def test_a_spoiled_cache_is_written_again(images, cache):
    first = load(images)
    (cached,) = cache.rglob("*.npy")
    np.save(cached, np.zeros((3, 8, 8, 3), np.uint8))
    np.testing.assert_array_equal(load(images)[0].images, first[0].images)
    np.save(cached, np.zeros((10, 8, 8, 3), np.int8))
    np.testing.assert_array_equal(load(images)[0].images, first[0].images)
    for spoiled in (b"spoiled", b"", cached.read_bytes()[:-1]):
        cached.write_bytes(spoiled)
        np.testing.assert_array_equal(load(images)[0].images, first[0].images)
    with cached.open("wb") as file:
        np.savez(file, np.zeros((10, 8, 8, 3), np.uint8))
    np.testing.assert_array_equal(load(images)[0].images, first[0].images)
    np.testing.assert_array_equal(np.load(cached).shape, (10, 8, 8, 3))


def test_a_cache_that_cannot_be_written_to_does_no_harm(images, cache):
    cache.write_text("not a folder")
    assert len(load(images)[0].labels) == 8


def test_damaged_images_are_named(images):
    path = images / "red" / "7.png"
    path.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=f"{path}: not a picture"):
        load(images)


def test_classes_without_images_are_named(images):
    (images / "green").mkdir()
    (images / "green" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=f"{images / 'green'}: expected at least two images .*got 0"):
        load(images)


@pytest.mark.parametrize("classes", [(), ("one",)])
def test_too_few_classes(tmp_path, classes):
    for name in classes:
        (tmp_path / "few" / name).mkdir(parents=True)
    (tmp_path / "few").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=r"few: expected a folder for each of at least two classes, got \["):
        load(tmp_path / "few")


def test_other_files_are_ignored(images):
    os.mkfifo(images / "red" / "pipe.png")
    (images / "red" / "loop.png").symlink_to("loop.png")
    (images / "red" / "gone.png").symlink_to("nowhere.png")
    (images / "red" / "folder.png").mkdir()
    (images / "red" / "paper.pdf").write_bytes(b"%PDF")
    assert sum(len(part.labels) for part in load(images)) == 10


def test_images_in_folders_of_a_class_are_ignored(images):
    (images / "green" / "more").mkdir(parents=True)
    with pytest.raises(ValueError, match="got 0; folders in it are ignored"):
        load(images)


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")


@pytest.mark.parametrize("size", [4097, 100_000_000])
def test_sizes_too_large_are_refused_before_anything_is_read(tmp_path, size):
    with pytest.raises(ValueError, match=f"size: expected at most 4096, got {size}"):
        load(tmp_path / "none", size=size)


def test_names_that_are_not_text_stay_distinct(images):
    for name, raw_name in zip(COLORS, (b"\xfe", b"\xff"), strict=True):
        (images / name).rename(images / os.fsdecode(raw_name))
    assert load(images)[0].classes == ("\\xfe", "\\xff")


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0])
def test_bad_shares(images, share):
    with pytest.raises(ValueError, match="validation: expected more than 0 and less than 1"):
        load(images, validation=share)


@pytest.mark.parametrize("share", [None, "0.2", 0.2j, np.array([0.2, 0.3])])
def test_shares_that_are_not_numbers(images, share):
    with pytest.raises(TypeError, match="validation: expected a number, got"):
        load(images, validation=share)


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, "at least 0, got -1"),
        (1.0, TypeError, "an int, got 1.0"),
        (None, TypeError, "an int, got None"),
    ],
)
def test_bad_seeds(images, seed, error, message):
    with pytest.raises(error, match=f"seed: expected {message}"):
        load(images, seed=seed)


def test_every_class_is_in_both_sets(images):
    _, validation = load(images, validation=0.01)
    assert np.bincount(validation.labels).tolist() == [1, 1]
    train, _ = load(images, validation=0.99)
    assert np.bincount(train.labels).tolist() == [1, 1]
