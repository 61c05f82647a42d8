"""One's own pictures, of any kind and size, a folder for each class."""

import json
import os
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax import nets, save_params
from cnn_jax.data import image_folder, image_io
from cnn_jax.data.dataset import LabeledImages, train_val_split
from experiments import folder as experiment

COLORS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures(tmp_path):
    """Five pictures of each colour, of several sizes and kinds, and files that are none."""
    root = tmp_path / "pictures"
    for name, colour in COLORS.items():
        (root / name).mkdir(parents=True)
        for i, kind in enumerate(["png", "jpg", "bmp", "PNG", "gif"]):
            Image.new("RGB", (10 + 20 * i, 40 - 5 * i), colour).save(root / name / f"{i}.{kind}")
        (root / name / "notes.txt").write_text("no picture")
        (root / name / ".hidden.png").write_text("no picture")
    (root / ".git").mkdir()
    (root / "readme.md").write_text("no class")
    return root


def load(path, **options):
    return image_folder.load(path, progress=False, **{"size": 8} | options)


def test_classes_and_pictures(pictures):
    train, chosen = load(pictures)
    assert train.classes == chosen.classes == ("blue", "red")
    assert (train.images.shape, chosen.images.shape, train.images.dtype) == ((8, 8, 8, 3), (2, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(np.bincount(train.labels), [4, 4])
    np.testing.assert_array_equal(np.bincount(chosen.labels), [1, 1])
    for part in (train, chosen):
        reddish = part.images[..., 0].mean((1, 2)) > 200
        np.testing.assert_array_equal(reddish, part.labels == 1)


def test_the_split_follows_the_seed(pictures):
    for i in range(5):  # pictures that differ
        Image.new("L", (8, 8), 50 * i).save(pictures / "blue" / f"{i}.png")
    sets = [load(pictures, seed=seed)[1].images.tobytes() for seed in (0, 0, 1, 2, 3)]
    assert sets[0] == sets[1]
    assert len(set(sets)) > 1


def test_the_arrays_are_kept_while_no_file_changes(pictures, cache, monkeypatch):
    first = load(pictures)
    assert len(list(cache.rglob("*.npy"))) == 1
    monkeypatch.setattr(image_io, "read_square", None)
    again = load(pictures)
    np.testing.assert_array_equal(first[0].images, again[0].images)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    Image.new("RGB", (9, 9), (0, 255, 0)).save(pictures / "blue" / "0.png")
    changed = load(pictures)
    assert len(list(cache.rglob("*.npy"))) == 2
    greenish = [np.sum(part.images[..., 1].mean((1, 2)) > 200) for part in changed]
    assert sum(greenish) == 1


def of_their_colour(parts):
    return sum(np.sum((part.images[..., 0].mean((1, 2)) > 200) == (part.labels == 1)) for part in parts)


@pytest.mark.parametrize("alike", ["st_ino", "st_ctime_ns"])
def test_files_that_change_places_are_read_again(pictures, monkeypatch, alike):
    """Though of one size and time: either their number or the time of the renaming is enough."""
    blue, red = (pictures / name / "2.bmp" for name in COLORS)
    for path in (blue, red):
        os.utime(path, (1, 1))
    stat = Path.stat

    def blurred(path, **options):
        found = stat(path, **options)
        known = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
        return types.SimpleNamespace(**known | {alike: 0})

    monkeypatch.setattr(Path, "stat", blurred)
    assert of_their_colour(load(pictures)) == 10
    time.sleep(0.02)  # the times of files go on in steps of some milliseconds
    blue.rename(pictures / "2.bmp")
    red.rename(blue)
    (pictures / "2.bmp").rename(red)
    assert of_their_colour(load(pictures)) == 8


def test_a_spoilt_cache_is_written_again(pictures, cache):
    first = load(pictures)
    (kept,) = cache.rglob("*.npy")
    np.save(kept, np.zeros((3, 8, 8, 3), np.uint8))
    np.testing.assert_array_equal(load(pictures)[0].images, first[0].images)
    np.save(kept, np.zeros((10, 8, 8, 3), np.int8))
    np.testing.assert_array_equal(load(pictures)[0].images, first[0].images)
    for spoilt in (b"spoilt", b"", kept.read_bytes()[:-1]):
        kept.write_bytes(spoilt)
        np.testing.assert_array_equal(load(pictures)[0].images, first[0].images)
    with kept.open("wb") as file:
        np.savez(file, np.zeros((10, 8, 8, 3), np.uint8))
    np.testing.assert_array_equal(load(pictures)[0].images, first[0].images)
    np.testing.assert_array_equal(np.load(kept).shape, (10, 8, 8, 3))


def test_a_cache_that_cannot_be_written_to_does_no_harm(pictures, cache):
    cache.write_text("no folder")
    assert len(load(pictures)[0].labels) == 8


def test_damaged_pictures_are_named(pictures):
    path = pictures / "red" / "7.png"
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=f"{path}: not a picture"):
        load(pictures)


def test_classes_without_pictures_are_named(pictures):
    (pictures / "green").mkdir()
    (pictures / "green" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=f"{pictures / 'green'}: expected at least two pictures.*got 0"):
        load(pictures)


@pytest.mark.parametrize("classes", [(), ("one",)])
def test_too_few_classes(tmp_path, classes):
    for name in classes:
        (tmp_path / "few" / name).mkdir(parents=True)
    (tmp_path / "few").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=r"few: expected a folder for each of at least two classes, got \["):
        load(tmp_path / "few")


def test_what_is_no_file_of_its_own_is_passed_over(pictures):
    os.mkfifo(pictures / "red" / "pipe.png")
    (pictures / "red" / "loop.png").symlink_to("loop.png")
    (pictures / "red" / "gone.png").symlink_to("nowhere.png")
    (pictures / "red" / "folder.png").mkdir()
    (pictures / "red" / "paper.pdf").write_bytes(b"%PDF")
    assert sum(len(part.labels) for part in load(pictures)) == 10


def test_pictures_in_folders_of_a_class_are_not_seen(pictures):
    (pictures / "green" / "more").mkdir(parents=True)
    with pytest.raises(ValueError, match="got 0; folders in it are not looked into"):
        load(pictures)


def test_nothing_is_run_to_read_a_picture(tmp_path, monkeypatch):
    """Whatever a file is called, PostScript is not handed to an interpreter."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match=r"a.png: not a picture"):
        image_io.read_square(tmp_path / "a.png", size=8)
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")


@pytest.mark.parametrize("size", [4097, 100_000_000])
def test_sizes_too_large_are_refused_before_anything_is_read(tmp_path, size):
    for read in (load, image_io.read_square):
        with pytest.raises(ValueError, match=f"size: expected at most 4096, got {size}"):
            read(tmp_path / "none", size=size)


def test_the_largest_size():
    assert image_io.check_size(4096) == 4096


def test_names_that_are_no_text_stay_apart(pictures):
    for name, other in zip(COLORS, (b"\xfe", b"\xff"), strict=True):
        (pictures / name).rename(pictures / os.fsdecode(other))
    assert load(pictures)[0].classes == ("\\xfe", "\\xff")


@pytest.mark.parametrize("share", [0, 1, -0.1, 2])
def test_bad_shares(pictures, share):
    with pytest.raises(ValueError, match="validation: expected more than 0 and less than 1"):
        load(pictures, validation=share)


@pytest.mark.parametrize("share", [None, "0.2", 0.2j, np.array([0.2, 0.3])])
def test_shares_that_are_no_numbers(pictures, share):
    with pytest.raises(TypeError, match="validation: expected a number, got"):
        load(pictures, validation=share)


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, "at least 0, got -1"),
        (1.0, TypeError, "an int, got 1.0"),
        (None, TypeError, "an int, got None"),
    ],
)
def test_bad_seeds(pictures, seed, error, message):
    with pytest.raises(error, match=f"seed: expected {message}"):
        load(pictures, seed=seed)


@pytest.mark.parametrize("count", [1, 3])
def test_more_or_fewer_labels_than_images(count):
    data = LabeledImages(np.zeros((2, 4, 4), np.uint8), np.zeros(count, np.int32), ("a",))
    with pytest.raises(ValueError, match=f"data: expected a label for each of 2 images, got {count}"):
        train_val_split(data, 0.5)


def test_every_class_has_something_to_be_chosen_by(pictures):
    _, chosen = load(pictures, validation=0.01)
    assert np.bincount(chosen.labels).tolist() == [1, 1]
    train, _ = load(pictures, validation=0.99)
    assert np.bincount(train.labels).tolist() == [1, 1]


def test_the_split_has_everything_once(pictures):
    train, _ = load(pictures)
    both = train_val_split(train, 0.5, seed=3)
    assert sum(len(part.labels) for part in both) == len(train.labels)


def test_squares(tmp_path):
    """The middle of the longer side stays, transparent becomes white, deep grey keeps its range."""
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert image_io.read_square(tmp_path / "wide.png", size=4).min() == 255
    Image.fromarray(np.zeros((4, 4, 4), np.uint8)).save(tmp_path / "clear.png")
    assert image_io.read_square(tmp_path / "clear.png", size=2).min() == 255
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "deep.png")
    assert image_io.read_square(tmp_path / "deep.png", size=2).min() == 255
    with pytest.raises(ValueError, match="size: expected at least 1"):
        image_io.read_square(tmp_path / "deep.png", size=0)


OPTIONS = {"features": 2, "classes": 2}


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(lambda key: nets.resnet9(**OPTIONS).init(key, (40, 40, 3)), jax.random.key(0))
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)


@pytest.fixture
def model(tmp_path, params):
    """A folder with a model that tells two classes apart."""
    experiment.save(tmp_path, params, OPTIONS, ("red", "blue"), 40)
    return tmp_path


def test_a_model_knows_its_classes_and_size(model, pictures):
    _, open_one, classes = experiment.load_model(model)
    assert classes == ("red", "blue")
    assert open_one(pictures / "red" / "0.png").shape == (40, 40, 3)


def test_a_model_whose_run_ended_before_its_classes_were_written(model, params):
    """The classes that are there are those of an older one."""
    other = jax.tree.map(np.zeros_like, params)
    save_params(model / "model.safetensors", other, net="resnet9", options=OPTIONS)
    with pytest.raises(ValueError, match=r"classes.json: not of the model .*model.safetensors, .* train again"):
        experiment.load_model(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "ab"}, "classes: expected a list of texts"),
        ({"classes": {"a": 1, "b": 2}}, "classes: expected a list of texts"),
        ({"classes": ["a", 1]}, "classes: expected a list of texts"),
        ({"classes": ["a", ["b"]]}, "classes: expected a list of texts"),
        ({"classes": ["a", "a"]}, "classes: expected no name twice"),
        ({"size": "40"}, "size: expected an int, got '40'"),
        ({"size": 40.0}, "size: expected an int, got 40.0"),
        ({"size": True}, "size: expected at least 32, which the network needs, got True"),
        ({"size": 31}, "size: expected at least 32, which the network needs, got 31"),
        ({"size": 10**8}, "size: expected at most 4096, got 100000000"),
    ],
)
def test_classes_that_no_training_writes(model, change, message):
    path = model / "classes.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=rf"classes.json: not what a training writes \({message}\)"):
        experiment.load_model(model)


@pytest.mark.parametrize("missing", ["model", "classes", "size"])
def test_classes_that_lack_something(model, missing):
    path = model / "classes.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != missing}))
    with pytest.raises(ValueError, match=rf"classes.json: not what a training writes \('{missing}'\)"):
        experiment.load_model(model)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"\xff", b"[" * 100_000])
def test_what_are_no_classes(model, content):
    (model / "classes.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"classes.json: not what a training writes"):
        experiment.load_model(model)


def test_more_classes_than_votes(model, params):
    experiment.save(model, params, OPTIONS, ("a", "b", "c"), 40)
    with pytest.raises(ValueError, match=r"model.safetensors: parameters that do not fit resnet9 for 3 classes"):
        experiment.load_model(model)


def test_a_model_of_another_size(model, params):
    experiment.save(model, params, OPTIONS, ("a", "b"), 80)
    with pytest.raises(ValueError, match=r"model.safetensors: parameters that do not fit resnet9"):
        experiment.load_model(model)
