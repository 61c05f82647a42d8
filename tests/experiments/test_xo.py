"""Training on X's and O's, and the commands classify and evaluate, run as a user runs them."""

import io
import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from tests.helpers.cli import check_report, png, run, run_each
from tests.helpers.letters import draw_letters, save_untrained_xo_net

FIGURES = {
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


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


IMAGES = np.zeros((2, 8, 8), np.uint8)
BAD_FILES = {
    "empty": (b"", "letters.npz"),
    "cut": (b"PK\x03\x04 cut", "letters.npz"),
    "pickle": (pickle.dumps([1]), "letters.npz"),
    "unlabeled": (npz(images=IMAGES), "labels"),
    "objects": (npz(images=IMAGES, labels=np.array(["X", None], object)), "allow_pickle"),
    "unknown_label": (npz(images=IMAGES, labels=np.array(["X", "Y"])), "'Y'"),
    "few_labels": (npz(images=IMAGES, labels=np.array(["X"])), "2 labels"),
    "missing": (None, "No such file"),
}


@pytest.fixture(scope="module")
def letters():
    """Twelve letters of a size that the network is not trained on."""
    return draw_letters(12)


@pytest.fixture(scope="module")
def untrained(letters, tmp_path_factory):
    """What classify and evaluate print, by a network that is not trained, and their folder."""
    folder = tmp_path_factory.mktemp("untrained")
    model = save_untrained_xo_net(folder / "model.safetensors")
    images, names = letters
    png(folder / "good.png", images[0])
    png(folder / "blank.png", np.full((9, 9), 200, np.uint8))
    np.savez(folder / "letters.npz", images=images, labels=names)
    lines = [
        ("experiments.xo", "classify", "blank.png", "good.png", "missing.png", "--model", model),
        ("experiments.xo", "evaluate", "letters.npz", "--model", model, "--out", "out"),
    ]
    bad = []
    for name, (content, _) in BAD_FILES.items():
        (folder / name).mkdir()
        if content is not None:
            (folder / name / "letters.npz").write_bytes(content)
        bad.append(("experiments.xo", "evaluate", f"{name}/letters.npz", "--out", f"{name}/out"))
    classified, evaluated, *refused = run_each(folder, lines + bad, code=[2, 0] + [2] * len(bad))
    return {"folder": folder, "classify": classified, "evaluate": evaluated, "refused": refused}


def test_classify_names_the_class_and_what_cannot_be_read(untrained):
    out, err = untrained["classify"]
    (line,) = out.splitlines()
    file, answer = line.split(": ")
    letter, probability = answer.split()
    assert file == "good.png"
    assert letter in ("X", "O")
    assert 0.5 <= float(probability) <= 1
    assert err.splitlines() == [
        "blank.png: nothing is drawn on it",
        "missing.png: No such file or directory",
        "error: 2 of 3 pictures could not be read",
    ]


def check_evaluation(folder, out):
    """What evaluate prints and writes for twelve letters belongs together; returns the accuracy."""
    metrics = json.loads((folder / "metrics.json").read_text())
    assert out.splitlines()[-1] == f"accuracy {metrics['accuracy']:.4f} (12)"
    assert np.sum(metrics["confusion"]) == metrics["images"] == 12
    assert np.trace(metrics["confusion"]) == round(12 * metrics["accuracy"]) == 12 - len(metrics["mistakes"])
    assert (folder / "confusion.png").exists()
    has_mistakes = metrics["accuracy"] < 1
    assert (folder / "mistakes.png").exists() == has_mistakes
    check_report(folder, figures=1 + has_mistakes)
    return metrics["accuracy"]


def test_evaluate_prints_the_accuracy_last(untrained):
    out, _ = untrained["evaluate"]
    assert check_evaluation(untrained["folder"] / "out", out) >= 0


def test_evaluate_refuses_bad_files_in_one_line_and_writes_nothing(untrained):
    for (name, (_, message)), (out, err) in zip(BAD_FILES.items(), untrained["refused"], strict=True):
        assert out == ""
        assert err.startswith("error: "), name
        assert len(err.splitlines()) == 1, name
        assert message in err, name
        assert not (untrained["folder"] / name / "out").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which `python -m experiments.xo` was run, with fewer steps, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    steps = ("--steps", 200, "--batch-size", 64, "--test-images", 200)
    environment = {
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HTTPS_PROXY": "http://127.0.0.1:9",  # offline
        "JAX_COMPILATION_CACHE_DIR": "",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",  # training takes longer than compiling
    }
    return folder, run(folder, "experiments.xo", *steps, environment=environment)[0]


@pytest.mark.slow
def test_training_writes_everything_and_compares_three_classifiers(trained):
    folder, out = trained
    runs = folder / "runs/xo"
    names = {path.name for path in runs.iterdir()}
    assert FIGURES | {"metrics.json", "model.safetensors", "report.html"} <= names
    assert not any(name.startswith(".") for name in names)
    metrics = json.loads((runs / "metrics.json").read_text())
    assert list(metrics["accuracy"]) == ["clean", "shifted", "shrunken", "rotated", "deformed", "all"]
    assert metrics["accuracy"]["clean"]["whole image"] == 1
    assert metrics["accuracy"]["all"]["trained network"] > metrics["accuracy"]["all"]["whole image"]
    assert metrics["parameters"] <= 50_000
    assert "| all  " in out
    texts = check_report(runs, figures=len(FIGURES) + (runs / "omniglot.png").exists())
    assert "all" in texts["th"]
    assert "--batch-size 64" in texts["pre"][-1]


@pytest.mark.slow
def test_compiled_programs_are_kept_for_the_next_run(trained):
    folder, _ = trained
    assert any(path.name.startswith("jit_run") for path in (folder / "cache/cnn_jax/compiled").iterdir())


@pytest.mark.slow
def test_training_says_when_omniglot_is_not_available(trained):
    if "CNN_JAX_DATA" in os.environ:
        assert "of 40 correct" in trained[1]
    else:
        assert "not available" in trained[1]
        assert "CNN_JAX_DATA" in trained[1]


@pytest.mark.slow
def test_classify_reads_any_picture_and_names_the_unreadable(trained, letters, tmp_path):
    images, names = letters
    good = [png(tmp_path / f"{i}.png", image if i < 6 else 255 - image) for i, image in enumerate(images)]
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(good[0].read_bytes()[:100])
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    png(tmp_path / "blank.png", np.full((9, 9), 200, np.uint8))
    bad = [tmp_path / name for name in ("empty.png", "text.png", "cut.png", "huge.png", "blank.png", "missing.png")]
    out, err = run(trained[0], "experiments.xo", "classify", *bad[:3], *good, *bad[3:], code=2)
    lines = out.splitlines()
    assert [line.split(": ")[0] for line in lines] == list(map(str, good))
    predicted = [line.split(": ")[1].split()[0] for line in lines]
    assert np.mean(np.array(predicted) == names) >= 0.9
    assert all(0.5 <= float(line.split()[-1]) <= 1 for line in lines)
    messages = [line for line in err.splitlines() if str(tmp_path) in line]
    assert len(messages) == len(bad)
    assert err.splitlines()[-1] == "error: 6 of 18 pictures could not be read"


@pytest.mark.slow
def test_evaluate_has_a_high_accuracy_on_clean_letters(trained, letters, tmp_path):
    images, names = letters
    np.savez(tmp_path / "letters.npz", images=255 - images, labels=names)
    out, _ = run(trained[0], "experiments.xo", "evaluate", tmp_path / "letters.npz", "--out", tmp_path / "out")
    assert check_evaluation(tmp_path / "out", out) >= 11 / 12
