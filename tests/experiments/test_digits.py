"""Networks for digits: their sizes, and whole runs on synthetic images."""

import json

import jax
import numpy as np
import pytest

from cnn_jax import load_params, nets
from experiments import digits
from experiments._lib import classification
from tests.helpers.cli import check_report, run_each

FILES = {"confusion.png", "curves.png", "features.png", "metrics.json", "model_0.safetensors"}


@pytest.mark.parametrize(
    ("net", "size"), [("standard", 79_690), ("compact", 6_480), ("cosine", 1_351), ("wide-cosine", 2_730)]
)
def test_networks_are_as_small_as_claimed(net, size):
    recipe = digits.RECIPES[net]
    network = getattr(nets, recipe.net)(**recipe.options, classes=10)
    params = jax.eval_shape(lambda key: network.init(key, (28, 28, 1)), jax.random.key(0))
    assert classification.trainable_parameters(params) == size


def test_the_views_are_nine_different_shifts():
    images = np.random.default_rng(0).normal(size=(1, 5, 5, 1)).astype(np.float32)
    assert len({np.asarray(view(images)).tobytes() for view in digits.TTA_VIEWS}) == 9


def check_run(folder, net, out):
    """What a run prints and writes belongs together; returns its metrics."""
    metrics = json.loads((folder / net / "metrics.json").read_text())
    assert {path.name for path in (folder / net).iterdir()} >= FILES
    assert f"{100 * metrics['accuracy']:.2f} %" in out
    assert metrics["accuracy"] == pytest.approx(np.mean(metrics["accuracies"]))
    saved = load_params(folder / net / "model_0.safetensors")
    assert getattr(nets, saved.net)(**saved.options)
    check_report(folder / net, figures=3 + (folder / net / "mistakes.png").exists())
    return metrics


@pytest.mark.slow
def test_a_smoke_run_writes_everything(tmp_path):
    line = ("experiments.digits", "--smoke", "--net", "compact", "--data", "emnist-letters", "--out", "compact")
    ((out, _),) = run_each(tmp_path, [line])
    metrics = check_run(tmp_path, "compact", out)
    assert metrics["together"] == metrics["accuracy"]
    assert metrics["parameters"] == 6_720  # 26 classes


@pytest.mark.slow
def test_smoke_runs_of_other_networks_and_seeds(tmp_path):
    lines = [
        ("experiments.digits", "--smoke", "--net", "compact", "--seeds", "2", "--out", "compact"),
        ("experiments.digits", "--smoke", "--net", "cosine", "--data", "fashion-mnist", "--out", "cosine"),
    ]
    (compact, _), (cosine, _) = run_each(tmp_path, lines)
    assert len(check_run(tmp_path, "compact", compact)["accuracies"]) == 2
    check_run(tmp_path, "cosine", cosine)
