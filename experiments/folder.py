"""What does it take to tell your own pictures apart? A folder for each class, and a minute or so.

python -m experiments.folder PICTURES                 train on PICTURES/CLASS/*.jpg, report on a part kept apart
python -m experiments.folder classify IMAGE...        read picture files with the network trained last
python -m experiments.folder --smoke                  a first try on generated pictures, in seconds
"""

import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import optax.contrib
import tyro

import cnn_jax
from cnn_jax import augment, nets, optimizers
from cnn_jax.data import image_folder, image_io
from cnn_jax.data.dataset import LabeledImages

from ._lib import classification, cli, runner

OUT = Path("runs/folder")
NET = "resnet9"
SMALLEST = 32
VIEWS = (lambda batch: batch, lambda batch: batch[:, :, ::-1])


@dataclasses.dataclass(frozen=True)
class Train(runner.RunOptions):
    """Train a residual network on a folder of folders of pictures."""

    pictures: tyro.conf.Positional[Path | None] = None
    """The folder that has a folder of pictures for each class."""
    size: int = 32
    """Rows and columns that every picture is made; 32 at least."""
    validation: float = 0.2
    """The share of each class that is kept apart and reported on."""
    steps: int = 500
    """Training steps."""
    batch_size: int = 64
    """Pictures for each step; all of them if there are fewer."""
    features: int = 16
    """Features of the first layer; the last have eight times as many."""
    learning_rate: float = 0.02
    """Highest learning rate of Muon; it falls to zero along a cosine."""
    seed: int = 0
    """Seed of everything random."""
    smoke: bool = False
    """A few steps on generated pictures, to see that everything works."""
    out: Path = OUT
    """Folder for report.html, the model, metrics.json and the figures."""


@dataclasses.dataclass(frozen=True)
class Classify:
    """Say for each picture file which class it is of, and how surely."""

    pictures: tyro.conf.Positional[tuple[Path, ...]]
    """Picture files."""
    model: Path = OUT
    """Folder that a training wrote to."""


def vary(key: jax.Array, image: jax.Array) -> jax.Array:
    """Mirrors, turns, scales and moves an image a little."""
    keys = jax.random.split(key, 3)
    image = augment.affine(keys[0], augment.flip(keys[1], image), angle=0.15, scale=0.15, fill=0.0)
    return augment.crop(keys[2], image, border=max(image.shape[0] // 10, 1))


def load(config: Train) -> tuple[LabeledImages, LabeledImages]:
    """What to train on and what to report on."""
    if config.smoke:
        return classification.generated(60, config.size, 3, ("a", "b", "c"))
    if config.pictures is None:
        raise ValueError("pictures: expected a folder of folders of pictures, got none")
    return image_folder.load(config.pictures, size=config.size, validation=config.validation, seed=config.seed)


def train(config: Train, run: runner.Run) -> dict[str, Any]:
    """Trains, reports on what was kept apart, writes everything; returns what metrics.json holds."""
    steps, size = 6 if config.smoke else cli.check_positive("--steps", config.steps), side(config.size)
    known, kept = load(config)
    options = {"features": 4 if config.smoke else config.features, "classes": len(known.classes)}
    rate = optax.cosine_decay_schedule(config.learning_rate, steps)
    trained = classification.train(
        run,
        "network",
        nets.resnet9(**options),
        known,
        optimizer=optax.contrib.muon(rate, muon_weight_dimension_numbers=optimizers.muon_dimension_numbers),
        loss=classification.smoothed(len(known.classes), 0.1),
        steps=steps,
        batch_size=min(cli.check_positive("--batch-size", config.batch_size), len(known.labels)),
        augment=classification.vary(vary),
        key=jax.random.key(config.seed),
    )
    save(run.out, trained.params, options, known.classes, size)
    scores = classification.reader(trained.net, trained.params, VIEWS)(kept.images)
    metrics = {
        "accuracy": classification.accuracy(scores, kept.labels),
        "images": len(kept.labels),
        "trained_on": len(known.labels),
        "parameters": classification.learned_parameters(trained.params),
        "training_seconds": trained.seconds,
        "config": runner.options_as_text(config),
    }
    line = (
        f"{len(known.classes)} classes: {100 * metrics['accuracy']:.1f} % of {metrics['images']} pictures that were "
        "kept apart"
    )
    classification.write_up("folder", config, run.out, trained, kept, scores, metrics, [line])
    print(f"{line}; everything is in {config.out}")
    return metrics


def side(size: int) -> int:
    """A size of pictures that the network can read."""
    if image_io.check_size(size) < SMALLEST:
        raise ValueError(f"size: expected at least {SMALLEST}, which the network needs, got {size}")
    return size


def save(out: Path, params: Any, options: dict[str, Any], classes: Sequence[str], size: int) -> None:
    """Writes the model, and then what its votes mean, with its checksum: a run can end between the two."""
    path = out / "model.safetensors"
    cnn_jax.save_params(path, params, net=NET, options=options)
    cli.write_json(out / "classes.json", {"model": checksum(path), "classes": classes, "size": size})


def checksum(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def classify(config: Classify) -> None:
    """Prints one line a picture; exits with code 2 if one could not be read."""
    classification.classify(config.pictures, functools.partial(load_model, config.model))


def load_model(model: Path) -> tuple[classification.Read, Callable[[Path], np.ndarray], tuple[str, ...]]:
    """What `classification.classify` needs, from the folder that a training wrote to."""
    path, weights = model / "classes.json", model / "model.safetensors"
    try:
        meant = json.loads(path.read_text(encoding="utf-8"))
        expected, classes, size = meant["model"], meant["classes"], side(meant["size"])
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ValueError("classes: expected a list of texts")
        if len(set(classes)) < len(classes):
            raise ValueError("classes: expected no name twice")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not what a training writes ({error})") from error
    if checksum(weights) != expected:
        raise ValueError(f"{path}: not of the model {weights}, whose training did not end; train again")
    net, params = classification.load(weights, NET, (size, size, 3), len(classes))
    return classification.reader(net, params, VIEWS), functools.partial(image_io.read_square, size=size), tuple(classes)


def main() -> None:
    """Runs the command that the arguments name."""
    if sys.argv[1:2] == ["classify"]:
        classify(tyro.cli(Classify, prog="experiments.folder classify", args=sys.argv[2:]))
    else:
        runner.run_experiment(tyro.cli(Train, prog="experiments.folder", description=__doc__), train)


if __name__ == "__main__":
    cli.run_script(main)
