"""The scripts that learn from pictures, run as a user runs them: first tries, one's own pictures, errors."""

import json

import numpy as np
import pytest
from PIL import Image
from scripts import png, run, run_each

from cnn_jax import load_params, nets
from experiments import digits, learning, scores

FIGURES = {"confusion.png", "curves.png", "features.png", "metrics.json"}


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_first_tries_of_digits(tmp_path):
    lines = [["experiments.digits", "--smoke", "--net", net, "--out", net] for net in digits.RECIPES]
    lines[1] += ["--seeds", "2", "--data", "emnist-letters"]
    answers = run_each(tmp_path, lines)
    for net, (out, _) in zip(digits.RECIPES, answers, strict=True):
        found = metrics(tmp_path / net)
        assert {path.name for path in (tmp_path / net).iterdir()} >= FIGURES | {"model_0.safetensors"}
        assert f"{100 * found['accuracy']:.2f} %" in out
        assert found["accuracy"] == pytest.approx(np.mean(found["accuracies"]))
        saved = load_params(tmp_path / net / "model_0.safetensors")
        assert getattr(nets, saved.net)(**saved.options)
    assert len(metrics(tmp_path / "compact")["accuracies"]) == 2


def test_first_tries_of_the_others(tmp_path):
    names = ["cifar10", "folder", "scores"]
    run_each(tmp_path, [[f"experiments.{name}", "--smoke"] for name in names])
    for name in names[:2]:
        found = metrics(tmp_path / "runs" / name)
        assert {path.name for path in (tmp_path / "runs" / name).iterdir()} >= FIGURES
        assert found["accuracy"] > 0.5  # three or ten classes that differ much
    found = metrics(tmp_path / "runs" / "scores")
    assert list(found["kinds"]) == list(scores.KINDS)
    assert (tmp_path / "runs" / "scores" / "robustness.png").is_file()
    zncc = found["kinds"]["zncc"]["robustness"]
    assert np.ptp(zncc["brightness"] + zncc["contrast"]) < 0.02  # what zncc is for
    sizes = [row["parameters"] for row in found["kinds"].values()]
    assert max(sizes) < 1.02 * min(sizes)


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
    run(folder, "experiments.folder", "pictures", "--steps", "20", "--features", "4", XDG_CACHE_HOME=str(folder / "c"))
    return folder


def test_own_pictures(own):
    found = metrics(own / "runs" / "folder")
    assert (found["images"], found["trained_on"]) == (4, 20)
    assert found["accuracy"] == 1


def test_classify(own, tmp_path):
    Image.new("RGB", (50, 40), (210, 10, 30)).save(tmp_path / "a.jpg")
    Image.new("RGB", (9, 70), (10, 10, 180)).save(tmp_path / "b.png")
    model = own / "runs" / "folder"
    out, _ = run(tmp_path, "experiments.folder", "classify", "a.jpg", "b.png", "--model", model)
    first, second = out.splitlines()
    assert first.startswith("a.jpg: red ")
    assert second.startswith("b.png: blue ")
    assert 0.5 < float(first.split()[-1]) <= 1


def test_pictures_that_cannot_be_read_do_not_stop_the_others(own, tmp_path):
    Image.new("RGB", (50, 40), (210, 10, 30)).save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    words = ["experiments.folder", "classify", "bad.png", "a.png", "none.png", "--model", own / "runs" / "folder"]
    out, err = run(tmp_path, *words, code=2)
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
    (other / "classes.json").write_text('{"classes": ["a", "b", "c"], "size": 32}')
    (other / "model.safetensors").write_bytes((own / "runs" / "folder" / "model.safetensors").read_bytes())
    picture = own / "pictures" / "red" / "0.png"
    expected = {
        ("experiments.folder",): "pictures: expected a folder of folders of pictures, got none",
        ("experiments.folder", "none"): "none: No such file or directory",
        ("experiments.folder", "one"): "expected a folder for each of at least two classes, got ['class']",
        ("experiments.folder", "--smoke", "--out", "file"): "file: ",
        ("experiments.folder", own / "pictures", "--steps", "0"): "steps: expected at least 1",
        ("experiments.folder", own / "pictures", "--validation", "1"): "share: expected more than 0",
        ("experiments.folder", "classify"): "pictures: expected at least one file",
        ("experiments.folder", "classify", picture): "runs/folder/classes.json: No such file",
        ("experiments.folder", "classify", picture, "--model", "broken"): "classes.json: not what a training writes",
        ("experiments.folder", "classify", picture, "--model", other): "do not fit resnet9 for 3 classes",
        ("experiments.digits", "--smoke", "--seeds", "0"): "seeds: expected at least 1",
        ("experiments.cifar10", "--smoke", "--seeds", "0"): "seeds: expected at least 1",
        ("experiments.scores", "--smoke", "--epochs", "0"): "epochs: expected at least 1",
    }
    for (out, err), message in zip(run_each(tmp_path, expected, code=2), expected.values(), strict=True):
        assert out == ""
        assert len(err.splitlines()) == 1, err
        line = err.strip()
        assert line.startswith("error: ")
        assert message in line


def test_views_are_averaged():
    trained = learning.Trained(nets.Flatten(), {}, {}, 0.0)
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 1, 1), dtype=np.uint8)
    one, other = learning.reader(trained)(images), learning.reader(trained, [lambda x: x[:, ::-1]])(images)
    both = learning.reader(trained, [lambda x: x, lambda x: x[:, ::-1]])(images)
    np.testing.assert_allclose(learning.reader(trained)(np.asarray(learning.scaled(images))), one, rtol=1e-5)
    np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-5)
    np.testing.assert_allclose(np.exp(one).sum(-1), 1, rtol=1e-5)


def test_labels_are_smoothed():
    loss = learning.smoothed(4, 0.2)
    logits = np.array([0.0, 1.0, 2.0, 3.0], np.float32)
    logs = logits - np.log(np.exp(logits).sum())
    assert float(loss(logits, 2)) == pytest.approx(-(0.8 * logs[2] + 0.05 * logs.sum()), rel=1e-5)


def test_statistics_are_not_learned():
    params = {"batch_norm1": {name: np.ones(4) for name in ("scale", "bias", "mean", "variance")}}
    assert learning.learned_parameters(params) == 8
