"""Models of `experiments.folder`: what a training writes, and damaged files."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax import nets, save_params
from experiments import folder as experiment

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


def test_a_model_knows_its_classes_and_size(model, tmp_path):
    Image.new("RGB", (10, 20), (255, 0, 0)).save(tmp_path / "red.png")
    _, open_image, classes = experiment.load_model(model)
    assert classes == ("red", "blue")
    assert open_image(tmp_path / "red.png").shape == (40, 40, 3)


def test_a_model_whose_run_ended_before_its_classes_were_written(model, params):
    """The classes file is that of an older model."""
    new_params = jax.tree.map(np.zeros_like, params)
    save_params(model / "model.safetensors", new_params, net="resnet9", options=OPTIONS)
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
def test_files_that_are_not_classes(model, content):
    (model / "classes.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"classes.json: not what a training writes"):
        experiment.load_model(model)


def test_more_classes_than_logits(model, params):
    experiment.save(model, params, OPTIONS, ("a", "b", "c"), 40)
    with pytest.raises(ValueError, match=r"model.safetensors: parameters that do not fit resnet9 for 3 classes"):
        experiment.load_model(model)


def test_a_model_of_another_size(model, params):
    experiment.save(model, params, OPTIONS, ("a", "b"), 80)
    with pytest.raises(ValueError, match=r"model.safetensors: parameters that do not fit resnet9"):
        experiment.load_model(model)
