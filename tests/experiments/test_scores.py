"""Networks with each kind of layers: their sizes, the choice of a learning rate, robustness, and a whole run."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from cnn_jax.data.dataset import LabeledImages
from experiments import scores
from experiments._lib import runner
from experiments._lib.classification import trainable_parameters
from experiments._lib.corruptions import CORRUPTIONS
from tests.helpers.cli import FAST_COMPILE, check_report, run

DATA = LabeledImages(np.zeros((12, 2, 2), np.uint8), np.arange(12, dtype=np.int32) % 2, ("a", "b"))
RUN = runner.Run(Path(), Path(), None)


def test_all_kinds_have_about_as_many_parameters():
    sizes = []
    for kind in scores.KINDS:
        net = scores.network(kind, (16, 32), 10)
        params = jax.eval_shape(lambda key, net=net: net.init(key, (28, 28, 1)), jax.random.key(0))
        sizes.append(trainable_parameters(params))
    assert (min(sizes), max(sizes)) == (12_762, 12_858)


def test_the_learning_rate_with_the_highest_validation_accuracy_is_chosen(monkeypatch):
    trained_on = []

    def train(kind, learning_rate, seed, data, config, run):
        trained_on.append((kind, seed, len(data.labels)))
        return SimpleNamespace(net=None, params=learning_rate)

    def predictor(net, learning_rate):
        """0.01 is right, 0.1 is always class 0, 1e-9 is wrong."""
        best = {0.01: np.eye(2), 0.1: np.array([[1, 0], [1, 0]]), 1e-9: 1 - np.eye(2)}[learning_rate]
        return lambda images: best[np.arange(len(images)) % 2]

    monkeypatch.setattr(scores, "train", train)
    monkeypatch.setattr(scores.predict, "predictor", predictor)
    config = scores.Scores(learning_rates=(1e-9, 0.01, 0.1), seed=3)
    best, accuracies = scores.choose_learning_rate("conv", DATA, config, RUN)
    assert best == 0.01
    assert accuracies == {"1e-09": 0, "0.01": 1, "0.1": 0.5}
    assert trained_on == [("conv", 3, 10)] * 3


def test_a_single_learning_rate_needs_no_training():
    config = scores.Scores(learning_rates=(0.003,))
    assert scores.choose_learning_rate("conv", DATA, config, RUN) == (0.003, {})


def test_robustness_is_the_accuracy_at_every_strength():
    """A classifier that says class 1 for bright images: black ones of class 0 turn gray at an offset of 1."""
    images = np.array([0, 255], np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    test = LabeledImages(images, np.array([0, 1], np.int32), ("a", "b"))

    def predict_images(pixels):
        is_bright = pixels.mean((1, 2, 3)) > -0.15
        return np.stack([~is_bright, is_bright], -1).astype(float)

    accuracies = scores.robustness(predict_images, test)
    assert list(accuracies) == list(CORRUPTIONS)
    assert accuracies["brightness"] == [1, 1, 1, 0.5]
    assert accuracies["contrast"] == [1, 1, 1, 0.5]


def test_the_table_has_means_over_seeds():
    robustness = {name: [[1.0, 0.5, 0.5, 0.5], [0.5, 0.0, 0.5, 0.5]] for name in CORRUPTIONS}
    row = {"parameters": 1234, "rate": 0.003, "robustness": robustness, "images_per_s": 4321.0}
    heads, cells = scores.table({"conv": row})
    assert heads[:5] == ["layer", "parameters", "learning rate", "unchanged", "brightness 0.25"]
    assert len(heads) == len(cells) == 4 + 9 + 1
    assert cells[:5] == ["conv", "1,234", "0.003", "75.00 %", "25.00 %"]
    assert cells[-1] == "4,321"


@pytest.mark.slow
def test_the_chosen_learning_rate_learns(tmp_path):
    config = scores.Scores(smoke=True, features=(4, 8), learning_rates=(1e-9, 0.01))
    run_here = runner.Run(tmp_path, tmp_path / "saves", None)
    best, accuracies = scores.choose_learning_rate("conv", scores.load(config)[0], config, run_here)
    assert best == 0.01
    assert accuracies["0.01"] > accuracies["1e-09"]


@pytest.mark.slow
def test_a_smoke_run_compares_all_kinds(tmp_path):
    options = ("--features", 4, 8, "--learning-rates", 0.003, "--seeds", 1)
    run(tmp_path, "experiments.scores", "--smoke", *options, environment=FAST_COMPILE)
    metrics = json.loads((tmp_path / "runs" / "scores" / "metrics.json").read_text())
    assert list(metrics["kinds"]) == list(scores.KINDS)
    check_report(tmp_path / "runs" / "scores", figures=1)
    for row in metrics["kinds"].values():
        assert np.shape(row["robustness"]["noise"]) == (1, 4)
    zncc = metrics["kinds"]["zncc"]["robustness"]
    assert np.ptp(zncc["brightness"][0] + zncc["contrast"][0]) < 0.02  # zncc is invariant to both
