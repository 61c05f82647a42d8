"""Which kind of layer withstands a change of light? Networks of two stages, with convolutions and with each way of
matching.

Two layers of 3x3 features, pooling and votes, about as many parameters each (they differ by 1 %): convolution with ReLU
and max-pooling, and with max-abs-pooling and nothing else: convolution again, and the scores match, cosine, zncc and
sharpened cosine. Of several learning rates each kind has the one that reads most of a sixth of the training set kept
apart. All are trained on pictures as they are, then read test pictures that are brighter, paler and noisier.

Claim: on MNIST sharpened cosine similarity reads most as it is (98.72 %; convolution with ReLU 98.61 %) and under noise
(of a deviation of 0.5, with white at 1 and black at -1: 96.81 %, match 89.99, cosine 89.95, convolution 79.17, with
ReLU 75.18, zncc 44.95 %); zncc reads the same whatever the brightness and contrast (97.31 %). Match and convolution
differ in scale alone, and one withstands noise better: how features start and move counts for much here. Means of three
seeds, four epochs, 12,762 to 12,858 parameters; for all kinds but the convolutions the largest rate tried was chosen.
Evidence: the metrics.json of the first command below, run on an AMD EPYC.

    python -m experiments.scores                       choose rates and train three networks of each kind on MNIST
    python -m experiments.scores --data fashion-mnist
    python -m experiments.scores --smoke               a first try on generated pictures, in seconds
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax
import tyro

import cnn_jax
from cnn_jax import figures
from cnn_jax.data import mnist
from cnn_jax.data.dataset import LabeledImages, train_val_split

from ._lib import classification, cli, report, runner
from ._lib.benchmark import median_ms

SMOKE_BATCH = 40
APART = 1 / 6  # of the training set, to choose a learning rate by
SETTLE = 0.1  # seconds of a turn of timing
LEARN = {"p": 2.0, "q": 0.1}
Layers = Callable[[int], list[cnn_jax.Layer]]


def matching(score: Callable[..., jax.Array], learn: Mapping[str, float] | None = None) -> Layers:
    """Layers of one stage, for so many features."""
    return lambda features: [cnn_jax.Match(features, 3, score=score, learn=learn), cnn_jax.MaxAbsPool()]


def convolving(features: int) -> list[cnn_jax.Layer]:
    """What `match` is but for its scale: how much a kind owes to where its features start, and how fast they move."""
    return [cnn_jax.Conv(features, 3, use_bias=False), cnn_jax.MaxAbsPool()]


KINDS: Mapping[str, Layers] = {
    "conv + ReLU": lambda features: [
        cnn_jax.Conv(features, 3),
        cnn_jax.Activation(jax.nn.relu),
        cnn_jax.MaxPool(),
    ],
    "conv": convolving,
    "match": matching(cnn_jax.match),
    "cosine": matching(cnn_jax.cosine),
    "zncc": matching(cnn_jax.zncc),
    "sharpened cosine": matching(cnn_jax.sharpened_cosine, LEARN),
}

# What is done to pixels in [-1, 1], by strengths of which the first does nothing.
CHANGES: Mapping[str, tuple[Callable[[jax.Array, float], jax.Array], tuple[float, ...]]] = {
    "brightness": (lambda pixels, by: pixels + by, (0.0, 0.25, 0.5, 1.0)),
    "contrast": (lambda pixels, share: pixels * share, (1.0, 0.5, 0.25, 0.1)),
    "noise": (
        lambda pixels, sigma: pixels + sigma * jax.random.normal(jax.random.key(2**32 - 1), pixels.shape),
        (0.0, 0.25, 0.5, 1.0),
    ),
}

FIGURES = {"robustness.png": "Under a change of light: accuracy of each kind of layer, means over seeds, by strength"}


@dataclasses.dataclass(frozen=True)
class Scores(runner.RunOptions):
    """Train networks with six kinds of layers and compare them."""

    data: Literal["mnist", "fashion-mnist"] = "mnist"
    """The data set."""
    features: tuple[int, int] = (16, 32)
    """Features of the two layers."""
    epochs: int = 4
    """Passes over the training set."""
    batch_size: int = 128
    """Images for each step."""
    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
    """Highest learning rates of Adam to choose from; they fall to zero along a cosine."""
    seeds: int = 3
    """Networks of each kind."""
    seed: int = 0
    """The first seed; rates are chosen with it."""
    smoke: bool = False
    """A few steps on generated pictures, to see that everything works."""
    out: Path = Path("runs/scores")
    """Folder for report.html, metrics.json and the figure."""
    data_dir: Path | None = None
    """Folder with downloaded data sets, in place of CNN_JAX_DATA."""


def network(kind: str, features: tuple[int, int], classes: int) -> cnn_jax.Layer:
    """Two stages of a kind, then votes."""
    stages = [layer for some in features for layer in KINDS[kind](some)]
    return cnn_jax.Chain(*stages, cnn_jax.Flatten(), cnn_jax.Dense(classes))


def load(config: Scores) -> tuple[LabeledImages, LabeledImages]:
    """What to train on and what to report on."""
    if config.smoke:
        return classification.generated(6 * SMOKE_BATCH, 28, 1, mnist.CATALOG[config.data].classes)
    return (
        mnist.load(config.data, data_dir=config.data_dir),
        mnist.load(config.data, "test", data_dir=config.data_dir),
    )


def train(
    kind: str, rate: float, seed: int, data: LabeledImages, config: Scores, run: runner.Run
) -> runner.TrainingResult:
    """A network of a kind that has learned from the data."""
    batch_size = SMOKE_BATCH if config.smoke else config.batch_size
    steps = classification.steps_in(config.epochs, data, batch_size)
    return classification.train(
        run,
        f"{kind} {len(data.labels)} {rate:g} {seed}",
        network(kind, config.features, len(data.classes)),
        data,
        optimizer=optax.adam(optax.cosine_decay_schedule(rate, steps)),
        steps=steps,
        batch_size=batch_size,
        augment=classification.vary(lambda key, image: image),
        key=jax.random.key(seed),
    )


def choose(kind: str, data: LabeledImages, config: Scores, run: runner.Run) -> tuple[float, dict[str, float]]:
    """The learning rate that reads most of a part of the training set kept apart, and what each one reads."""
    if len(config.learning_rates) == 1:
        return config.learning_rates[0], {}
    learned, apart = train_val_split(data, APART)
    read = {}
    for rate in config.learning_rates:
        trained = train(kind, rate, config.seed, learned, config, run)
        read[rate] = classification.accuracy(
            classification.reader(trained.net, trained.params)(apart.images), apart.labels
        )
    return max(read, key=read.__getitem__), {f"{rate:g}": own for rate, own in read.items()}


def robustness(read: classification.Read, test: LabeledImages) -> dict[str, list[float]]:
    """Accuracy for every strength of every change."""
    pixels = classification.scaled(test.images)
    return {
        name: [
            classification.accuracy(read(np.asarray(change(pixels, strength))), test.labels) for strength in strengths
        ]
        for name, (change, strengths) in CHANGES.items()
    }


def images_per_second(
    readers: Mapping[str, classification.Read], images: np.ndarray, settle: float
) -> dict[str, float]:
    """How many images every network reads in a second: the median of turns that they take."""
    batch = np.asarray(classification.scaled(images[: classification.READ]))
    calls = {kind: functools.partial(read, batch) for kind, read in readers.items()}
    return {kind: 1e3 * len(batch) / taken for kind, taken in median_ms(calls, min_seconds=settle).items()}


def table(rows: Mapping[str, Mapping[str, Any]]) -> report.Table:
    """The comparison: means over seeds."""
    changes = [(name, i, s) for name, (_, strengths) in CHANGES.items() for i, s in enumerate(strengths) if i]
    heads = ["layer", "parameters", "rate", "as it is", *(f"{name} {s:g}" for name, _, s in changes), "images/s"]
    return [heads] + [
        [
            kind,
            f"{row['parameters']:,}",
            f"{row['rate']:g}",
            f"{100 * np.mean(row['robustness']['noise'], 0)[0]:.2f} %",
            *(f"{100 * np.mean(row['robustness'][name], 0)[i]:.2f} %" for name, i, _ in changes),
            f"{row['images_per_s']:,.0f}",
        ]
        for kind, row in rows.items()
    ]


def main(config: Scores, run: runner.Run) -> dict[str, Any]:
    """Chooses, trains and compares, writes everything; returns what metrics.json holds."""
    seeds = range(config.seed, config.seed + cli.check_positive("--seeds", config.seeds))
    cli.check_positive("--epochs", config.epochs)
    cli.check_positive("--batch-size", config.batch_size)
    if not config.learning_rates:
        raise ValueError("learning_rates: expected at least one, got none")
    data, test = load(config)
    rows, readers = {}, {}
    for kind in KINDS:
        rate, read = choose(kind, data, config, run)
        trained = [train(kind, rate, seed, data, config, run) for seed in seeds]
        each = [classification.reader(one.net, one.params) for one in trained]
        found = [robustness(reader, test) for reader in each]
        readers[kind] = each[0]
        rows[kind] = {
            "parameters": classification.learned_parameters(trained[0].params),
            "rate": rate,
            "read_apart": read,
            "robustness": {name: [one[name] for one in found] for name in CHANGES},
            "training_seconds": [one.seconds for one in trained],
        }
        as_they_are = ", ".join(f"{100 * one['noise'][0]:.2f} %" for one in found)
        print(f"{kind}: rate {rate:g}, {as_they_are}", flush=True)

    for kind, speed in images_per_second(readers, test.images, 0.0 if config.smoke else SETTLE).items():
        rows[kind]["images_per_s"] = speed
    strengths = {name: list(values) for name, (_, values) in CHANGES.items()}
    panels = {
        name: (values, {kind: 100 * np.mean(row["robustness"][name], 0) for kind, row in rows.items()})
        for name, values in strengths.items()
    }
    pictures = "generated pictures" if config.smoke else config.data
    figure = figures.panels(panels, ylabel="accuracy, %", title=f"{pictures}: read under a change of light")
    figures.save(figure, run.out / "robustness.png")
    metrics = {"kinds": rows, "strengths": strengths, "config": runner.options_as_text(config)}
    cli.write_json(run.out / "metrics.json", metrics | cli.versions())
    came_out = [f"Accuracy on {pictures} (mean of {len(seeds)}):", table(rows)]
    report.write_html(run.out, "scores", config, came_out, FIGURES)
    print(report.as_text(came_out))
    return metrics


if __name__ == "__main__":
    cli.run_script(lambda: runner.run_experiment(tyro.cli(Scores, description=__doc__), main))
