"""What a training of a classifier writes: metrics.json, figures and report.html."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import cnn_jax
from cnn_jax.data.dataset import LabeledImages
from experiments._lib import classification_report, runner
from tests.helpers.cli import check_report

TEST = LabeledImages(np.zeros((3, 4, 4), np.uint8), np.array([0, 1, 1], np.int32), ("a", "b"))
CORRECT = np.array([[0.0, -1.0], [-1.0, 0.0], [-1.0, 0.0]])
MISTAKEN = np.array([[0.0, -1.0], [0.0, -1.0], [-1.0, 0.0]])


@dataclasses.dataclass(frozen=True)
class Config:
    out: Path = Path("runs/digits")


def test_mistakes_are_counted_and_drawn(tmp_path):
    matrix, wrong = classification_report.draw_mistakes(tmp_path, TEST, MISTAKEN, "title")
    np.testing.assert_array_equal(matrix, [[1, 0], [1, 1]])
    np.testing.assert_array_equal(wrong, [1])
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.png", "mistakes.png"}


def test_without_mistakes_the_figure_of_an_earlier_run_goes(tmp_path):
    (tmp_path / "mistakes.png").touch()
    _, wrong = classification_report.draw_mistakes(tmp_path, TEST, CORRECT, "title")
    assert len(wrong) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.png"}


def test_everything_is_written(tmp_path):
    params = {"conv1": {"kernel": np.ones((3, 3, 1, 4), np.float32)}}
    history = {"loss": np.linspace(2, 1, 200), "accuracy": np.linspace(0, 0.9, 200)}
    trained = runner.TrainingResult(cnn_jax.Flatten(), params, history, 1.0, 0)
    classification_report.write_report(
        "digits",
        Config(tmp_path),
        tmp_path,
        trained=trained,
        test=TEST,
        log_probs=MISTAKEN,
        metrics={"accuracy": 2 / 3},
        results=["two of three"],
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert "jax" in metrics
    texts = check_report(tmp_path, figures=4)
    assert "two of three" in texts["p"]
    assert texts["td"] == ["1", "1", "100.00 %", "2", "1", "50.00 %"]


def test_a_class_without_images_has_an_accuracy_of_zero():
    table = classification_report.accuracy_by_class(("a", "b"), np.array([[1234, 0], [0, 0]]))
    assert table == [
        ["class", "images", "correct", "accuracy"],
        ["a", "1,234", "1,234", "100.00 %"],
        ["b", "0", "0", "0.00 %"],
    ]


def test_seeds_are_listed_with_accuracy_and_time():
    metrics = {"accuracies": [0.5, 0.25], "training_seconds": [1.4, 2.6]}
    table = classification_report.accuracy_by_seed(range(3, 5), metrics)
    assert table == [["seed", "accuracy", "seconds"], ["3", "50.00 %", "1"], ["4", "25.00 %", "3"]]
