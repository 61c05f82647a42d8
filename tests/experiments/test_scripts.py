"""The scripts, run as a user runs them."""

import io
import json
import os
import pickle

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax import load_params, nets, save_params
from cnn_jax.data import xo
from experiments._lib import classification, xo_train
from tests.helpers.cli import check_report, png, run, run_each


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which `python -m experiments.xo` was run, with fewer steps; what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    steps = ("--steps", 200, "--batch-size", 64, "--test-images", 200)
    offline = {"XDG_CACHE_HOME": str(folder / "cache"), "HTTPS_PROXY": "http://127.0.0.1:9"}
    # Optimized: it has more to do than its compiler.
    environment = offline | {"JAX_COMPILATION_CACHE_DIR": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    return folder, run(folder, "experiments.xo", *steps, environment=environment)[0]


@pytest.fixture(scope="module")
def letters():
    """Plain X's and O's as 0..255, a shape of their own that the network was not trained on, and their letters."""
    labels = np.arange(12) % 2
    options = xo.CLEAN | {"thickness": 1.0, "rotate": 0.3}
    draw = jax.jit(jax.vmap(lambda key, label: xo.draw(key, size=50, label=label, **options)[0]))
    images = draw(jax.random.split(jax.random.key(1), 12), labels)
    return np.asarray(127.5 * (images + 1)).astype(np.uint8), np.array(xo.CLASSES)[labels]


def test_walkthrough(tmp_path):
    out, _ = run(tmp_path, "experiments.walkthrough", "--out", "w")
    metrics = json.loads((tmp_path / "w/metrics.json").read_text())
    assert metrics["votes"]["the X"] == pytest.approx({"X": 1, "O": 5 / 9})
    assert metrics["votes"]["a deformed X"] == pytest.approx({"X": 37 / 45, "O": 20 / 36})
    assert len(list((tmp_path / "w").glob("*.png"))) == 8
    assert "| the X        | 1.0000 | 0.5556 |" in out
    texts = check_report(tmp_path / "w", figures=8)
    assert texts["td"] == ["1.0000", "0.5556", "0.8222", "0.5556"]
    assert texts["pre"] == ["python -m experiments.walkthrough --out w"]


def test_training_writes_everything_and_reports_three_readers(trained):
    folder, out = trained
    runs = folder / "runs/xo"
    names = {path.name for path in runs.iterdir()}
    figures = {
        f"{name}.png"
        for name in (
            "letters",
            "strength",
            "curves",
            "features",
            "stages_X",
            "stages_O",
            "counted_X",
            "counted_O",
            "patches",
        )
    }
    assert figures | {"metrics.json", "model.safetensors", "report.html"} <= names
    assert not any(name.startswith(".") for name in names)
    metrics = json.loads((runs / "metrics.json").read_text())
    assert list(metrics["accuracy"]) == ["clean", "shifted", "shrunken", "rotated", "deformed", "all"]
    assert metrics["accuracy"]["clean"]["whole image"] == 1
    assert metrics["accuracy"]["all"]["trained network"] > metrics["accuracy"]["all"]["whole image"]
    assert metrics["parameters"] <= 50_000
    assert "| all  " in out
    texts = check_report(runs, figures=len(figures) + (runs / "omniglot.png").exists())
    assert "all" in texts["th"]
    assert "--batch-size 64" in texts["pre"][-1]


def test_the_reader_sees_a_letter_the_same_mirrored_and_turned(monkeypatch):
    monkeypatch.setattr(classification, "READ", 5)
    net = nets.xo_net()
    params = net.init(jax.random.key(0), (28, 28, 1))
    image = np.asarray(jax.jit(xo.draw)(jax.random.key(1))[0])
    read = classification.reader(net, params, xo_train.VIEWS)
    want, *others = read(np.stack([image, image[::-1], image[:, ::-1], image.T, np.rot90(image)]))
    assert np.ptp(want) > 1e-3
    for other in others:
        np.testing.assert_allclose(other, want, atol=1e-5)


def test_training_says_when_omniglot_cannot_be_had(trained):
    if "CNN_JAX_DATA" in os.environ:
        assert "of 40 right" in trained[1]
    else:
        assert "not read" in trained[1]
        assert "CNN_JAX_DATA" in trained[1]


def test_classify_reads_any_picture_and_names_the_unreadable(trained, letters, tmp_path):
    images, names = letters
    good = [png(tmp_path / f"{i}.png", image if i < 6 else 255 - image) for i, image in enumerate(images)]
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    cut = tmp_path / "cut.png"
    cut.write_bytes(good[0].read_bytes()[:100])
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    png(tmp_path / "blank.png", np.full((9, 9), 200, np.uint8))
    bad = [tmp_path / name for name in ("empty.png", "text.png", "cut.png", "huge.png", "blank.png", "missing.png")]
    out, err = run(trained[0], "experiments.xo", "classify", *bad[:3], *good, *bad[3:], code=2)
    lines = out.splitlines()
    assert [line.split(": ")[0] for line in lines] == list(map(str, good))
    read = [line.split(": ")[1].split()[0] for line in lines]
    assert np.mean(np.array(read) == names) >= 0.9
    assert all(0.5 <= float(line.split()[-1]) <= 1 for line in lines)
    complaints = [line for line in err.splitlines() if str(tmp_path) in line]
    assert len(complaints) == len(bad)
    assert err.splitlines()[-1] == "error: 6 of 18 pictures could not be read"


def test_evaluate_prints_accuracy_last(trained, letters, tmp_path):
    images, names = letters
    np.savez(tmp_path / "letters.npz", images=255 - images, labels=names)
    out, _ = run(trained[0], "experiments.xo", "evaluate", tmp_path / "letters.npz", "--out", tmp_path / "out")
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert out.splitlines()[-1] == f"accuracy {metrics['accuracy']:.4f} (12)"
    assert np.sum(metrics["confusion"]) == 12
    assert np.trace(metrics["confusion"]) == round(12 * metrics["accuracy"]) >= 11
    assert (tmp_path / "out/confusion.png").exists()
    assert (tmp_path / "out/mistakes.png").exists() == (metrics["accuracy"] < 1)
    check_report(tmp_path / "out", figures=1 + (metrics["accuracy"] < 1))


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


IMAGES = np.zeros((2, 8, 8), np.uint8)


FILES = [
    (b"", "letters.npz"),
    (b"PK\x03\x04 cut", "letters.npz"),
    (pickle.dumps([1]), "letters.npz"),
    (npz(images=IMAGES), "labels"),
    (npz(images=IMAGES, labels=np.array(["X", None], object)), "allow_pickle"),
    (npz(images=IMAGES, labels=np.array(["X", "Y"])), "'Y'"),
    (npz(images=IMAGES, labels=np.array(["X"])), "2 labels"),
    (None, "No such file"),
]


def test_evaluate_refuses_bad_files_in_one_line(tmp_path):
    names = [f"{i}/letters.npz" for i in range(len(FILES))]
    for name, (content, _) in zip(names, FILES, strict=True):
        if content is not None:
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    results = run_each(tmp_path, [("experiments.xo", "evaluate", name) for name in names], code=2)
    for name, (_, complaint), (_, err) in zip(names, FILES, results, strict=True):
        assert err.startswith("error: "), name
        assert len(err.splitlines()) == 1, name
        assert complaint in err, name
    assert sorted(tmp_path.rglob("*")) == before


def test_models_that_do_not_fit_are_refused_in_one_line(trained, tmp_path, letters):
    whole = (trained[0] / "runs/xo/model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    save_params(tmp_path / "other.safetensors", {"dense1": {"kernel": np.zeros((2, 2))}}, net="lenet5")
    save_params(tmp_path / "shapes.safetensors", {"dense1": {"kernel": np.zeros((2, 2))}}, net="xo_net")
    params, net, options = load_params(trained[0] / "runs/xo/model.safetensors")
    params["dense1"]["bias"] = params["dense1"]["bias"].at[0].set(np.nan)
    save_params(tmp_path / "nan.safetensors", params, net=net, options=options)
    save_params(tmp_path / "options.safetensors", {}, net="xo_net", options={"colour": 1})
    image = png(tmp_path / "x.png", letters[0][0])
    models = [tmp_path / f"{name}.safetensors" for name in ("cut", "other", "shapes", "nan", "options", "missing")]
    lines = [("experiments.xo", "classify", image, "--model", model) for model in models]
    for model, (_, err) in zip(models, run_each(tmp_path, lines, code=2), strict=True):
        assert err.startswith(f"error: {model}")
        assert len(err.splitlines()) == 1


def test_training_refuses_wrong_numbers_and_writes_nothing(tmp_path):
    wrong = [("--test-images", 0), ("--steps", 0), ("--batch-size", -1), ("--seed", 10**30)]
    for _, err in run_each(tmp_path, [("experiments.xo", *words) for words in wrong], code=2):
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1
    assert not list(tmp_path.rglob("*.safetensors"))
