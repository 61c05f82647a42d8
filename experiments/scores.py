"""Which kind of layer stands a change of light? The same network with convolutions and with each way of matching.

Two layers of 3x3 features, pooling and votes, about as many parameters each: convolution with ReLU, and in its place
the scores match, cosine, zncc and sharpened cosine, with max-abs-pooling. All are trained on pictures as they are, then
read pictures that are brighter, paler and noisier.

Claim: on MNIST convolutions read most pictures as they are (98.92 %, against 92.28 to 96.75 %), zncc the same whatever
the brightness and contrast (95.82 %), and match, cosine and sharpened cosine stand noise: of a deviation of 0.5, with
white at 1 and black at -1, 89.93, 90.45 and 93.23 %, against 66.85 % with convolutions and 68.74 % with zncc (one seed,
four epochs, 12,762 to 12,858 parameters).
Evidence: the metrics.json of the first command below, run on an AMD EPYC.

    python -m experiments.scores                       train five networks on MNIST
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
from cnn_jax.data import idx
from cnn_jax.data.labelled import Labelled
from cnn_jax.windows import count

from . import common, learning
from .contest import medians

SMOKE_BATCH = 40
SETTLE = 0.1  # seconds of a turn of timing
LEARN = {"p": 2.0, "q": 0.1}
Layers = Callable[[int], list[cnn_jax.Layer]]


def matching(score: Callable[..., jax.Array], learn: Mapping[str, float] | None = None) -> Layers:
    """Layers of one stage, for so many features."""
    return lambda features: [cnn_jax.Match(features, 3, score=score, learn=learn), cnn_jax.MaxAbsPool()]


KINDS: Mapping[str, Layers] = {
    "conv + ReLU": lambda features: [
        cnn_jax.Conv(features, 3),
        cnn_jax.Activation(jax.nn.relu),
        cnn_jax.MaxPool(),
    ],
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
        lambda pixels, sigma: pixels + sigma * jax.random.normal(jax.random.key(1), pixels.shape),
        (0.0, 0.25, 0.5, 1.0),
    ),
}


@dataclasses.dataclass(frozen=True)
class Scores:
    """Train the same network with five kinds of layers and compare them."""

    data: Literal["mnist", "fashion-mnist"] = "mnist"
    """The data set."""
    features: tuple[int, int] = (16, 32)
    """Features of the two layers."""
    epochs: int = 4
    """Passes over the training set."""
    batch_size: int = 128
    """Images for each step."""
    learning_rate: float = 0.003
    """Highest learning rate of Adam; it falls to zero along a cosine."""
    seed: int = 0
    """Seed of everything random."""
    smoke: bool = False
    """A few steps on generated pictures, to see that everything works."""
    out: Path = Path("runs/scores")
    """Folder for metrics.json, the table and the figure."""
    data_dir: Path | None = None
    """Folder with downloaded data sets, in place of CNN_JAX_DATA."""


def network(kind: str, features: tuple[int, int], classes: int) -> cnn_jax.Layer:
    """Two stages of a kind, then votes."""
    stages = [layer for some in features for layer in KINDS[kind](some)]
    return cnn_jax.Chain(*stages, cnn_jax.Flatten(), cnn_jax.Dense(classes))


def load(config: Scores) -> tuple[Labelled, Labelled]:
    """What to train on and what to report on."""
    if config.smoke:
        return learning.generated(10 * SMOKE_BATCH, 28, 1, idx.SOURCES[config.data].classes)
    return (
        idx.load(config.data, data_dir=config.data_dir),
        idx.load(config.data, "test", data_dir=config.data_dir),
    )


def robustness(read: learning.Read, test: Labelled) -> dict[str, list[float]]:
    """Accuracy for every strength of every change."""
    pixels = learning.scaled(test.images)
    return {
        name: [learning.accuracy(read(np.asarray(change(pixels, strength))), test.labels) for strength in strengths]
        for name, (change, strengths) in CHANGES.items()
    }


def images_per_second(readers: Mapping[str, learning.Read], images: np.ndarray) -> dict[str, float]:
    """How many images every network reads in a second: the median of turns that they take."""
    batch = np.asarray(learning.scaled(images[: learning.READ]))
    calls = {kind: functools.partial(read, batch) for kind, read in readers.items()}
    return {kind: 1e3 * len(batch) / taken for kind, taken in medians(calls, settle=SETTLE).items()}


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The comparison as a Markdown table."""
    changes = [(name, i, s) for name, (_, strengths) in CHANGES.items() for i, s in enumerate(strengths) if i]
    heads = ["layer", "parameters", "as it is", *(f"{name} {s:g}" for name, _, s in changes), "images/s"]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    lines += [
        [
            kind,
            f"{row['parameters']:,}",
            f"{100 * row['accuracy']:.2f} %",
            *(f"{100 * row['robustness'][name][i]:.2f} %" for name, i, _ in changes),
            f"{row['images_per_s']:,.0f}",
        ]
        for kind, row in rows.items()
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(config: Scores) -> dict[str, Any]:
    """Trains and compares, writes everything; returns what metrics.json holds."""
    epochs, batch_size = count("epochs", config.epochs), count("batch_size", config.batch_size)
    batch_size = SMOKE_BATCH if config.smoke else batch_size
    out = common.make_writable(config.out)
    train, test = load(config)
    steps = learning.steps_in(epochs, train, batch_size)
    rows, readers = {}, {}
    for kind in KINDS:
        trained = learning.train(
            network(kind, config.features, len(train.classes)),
            train,
            optimizer=optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps)),
            steps=steps,
            batch_size=batch_size,
            augment=learning.vary(lambda key, image: image),
            key=jax.random.key(config.seed),
        )
        readers[kind] = learning.reader(trained.net, trained.params)
        found = robustness(readers[kind], test)
        rows[kind] = {
            "parameters": learning.learned_parameters(trained.params),
            "accuracy": found["noise"][0],
            "robustness": found,
            "training_seconds": trained.seconds,
        }
        print(f"{kind}: {100 * rows[kind]['accuracy']:.2f} % in {trained.seconds:.0f} s")

    for kind, speed in images_per_second(readers, test.images).items():
        rows[kind]["images_per_s"] = speed
    strengths = {name: list(values) for name, (_, values) in CHANGES.items()}
    panels = {
        name: (values, {kind: 100 * np.array(row["robustness"][name]) for kind, row in rows.items()})
        for name, values in strengths.items()
    }
    figure = figures.panels(panels, ylabel="accuracy, %", title=f"{config.data}: read under a change of light")
    figures.save(figure, out / "robustness.png")
    text = table(rows)
    common.write_text(out / "report.md", f"# Kinds of layers\n\n{text}\n\n![robustness](robustness.png)\n")
    metrics = {"kinds": rows, "strengths": strengths, "epochs": epochs, "config": learning.settings(config)}
    common.write_json(out / "metrics.json", metrics | common.versions())
    print(text)
    return metrics


if __name__ == "__main__":
    common.run(lambda: main(tyro.cli(Scores, description=__doc__)))
