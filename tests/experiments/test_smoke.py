"""The scripts that learn from pictures, run with --smoke as a user runs them."""

import json

import numpy as np
import pytest

from cnn_jax import load_params, nets
from tests.helpers.cli import check_report, run_each

pytestmark = pytest.mark.slow
FIGURES = {"confusion.png", "curves.png", "features.png", "metrics.json"}


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_first_tries_of_digits(tmp_path):
    names = ["compact", "cosine"]
    lines = [["experiments.digits", "--smoke", "--net", net, "--out", net] for net in names]
    lines[0] += ["--seeds", "2", "--data", "emnist-letters"]
    answers = run_each(tmp_path, lines)
    for net, (out, _) in zip(names, answers, strict=True):
        found = metrics(tmp_path / net)
        assert {path.name for path in (tmp_path / net).iterdir()} >= FIGURES | {"model_0.safetensors"}
        assert f"{100 * found['accuracy']:.2f} %" in out
        assert found["accuracy"] == pytest.approx(np.mean(found["accuracies"]))
        saved = load_params(tmp_path / net / "model_0.safetensors")
        assert getattr(nets, saved.net)(**saved.options)
        check_report(tmp_path / net, figures=3 + (tmp_path / net / "mistakes.png").exists())
    assert len(metrics(tmp_path / "compact")["accuracies"]) == 2


def test_first_tries_in_colour(tmp_path):
    names = ["cifar10", "folder"]
    run_each(tmp_path, [[f"experiments.{name}", "--smoke"] for name in names])
    for name in names:
        found = metrics(tmp_path / "runs" / name)
        assert {path.name for path in (tmp_path / "runs" / name).iterdir()} >= FIGURES
        assert found["accuracy"] > 0.5  # three or ten classes that differ much
        check_report(tmp_path / "runs" / name, figures=3 + (tmp_path / "runs" / name / "mistakes.png").exists())
