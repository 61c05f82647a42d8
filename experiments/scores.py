"""Which kind of layer is robust to a change of light? Networks of two stages, with convolutions and with each score.

Each network has two layers of 3x3 features with pooling, and a dense layer. The kinds of layers are: convolution with
ReLU and max-pooling; convolution with max-abs-pooling alone; and the scores match, cosine, zncc and sharpened cosine
with max-abs-pooling. Their numbers of parameters differ by 1 %. For each kind, the learning rate is the one with the
highest accuracy on a validation set, a sixth of the training set. All networks are trained on unchanged images. The
test images are then made brighter, lower in contrast, and noisier.

Claim: on MNIST sharpened cosine similarity has the highest accuracy on unchanged images (98.72 %; convolution with ReLU
98.54 %) and under Gaussian noise (standard deviation 0.5, with white at 1 and black at -1: 96.75 %, match 90.06, cosine
90.02, convolution 77.86, with ReLU 73.74, zncc 46.85 %). The accuracy of zncc does not depend on brightness and
contrast (96.91 %). Match and convolution differ only in scale, yet match is more robust to noise: the initial scale of
the features and the size of their updates matter. All numbers are means of three seeds, after four epochs, with 12,762
to 12,858 parameters; for all kinds but the convolutions the largest learning rate tried was chosen.
Evidence: the metrics.json of the first command below, run on an AMD EPYC.

    python -m experiments.scores                       choose rates and train three networks of each kind on MNIST
    python -m experiments.scores --data fashion-mnist
    python -m experiments.scores --smoke               a test run on synthetic images, in seconds
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import jax
import numpy as np
import optax

import cnn_jax
from cnn_jax import figures
from cnn_jax.data import mnist
from cnn_jax.data.dataset import LabeledImages, train_val_split

from ._lib import classification, cli, predict, report, runner
from ._lib.benchmark import median_ms
from ._lib.corruptions import CORRUPTIONS
from ._lib.synthetic import synthetic_dataset

SIZE = 28  # rows and columns of an image
SMOKE_BATCH_SIZE = 40
VALIDATION = 1 / 6  # of the training set, to choose a learning rate
TIMING_SECONDS = 0.1  # for which a call is repeated in each round of timing
SHARPENED_COSINE_OPTIONS = {"p": 2.0, "q": 0.1}  # initial values of what is learned for each feature


class MakeLayers(Protocol):
    """The layers of one stage of a network, for a number of features."""

    def __call__(self, features: int, /) -> list[cnn_jax.Layer]: ...


def score_layers(score: Callable[..., jax.Array], learn: Mapping[str, float] | None = None) -> MakeLayers:
    """A layer of a score, and max-abs-pooling."""
    return lambda features: [cnn_jax.Match(features, 3, score=score, learn=learn), cnn_jax.MaxAbsPool()]


def conv_relu_layers(features: int) -> list[cnn_jax.Layer]:
    """A convolution with biases, ReLU, and max-pooling."""
    return [cnn_jax.Conv(features, 3), cnn_jax.Activation(jax.nn.relu), cnn_jax.MaxPool()]


def conv_layers(features: int) -> list[cnn_jax.Layer]:
    """A convolution, and max-abs-pooling: like `match` except for the scale of kernels at the start, and of outputs."""
    return [cnn_jax.Conv(features, 3, use_bias=False), cnn_jax.MaxAbsPool()]


KINDS: Mapping[str, MakeLayers] = {
    "conv + ReLU": conv_relu_layers,
    "conv": conv_layers,
    "match": score_layers(cnn_jax.match),
    "cosine": score_layers(cnn_jax.cosine),
    "zncc": score_layers(cnn_jax.zncc),
    "sharpened cosine": score_layers(cnn_jax.sharpened_cosine, SHARPENED_COSINE_OPTIONS),
}


FIGURES = {"robustness.png": "Robustness: accuracy of each kind of layers by strength of a change of light"}


@dataclasses.dataclass(frozen=True)
class Scores(runner.RunOptions):
    """Train networks with six kinds of layers and compare their accuracy under changes of light."""

    data: Literal["mnist", "fashion-mnist"] = "mnist"
    """The data set."""
    features: tuple[int, int] = (16, 32)
    """Number of features of the two layers."""
    epochs: int = 4
    """Passes over the training set."""
    batch_size: int = 128
    """Images in each step."""
    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
    """Highest learning rates of Adam to choose from; they fall to zero along a cosine."""
    seeds: int = 3
    """Number of networks of each kind, with consecutive seeds."""
    seed: int = 0
    """The first seed; learning rates are chosen with it."""
    smoke: bool = False
    """Test that everything works: a few steps on synthetic images."""
    out: Path = Path("runs/scores")
    """Folder for report.html, metrics.json and the figure."""
    data_dir: Path | None = None
    """Folder with downloaded data sets; by default the folder in CNN_JAX_DATA."""


def network(kind: str, features: tuple[int, int], classes: int) -> cnn_jax.Layer:
    """Two stages of a kind of layers, and a dense layer that gives the logits."""
    stages = [layer for count in features for layer in KINDS[kind](count)]
    return cnn_jax.Chain(*stages, cnn_jax.Flatten(), cnn_jax.Dense(classes))


def load(config: Scores) -> tuple[LabeledImages, LabeledImages]:
    """The training set and the test set."""
    if config.smoke:
        return synthetic_dataset(6 * SMOKE_BATCH_SIZE, SIZE, 1, mnist.CATALOG[config.data].classes)
    return (
        mnist.load(config.data, data_dir=config.data_dir),
        mnist.load(config.data, "test", data_dir=config.data_dir),
    )


def train(
    kind: str, learning_rate: float, seed: int, data: LabeledImages, config: Scores, run: runner.Run
) -> runner.TrainingResult:
    """Trains a network of a kind of layers."""
    batch_size = SMOKE_BATCH_SIZE if config.smoke else config.batch_size
    steps = classification.training_steps(config.epochs, data, batch_size)
    return classification.train(
        run,
        f"{kind} {len(data.labels)} {learning_rate:g} {seed}",
        network(kind, config.features, len(data.classes)),
        data,
        optimizer=optax.adam(optax.cosine_decay_schedule(learning_rate, steps)),
        steps=steps,
        batch_size=batch_size,
        augment=classification.augment_each(lambda key, image: image),
        key=jax.random.key(seed),
    )


def choose_learning_rate(
    kind: str, data: LabeledImages, config: Scores, run: runner.Run
) -> tuple[float, dict[str, float]]:
    """The learning rate with the highest accuracy on a validation set, and the accuracy of each.

    A single learning rate is returned without training.
    """
    if len(config.learning_rates) == 1:
        return config.learning_rates[0], {}
    training, validation = train_val_split(data, VALIDATION)
    accuracies = {}
    for learning_rate in config.learning_rates:
        trained = train(kind, learning_rate, config.seed, training, config, run)
        log_probs = predict.predictor(trained.net, trained.params)(validation.images)
        accuracies[learning_rate] = classification.accuracy(log_probs, validation.labels)
    best = max(accuracies, key=accuracies.__getitem__)
    return best, {f"{learning_rate:g}": accuracy for learning_rate, accuracy in accuracies.items()}


def robustness(predict_images: predict.Predict, test: LabeledImages) -> dict[str, list[float]]:
    """The accuracy at every strength of every corruption."""
    pixels = classification.to_pixels(test.images)
    accuracies: dict[str, list[float]] = {}
    for name, corruption in CORRUPTIONS.items():
        corrupted = (np.asarray(corruption.apply(pixels, strength)) for strength in corruption.strengths)
        accuracies[name] = [classification.accuracy(predict_images(images), test.labels) for images in corrupted]
    return accuracies


def images_per_second(
    predictors: Mapping[str, predict.Predict], images: np.ndarray, min_seconds: float
) -> dict[str, float]:
    """How many images every network classifies in a second: medians of interleaved rounds of timing."""
    batch = np.asarray(classification.to_pixels(images[: predict.BATCH_SIZE]))
    calls = {kind: functools.partial(predict_images, batch) for kind, predict_images in predictors.items()}
    milliseconds = median_ms(calls, min_seconds=min_seconds)
    return {kind: 1e3 * len(batch) / milliseconds[kind] for kind in predictors}


class KindResult(NamedTuple):
    """The networks of one kind of layers."""

    predict: predict.Predict
    """The prediction function of the first seed's network."""
    metrics: dict[str, Any]


def evaluate_kind(
    kind: str, seeds: Sequence[int], data: LabeledImages, test: LabeledImages, config: Scores, run: runner.Run
) -> KindResult:
    """Chooses the learning rate of a kind of layers, trains a network for each seed and measures its robustness."""
    learning_rate, validation_accuracies = choose_learning_rate(kind, data, config, run)
    trainings = [train(kind, learning_rate, seed, data, config, run) for seed in seeds]
    predictors = [predict.predictor(trained.net, trained.params) for trained in trainings]
    accuracies = [robustness(predict_images, test) for predict_images in predictors]
    metrics = {
        "parameters": classification.trainable_parameters(trainings[0].params),
        "rate": learning_rate,
        "read_apart": validation_accuracies,
        "robustness": {name: [by_corruption[name] for by_corruption in accuracies] for name in CORRUPTIONS},
        "training_seconds": [trained.seconds for trained in trainings],
    }
    unchanged = ", ".join(f"{100 * by_corruption['noise'][0]:.2f} %" for by_corruption in accuracies)
    print(f"{kind}: learning rate {learning_rate:g}, accuracy {unchanged}", flush=True)
    return KindResult(predictors[0], metrics)


def main(config: Scores, run: runner.Run) -> dict[str, Any]:
    """Chooses learning rates, trains, compares, writes everything; returns the metrics."""
    seeds = range(config.seed, config.seed + cli.check_positive("--seeds", config.seeds))
    cli.check_positive("--epochs", config.epochs)
    cli.check_positive("--batch-size", config.batch_size)
    if not config.learning_rates:
        raise ValueError("--learning-rates: expected at least one, got none")
    data, test = load(config)
    results = {kind: evaluate_kind(kind, seeds, data, test, config, run) for kind in KINDS}
    rows = {kind: result.metrics for kind, result in results.items()}
    predictors = {kind: result.predict for kind, result in results.items()}
    speeds = images_per_second(predictors, test.images, 0.0 if config.smoke else TIMING_SECONDS)
    for kind, speed in speeds.items():
        rows[kind]["images_per_s"] = speed

    strengths = {name: list(corruption.strengths) for name, corruption in CORRUPTIONS.items()}
    metrics = {"kinds": rows, "strengths": strengths, "config": runner.options_as_text(config)}
    cli.write_json(run.out / "metrics.json", metrics | cli.versions())
    data_name = "synthetic images" if config.smoke else config.data
    draw_robustness(rows, f"{data_name}: accuracy under a change of light", run.out / "robustness.png")
    lines = [f"Accuracy on {data_name} (mean of {len(seeds)}):", table(rows)]
    report.write_html(run.out, "scores", config, lines, FIGURES)
    print(report.as_text(lines))
    return metrics


def draw_robustness(rows: Mapping[str, Mapping[str, Any]], title: str, path: Path) -> None:
    """Draws the accuracy of each kind of layers by strength, a panel for each corruption."""
    panels = {}
    for name, corruption in CORRUPTIONS.items():
        lines = {kind: 100 * np.mean(row["robustness"][name], 0) for kind, row in rows.items()}
        panels[name] = (list(corruption.strengths), lines)
    figures.save(figures.panels(panels, ylabel="accuracy, %", title=title), path)


def table(rows: Mapping[str, Mapping[str, Any]]) -> report.Table:
    """A table of the accuracies, means over seeds: a row for each kind of layers, a column for each corruption."""
    columns = [
        (name, i, strength)
        for name, corruption in CORRUPTIONS.items()
        for i, strength in enumerate(corruption.strengths)
        if i > 0
    ]
    corruptions = [f"{name} {strength:g}" for name, _, strength in columns]
    cells = [["layer", "parameters", "learning rate", "unchanged", *corruptions, "images/s"]]
    for kind, row in rows.items():
        accuracies = {name: 100 * np.mean(by_seed, 0) for name, by_seed in row["robustness"].items()}
        cells.append(
            [
                kind,
                f"{row['parameters']:,}",
                f"{row['rate']:g}",
                f"{accuracies['noise'][0]:.2f} %",
                *(f"{accuracies[name][i]:.2f} %" for name, i, _ in columns),
                f"{row['images_per_s']:,.0f}",
            ]
        )
    return cells


if __name__ == "__main__":
    cli.run_script(lambda: runner.run_experiment(cli.parse_options(Scores, "scores", __doc__), main))
