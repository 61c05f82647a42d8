"""A network for one's own pictures: its model files, damaged ones, and whole runs."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax import nets, save_params
from experiments import folder as experiment
from tests.helpers.cli import FAST_COMPILE, check_report, png, run, run_each

OPTIONS = {"features": 2, "classes": 2}
FILES = {"confusion.png", "curves.png", "features.png", "metrics.json", "model.safetensors", "classes.json"}


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(lambda key: nets.resnet9(**OPTIONS).init(key, (40, 40, 3)), jax.random.key(0))
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)


@pytest.fixture
def model(tmp_path, params):
    """A folder with a model of two classes."""
    experiment.save(tmp_path, params, OPTIONS, ("red", "blue"), 40)
    return tmp_path


def test_a_model_knows_its_classes_and_size(model):
    Image.new("RGB", (10, 20), (255, 0, 0)).save(model / "red.png")
    classifier = experiment.load_model(model)
    assert classifier.classes == ("red", "blue")
    assert classifier.read_file(model / "red.png").shape == (40, 40, 3)


def test_a_model_whose_run_ended_before_its_classes_were_written_is_refused(model, params):
    """The classes file is that of an older model."""
    new_params = jax.tree.map(np.zeros_like, params)
    save_params(model / "model.safetensors", new_params, net="resnet9", options=OPTIONS)
    with pytest.raises(ValueError, match=r"classes.json: does not belong to the model .*safetensors, .* train again"):
        experiment.load_model(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "ab"}, "classes: expected a list of strings"),
        ({"classes": {"a": 1, "b": 2}}, "classes: expected a list of strings"),
        ({"classes": ["a", 1]}, "classes: expected a list of strings"),
        ({"classes": ["a", ["b"]]}, "classes: expected a list of strings"),
        ({"classes": ["a", "a"]}, "classes: expected different names"),
        ({"size": "40"}, "size: expected an int, got '40'"),
        ({"size": 40.0}, "size: expected an int, got 40.0"),
        ({"size": True}, "size: expected at least 32, which the network needs, got True"),
        ({"size": 31}, "size: expected at least 32, which the network needs, got 31"),
        ({"size": 10**8}, "size: expected at most 4096, got 100000000"),
    ],
)
def test_classes_that_no_training_writes_are_refused(model, change, message):
    path = model / "classes.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=rf"classes.json: expected a file of a training run, .* \({message}\)"):
        experiment.load_model(model)


@pytest.mark.parametrize("missing", ["model", "classes", "size"])
def test_a_classes_file_without_a_key_is_refused(model, missing):
    path = model / "classes.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != missing}))
    with pytest.raises(ValueError, match=rf"classes.json: expected a file of a training run, .* \('{missing}'\)"):
        experiment.load_model(model)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"\xff", b"[" * 100_000])
def test_other_files_are_refused(model, content):
    (model / "classes.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"classes.json: expected a file of a training run"):
        experiment.load_model(model)


def test_more_classes_than_logits_are_refused(model, params):
    experiment.save(model, params, OPTIONS, ("a", "b", "c"), 40)
    with pytest.raises(ValueError, match=r"model.safetensors: the parameters do not fit resnet9 with 3 classes"):
        experiment.load_model(model)


def test_a_model_of_another_size_is_refused(model, params):
    experiment.save(model, params, OPTIONS, ("a", "b"), 80)
    with pytest.raises(ValueError, match=r"model.safetensors: the parameters do not fit resnet9"):
        experiment.load_model(model)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which a network was trained to tell red from blue."""
    folder = tmp_path_factory.mktemp("trained")
    generator = np.random.default_rng(0)
    for name, color in {"blue": (20, 20, 200), "red": (200, 20, 20)}.items():
        (folder / "pictures" / name).mkdir(parents=True)
        for i in range(12):
            noise = generator.normal(0, 20, (20 + i, 30, 3))
            png(folder / "pictures" / name / f"{i}.png", np.clip(noise + color, 0, 255).astype(np.uint8))
    words = ["experiments.folder", "pictures", "--steps", "20", "--features", "4"]
    run(folder, *words, environment={"XDG_CACHE_HOME": str(folder / "c"), **FAST_COMPILE})
    return folder


@pytest.mark.slow
def test_a_network_learns_to_tell_ones_own_pictures_apart(trained):
    metrics = json.loads((trained / "runs" / "folder" / "metrics.json").read_text())
    assert (metrics["images"], metrics["trained_on"]) == (4, 20)
    assert metrics["accuracy"] == 1


@pytest.mark.slow
def test_pictures_are_classified_and_unreadable_ones_are_named(trained, tmp_path):
    Image.new("RGB", (50, 40), (210, 10, 30)).save(tmp_path / "a.jpg")
    Image.new("RGB", (9, 70), (10, 10, 180)).save(tmp_path / "b.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    files = ("bad.png", "a.jpg", "b.png", "none.png")
    words = ("experiments.folder", "classify", *files, "--model", trained / "runs" / "folder")
    out, err = run(tmp_path, *words, code=2, environment=FAST_COMPILE)
    first, second = out.splitlines()
    assert first.startswith("a.jpg: red ")
    assert second.startswith("b.png: blue ")
    assert 0.5 < float(first.split()[-1]) <= 1
    assert "bad.png: not a picture" in err
    assert err.splitlines()[-1] == "error: 2 of 4 pictures could not be read"


@pytest.mark.slow
def test_a_smoke_run_learns_and_writes_everything(tmp_path):
    run_each(tmp_path, [("experiments.folder", "--smoke")])
    folder = tmp_path / "runs/folder"
    assert {path.name for path in folder.iterdir()} >= FILES
    assert json.loads((folder / "metrics.json").read_text())["accuracy"] > 0.5  # of three classes that differ much
    check_report(folder, figures=3 + (folder / "mistakes.png").exists())
