"""Wrong options and files of the scripts that train or classify: one line on stderr, and exit code 2."""

import numpy as np
import pytest

from tests.helpers.cli import png, run_each

LINES = {
    ("folder",): "pictures: expected a folder that has a folder of pictures for each class, got none",
    ("folder", "none"): "none: No such file or directory",
    ("folder", "single"): "expected a folder for each of at least two classes, got ['class']",
    ("folder", "--smoke", "--out", "file"): "--out: expected a folder that can be written to, got file (File exists)",
    ("folder", "two", "--steps", "0"): "--steps: expected at least 1",
    ("folder", "two", "--validation", "1"): "validation: expected more than 0",
    ("folder", "--smoke", "--size", "31"): "size: expected at least 32",
    ("folder", "classify"): "pictures: expected at least one file",
    ("folder", "classify", "x.png"): "runs/folder/classes.json: No such file",
    ("folder", "classify", "x.png", "--model", "broken"): "classes.json: expected a file of a training run",
    ("digits", "--smoke", "--seeds", "0"): "--seeds: expected at least 1",
    ("digits", "--smoke", "--batch-size", "0"): "--batch-size: expected at least 1",
    ("digits", "--seeds", "x"): "--seeds: expected a whole number, got x; see python -m experiments.digits --help",
    ("scores", "--learning-rates", "0.1", "x"): "--learning-rates: expected [FLOAT [FLOAT ...]], got 0.1 x",
    ("xo", "classify", "--model"): "--model: Missing value",
    ("cifar10", "--smoke", "--seeds", "0"): "--seeds: expected at least 1",
    ("scores", "--smoke", "--epochs", "0"): "--epochs: expected at least 1",
    ("scores", "--smoke", "--learning-rates"): "--learning-rates: expected at least one, got none",
    ("xo", "--test-images", "0"): "--test-images: expected at least 1",
    ("xo", "--steps", "0"): "steps: expected at least 1",
    ("xo", "--batch-size", "-1"): "batch_size: expected at least 1",
    ("xo", "--seed", str(10**30)): "",
    ("xo", "classify"): "pictures: expected at least one file",
    ("xo", "classify", "x.png", "--model", "missing.safetensors"): "missing.safetensors: No such file",
    ("xo", "classify", "x.png", "--model", "x.png"): "x.png: ",
    ("draw", "--model", "missing.safetensors"): "missing.safetensors: No such file",
    ("draw", "--port", "0"): "--port: expected a free port, got 0",
    ("draw", "--port", "65536"): "--port: expected a free port, got 65536",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The folder, and the answer to every line."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "file").touch()
    (folder / "broken").mkdir()
    (folder / "broken" / "classes.json").write_text("{")
    (folder / "single" / "class").mkdir(parents=True)
    png(folder / "x.png", np.eye(20, dtype=np.uint8))
    for name in ("a", "b"):
        (folder / "two" / name).mkdir(parents=True)
        for i in range(2):
            png(folder / "two" / name / f"{i}.png", np.zeros((9, 9, 3), np.uint8))
    lines = [(f"experiments.{script}", *words) for script, *words in LINES]
    return folder, dict(zip(LINES, run_each(folder, lines, code=2), strict=True))


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_the_error_is_one_line(line, answers):
    out, err = answers[1][line]
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert LINES[line] in err


def test_nothing_is_trained(answers):
    assert not list(answers[0].rglob("*.safetensors"))
    assert not list(answers[0].rglob("metrics.json"))
