"""Output of a classifier's training: metrics.json, figures (confusion matrix, mistakes, curves) and report.html."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from cnn_jax import explain, figures
from cnn_jax.data.dataset import LabeledImages

from . import classification, cli, report, runner

MISTAKE_FIGURES = {
    "confusion.png": "Confusion matrix: how many images of each class (rows) were classified as each class (columns)",
    "mistakes.png": "Most confident mistakes: above each image its number, its class and the class predicted",
}
TRAINING_FIGURES = {
    "curves.png": "Training: loss and error rate, running means on a logarithmic scale",
    "features.png": "First features: the kernels of the first layer, black the most negative weight, white the most "
    "positive",
}
WINDOWS = 50  # a running mean covers 1 / WINDOWS of all steps
COLUMNS = 8  # of the figure of kernels


def draw_mistakes(
    out: Path, test: LabeledImages, log_probs: Float[np.ndarray, "N K"], title: str
) -> tuple[Int[np.ndarray, "K K"], Int[np.ndarray, " M"]]:
    """Draws confusion.png and, if there are mistakes, mistakes.png.

    Returns:
      The confusion matrix, and the indices of the misclassified images.
    """
    matrix = classification.confusion_matrix(log_probs, test.labels, len(test.classes))
    figures.save(figures.confusion(matrix, test.classes, title=title), out / "confusion.png")
    wrong = np.flatnonzero(log_probs.argmax(-1) != test.labels)
    if len(wrong):
        pixels = np.asarray(classification.to_pixels(test.images[wrong]))
        images = dict(zip(wrong.tolist(), pixels, strict=True))
        figures.save(figures.mistakes(images, test.labels, log_probs, test.classes), out / "mistakes.png")
    else:
        (out / "mistakes.png").unlink(missing_ok=True)  # of an earlier run
    return matrix, wrong


def draw_training(out: Path, params: Any, history: Mapping[str, np.ndarray]) -> None:
    """Draws the training curves, curves.png, and the kernels of the first layer, features.png."""
    window = max(len(history["loss"]) // WINDOWS, 1)
    lines = {
        "loss": running_mean(history["loss"], window),
        "error rate": running_mean(1 - history["accuracy"], window),
    }
    steps = np.arange(len(lines["loss"])) + window
    ylabel = f"mean of {window} steps"
    curves = figures.curves(steps, lines, xlabel="step", ylabel=ylabel, title="Training", log=True)
    figures.save(curves, out / "curves.png")

    kernels = np.asarray(explain.kernels_as_images(params))
    features = figures.image_grid(kernels, columns=COLUMNS, title="Features of the first layer")
    figures.save(features, out / "features.png")


def running_mean(values: Float[np.ndarray, " N"], window: int) -> Float[np.ndarray, " M"]:
    """The mean of every `window` consecutive values, M = N - window + 1.

    >>> running_mean(np.array([0.0, 2.0, 4.0]), 2)
    array([1., 3.])
    """
    return np.convolve(values, np.full(window, 1 / window), "valid")


def write_report(
    name: str,
    config: Any,
    out: Path,
    *,
    trained: runner.TrainingResult,
    test: LabeledImages,
    log_probs: Float[np.ndarray, "N K"],
    metrics: Mapping[str, Any],
    results: Sequence[str | report.Table],
) -> None:
    """Writes metrics.json, all figures and report.html to `out`.

    Args:
      name: the script.
      config: its options.
      out: the folder.
      trained: the training to draw.
      test: the test set.
      log_probs: predictions for the test set.
      metrics: for metrics.json, without versions.
      results: lines and tables for the report; a table of the accuracy by class is added.
    """
    cli.write_json(out / "metrics.json", {**metrics, **cli.versions()})
    matrix, _ = draw_mistakes(out, test, log_probs, "Confusion matrix")
    draw_training(out, trained.params, trained.history)
    tables = [*results, accuracy_by_class(test.classes, matrix)]
    report.write_html(out, name, config, tables, MISTAKE_FIGURES | TRAINING_FIGURES)


def accuracy_by_class(classes: Sequence[str], matrix: Int[np.ndarray, "K K"]) -> report.Table:
    """A table of the accuracy for each class, from the confusion matrix."""
    rows = []
    for name, correct, images in zip(classes, matrix.diagonal(), matrix.sum(axis=1), strict=True):
        rows.append([name, f"{images:,}", f"{correct:,}", f"{100 * correct / max(images, 1):.2f} %"])
    return [["class", "images", "correct", "accuracy"], *rows]


def accuracy_by_seed(seeds: Sequence[int], metrics: Mapping[str, Any]) -> report.Table:
    """A table of the accuracy and training time for each seed, from the metrics of `classification.train_seeds`."""
    rows = []
    for seed, accuracy, seconds in zip(seeds, metrics["accuracies"], metrics["training_seconds"], strict=True):
        rows.append([str(seed), f"{100 * accuracy:.2f} %", f"{seconds:.0f}"])
    return [["seed", "accuracy", "seconds"], *rows]
