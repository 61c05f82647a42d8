"""Learning from pictures: one's own, errors, the recipe of CIFAR-10, and what the scripts share."""

import functools
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import cnn_jax
from cnn_jax import nets
from cnn_jax.data.dataset import LabeledImages
from cnn_jax.training import Batch
from experiments import cifar10
from experiments._lib import classification, runner
from tests.helpers.cli import FAST_COMPILE, png, run, run_each


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder in which a network learned red from blue."""
    folder = tmp_path_factory.mktemp("own")
    generator = np.random.default_rng(0)
    for name, colour in {"blue": (20, 20, 200), "red": (200, 20, 20)}.items():
        (folder / "pictures" / name).mkdir(parents=True)
        for i in range(12):
            noise = generator.normal(0, 20, (20 + i, 30, 3))
            png(folder / "pictures" / name / f"{i}.png", np.clip(noise + colour, 0, 255).astype(np.uint8))
    words = ["experiments.folder", "pictures", "--steps", "20", "--features", "4"]
    run(folder, *words, environment={"XDG_CACHE_HOME": str(folder / "c"), **FAST_COMPILE})
    return folder


def test_own_pictures(own):
    found = json.loads((own / "runs" / "folder" / "metrics.json").read_text())
    assert (found["images"], found["trained_on"]) == (4, 20)
    assert found["accuracy"] == 1


def test_classify(own, tmp_path):
    Image.new("RGB", (50, 40), (210, 10, 30)).save(tmp_path / "a.jpg")
    Image.new("RGB", (9, 70), (10, 10, 180)).save(tmp_path / "b.png")
    model = own / "runs" / "folder"
    out, _ = run(
        tmp_path, "experiments.folder", "classify", "a.jpg", "b.png", "--model", model, environment=FAST_COMPILE
    )
    first, second = out.splitlines()
    assert first.startswith("a.jpg: red ")
    assert second.startswith("b.png: blue ")
    assert 0.5 < float(first.split()[-1]) <= 1


def test_pictures_that_cannot_be_read_do_not_stop_the_others(own, tmp_path):
    Image.new("RGB", (50, 40), (210, 10, 30)).save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    words = ["experiments.folder", "classify", "bad.png", "a.png", "none.png", "--model", own / "runs" / "folder"]
    out, err = run(tmp_path, *words, code=2, environment=FAST_COMPILE)
    assert out.startswith("a.png: red ")
    assert "bad.png: not a picture" in err
    assert err.splitlines()[-1] == "error: 2 of 3 pictures could not be read"


def test_errors_are_one_line(own, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "classes.json").write_text("{")
    (tmp_path / "one" / "class").mkdir(parents=True)
    other = tmp_path / "other"
    other.mkdir()
    model = (own / "runs" / "folder" / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(model)
    three = {"model": hashlib.sha256(model).hexdigest(), "classes": ["a", "b", "c"], "size": 32}
    (other / "classes.json").write_text(json.dumps(three))
    picture = own / "pictures" / "red" / "0.png"
    expected = {
        ("experiments.folder",): "pictures: expected a folder of folders of pictures, got none",
        ("experiments.folder", "none"): "none: No such file or directory",
        ("experiments.folder", "one"): "expected a folder for each of at least two classes, got ['class']",
        ("experiments.folder", "--smoke", "--out", "file"): "file: ",
        ("experiments.folder", own / "pictures", "--steps", "0"): "--steps: expected at least 1",
        ("experiments.folder", own / "pictures", "--validation", "1"): "validation: expected more than 0",
        ("experiments.folder", "classify"): "pictures: expected at least one file",
        ("experiments.folder", "classify", picture): "runs/folder/classes.json: No such file",
        ("experiments.folder", "classify", picture, "--model", "broken"): "classes.json: not what a training writes",
        ("experiments.folder", "classify", picture, "--model", other): "do not fit resnet9 for 3 classes",
        ("experiments.digits", "--smoke", "--seeds", "0"): "--seeds: expected at least 1",
        ("experiments.folder", "--smoke", "--size", "31"): "size: expected at least 32",
        ("experiments.digits", "--smoke", "--batch-size", "0"): "--batch-size: expected at least 1",
        ("experiments.cifar10", "--smoke", "--seeds", "0"): "--seeds: expected at least 1",
        ("experiments.scores", "--smoke", "--epochs", "0"): "--epochs: expected at least 1",
    }
    for (out, err), message in zip(run_each(tmp_path, expected, code=2), expected.values(), strict=True):
        assert out == ""
        assert len(err.splitlines()) == 1, err
        line = err.strip()
        assert line.startswith("error: ")
        assert message in line


def test_more_images_in_a_batch_than_there_are():
    data = classification.generated(20, 8, 1, "ab")[0]
    assert classification.steps_in(3, data, 6) == 9
    with pytest.raises(ValueError, match="batch_size: expected at most the 20 images to train on, got 21"):
        classification.steps_in(3, data, 21)


def test_statistics_are_of_all_classes(monkeypatch, tmp_path):
    """Whatever the order of the images: here one class comes after the other."""
    monkeypatch.setattr(classification, "CALIBRATED", 10)
    images = np.repeat(np.array([0, 255], np.uint8), 20)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    data = LabeledImages(images, np.repeat(np.arange(2, dtype=np.int32), 20), ("a", "b"))
    net = cnn_jax.Chain(cnn_jax.BatchNorm(), cnn_jax.Flatten(), cnn_jax.Dense(2))
    options = {"optimizer": optax.sgd(0.1), "steps": 1, "batch_size": 40, "key": jax.random.key(0), "progress": False}
    run = runner.Run(tmp_path, tmp_path / "saves", None)
    trained = classification.train(
        run, "one", net, data, augment=classification.vary(lambda key, image: image), **options
    )
    assert float(trained.params["batch_norm1"]["mean"][0]) == pytest.approx(0, abs=1e-6)


CIFAR = nets.airbench_net(features=(8, 8, 8))


def test_the_recipe_of_cifar10_against_numpy():
    """Two steps of every rule, by hand."""
    params = CIFAR.init(jax.random.key(0), (32, 32, 3))
    rule = cifar10.optimizer(10, 2, 100)
    state, update = rule.init(params), jax.jit(rule.update)
    gradient = jax.tree.map(lambda x: jax.random.normal(jax.random.key(1), x.shape), params)
    votes, bias, slow = (np.asarray(params[a][b], np.float64) for a, b in PLACES)
    momentum = np.zeros_like(votes), np.zeros_like(bias), np.zeros_like(slow)
    for step in range(2):
        kernel = np.asarray(params["conv2"]["kernel"], np.float64)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax mixes both
            change, state = update(gradient, state, params)
        params = optax.apply_updates(params, change)
        for i, (place, own, peak, until) in enumerate(
            zip(PLACES, (votes, bias, slow), (0.67, 0.053, 0.053), (10, 10, 6), strict=True)
        ):
            summed = 100 * np.asarray(gradient[place[0]][place[1]]) + 2e-6 * 100 / peak * own
            momentum[i][...] = 0.85 * momentum[i] + summed
            own -= peak * (1 - step / until) * (summed + 0.85 * momentum[i])
            np.testing.assert_allclose(params[place[0]][place[1]], own, rtol=1e-4)
        move = np.asarray(params["conv2"]["kernel"]) - kernel * np.sqrt(8) / np.linalg.norm(kernel)
        values = np.linalg.svd(move.reshape(-1, 8), compute_uv=False) / (0.24 * (1 - step / 10))
        assert values.max() < 1.4
        assert values.min() > 0.4
    first = CIFAR.init(jax.random.key(0), (32, 32, 3))
    np.testing.assert_array_equal(params["conv1"]["kernel"], first["conv1"]["kernel"])
    np.testing.assert_array_equal(params["batch_norm1"]["variance"], 1)


PLACES = ("dense1", "kernel"), ("batch_norm1", "bias"), ("conv1", "bias")


def test_views_of_cifar10():
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    full = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")
    moved = {1: full[:, :4, :4], 0: images, -1: full[:, 2:, 2:]}
    expected = [flipped for by in (0, 1, -1) for flipped in (moved[by], moved[by][:, :, ::-1])]
    for view, pixels in zip(cifar10.VIEWS, expected, strict=True):
        np.testing.assert_array_equal(view(jnp.asarray(images)), pixels)
    assert list(cifar10.VIEWS.values()) == [0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, -1), (-1, 1)])
def test_views_are_moved(down, right):
    images = jnp.arange(2 * 4 * 5, dtype=jnp.float32).reshape(2, 4, 5, 1)
    seen = classification.moved(down, right)(images)
    inside = np.roll(images, (down, right), (1, 2))[:, 1:-1, 1:-1]
    np.testing.assert_array_equal(seen[:, 1:-1, 1:-1], inside)
    np.testing.assert_array_equal(classification.moved(down, right, True)(images), seen[:, :, ::-1])


def test_every_second_epoch_is_mirrored():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    batch = Batch(jnp.asarray(images), jnp.arange(6), jnp.arange(6), jnp.int32(0))
    vary = jax.jit(cifar10.varied(jax.random.key(3)))
    first, second = (vary(jax.random.key(0), batch._replace(epoch=jnp.int32(epoch)))[0] for epoch in (0, 1))
    other = jax.jit(cifar10.varied(jax.random.key(4)))(jax.random.key(0), batch)[0]
    again = vary(jax.random.key(0), batch._replace(epoch=jnp.int32(2)))[0]
    np.testing.assert_array_equal(first, again)
    assert all(np.any(a != b) for a, b in zip(first, second, strict=True))
    assert np.any(first != other)


def test_weights_of_views():
    reader = functools.partial(classification.reader, nets.Flatten(), {})
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 1, 1), dtype=np.uint8)
    views = [lambda x: x, lambda x: -x]
    one, other = (reader([view])(images) for view in views)
    both = reader(views, [0.5, 0.25])(images)
    np.testing.assert_allclose(both, (2 * one + other) / 3, rtol=1e-5)


def test_views_are_averaged():
    reader = functools.partial(classification.reader, nets.Flatten(), {})
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 1, 1), dtype=np.uint8)
    one, other = reader()(images), reader([lambda x: x[:, ::-1]])(images)
    both = reader([lambda x: x, lambda x: x[:, ::-1]])(images)
    np.testing.assert_allclose(reader()(np.asarray(classification.scaled(images))), one, rtol=1e-5)
    np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-5)
    np.testing.assert_allclose(np.exp(one).sum(-1), 1, rtol=1e-5)


def test_labels_are_smoothed():
    loss = classification.smoothed(4, 0.2)
    logits = np.array([0.0, 1.0, 2.0, 3.0], np.float32)
    logs = logits - np.log(np.exp(logits).sum())
    assert float(loss(logits, 2)) == pytest.approx(-(0.8 * logs[2] + 0.05 * logs.sum()), rel=1e-5)


def test_statistics_are_not_learned():
    params = {"batch_norm1": {name: np.ones(4) for name in ("scale", "bias", "mean", "variance")}}
    assert classification.learned_parameters(params) == 8
