"""What does it take to classify your own pictures? A folder for each class, and a minute or so.

A residual network (ResNet-9) is trained on pictures that are randomly flipped, rotated, scaled and cropped. Predictions
use test-time augmentation: the mean over each picture and its mirror image.

    python -m experiments.folder PICTURES                 train on PICTURES/CLASS/*.jpg, report on a validation set
    python -m experiments.folder classify IMAGE...        classify picture files with the network trained last
    python -m experiments.folder --smoke                  a test run on synthetic images, in seconds
"""

import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Sequence
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

from ._lib import classification, classification_report, cli, predict, runner, tta
from ._lib.synthetic import synthetic_dataset

OUT = Path("runs/folder")
NET = "resnet9"
MIN_SIZE = 32  # rows and columns that the network needs
LABEL_SMOOTHING = 0.1
SMOKE_IMAGES = 60
SMOKE_CLASSES = ("a", "b", "c")
SMOKE_STEPS = 6
SMOKE_FEATURES = 4
TTA_VIEWS = (tta.identity_view, tta.mirrored_view)


@dataclasses.dataclass(frozen=True)
class Train(runner.RunOptions):
    """Train a residual network on a folder that has a folder of pictures for each class."""

    pictures: tyro.conf.Positional[Path | None] = None
    """The folder that has a folder of pictures for each class."""
    size: int = 32
    """Rows and columns that every picture is scaled and cropped to, at least 32."""
    validation: float = 0.2
    """Fraction of each class in the validation set, which is not trained on."""
    steps: int = 500
    """Training steps."""
    batch_size: int = 64
    """Pictures in each step; all of them if there are fewer."""
    features: int = 16
    """Features of the first layer; the last layer has eight times as many."""
    learning_rate: float = 0.02
    """Highest learning rate of Muon; it falls to zero along a cosine."""
    seed: int = 0
    """Seed of all random numbers."""
    smoke: bool = False
    """Test that everything works: a few steps on synthetic images."""
    out: Path = OUT
    """Folder for report.html, the model, metrics.json and the figures."""


@dataclasses.dataclass(frozen=True)
class Classify:
    """Classify picture files, with the probability of the class."""

    pictures: tyro.conf.Positional[tuple[Path, ...]]
    """Picture files."""
    model: Path = OUT
    """Output folder of a training run."""


def augment_image(key: jax.Array, image: jax.Array) -> jax.Array:
    """A random flip, rotation, scale and crop."""
    keys = jax.random.split(key, 3)
    image = augment.affine(keys[0], augment.flip(keys[1], image), angle=0.15, scale=0.15, fill=0.0)
    return augment.crop(keys[2], image, border=max(image.shape[0] // 10, 1))


def load(config: Train) -> tuple[LabeledImages, LabeledImages]:
    """The training set and the validation set."""
    if config.smoke:
        return synthetic_dataset(SMOKE_IMAGES, config.size, 3, SMOKE_CLASSES)
    if config.pictures is None:
        raise ValueError("pictures: expected a folder that has a folder of pictures for each class, got none")
    return image_folder.load(config.pictures, size=config.size, validation=config.validation, seed=config.seed)


def train(config: Train, run: runner.Run) -> dict[str, Any]:
    """Trains, evaluates on the validation set, writes everything; returns the metrics."""
    steps = SMOKE_STEPS if config.smoke else cli.check_positive("--steps", config.steps)
    size = check_size(config.size)
    training, validation = load(config)
    classes = training.classes
    options = {"features": SMOKE_FEATURES if config.smoke else config.features, "classes": len(classes)}
    schedule = optax.cosine_decay_schedule(config.learning_rate, steps)
    trained = classification.train(
        run,
        "network",
        nets.resnet9(**options),
        training,
        optimizer=optax.contrib.muon(schedule, muon_weight_dimension_numbers=optimizers.muon_dimension_numbers),
        loss=classification.label_smoothing_loss(len(classes), LABEL_SMOOTHING),
        steps=steps,
        batch_size=min(cli.check_positive("--batch-size", config.batch_size), len(training.labels)),
        augment=classification.augment_each(augment_image),
        key=jax.random.key(config.seed),
    )
    save(run.out, trained.params, options, classes, size)
    log_probs = predict.predictor(trained.net, trained.params, TTA_VIEWS)(validation.images)
    metrics = {
        "accuracy": classification.accuracy(log_probs, validation.labels),
        "images": len(validation.labels),
        "trained_on": len(training.labels),
        "parameters": classification.trainable_parameters(trained.params),
        "training_seconds": trained.seconds,
        "config": runner.options_as_text(config),
    }
    report_results(config, run.out, trained, validation, log_probs, metrics)
    return metrics


def report_results(
    config: Train,
    out: Path,
    trained: runner.TrainingResult,
    validation: LabeledImages,
    log_probs: np.ndarray,
    metrics: dict[str, Any],
) -> None:
    """Writes metrics.json, figures and report.html; prints the result."""
    line = (
        f"{len(validation.classes)} classes: accuracy {100 * metrics['accuracy']:.1f} % on {metrics['images']} "
        "validation pictures"
    )
    classification_report.write_report(
        "folder",
        config,
        out,
        trained=trained,
        test=validation,
        log_probs=log_probs,
        metrics=metrics,
        results=[line],
    )
    print(f"{line}; everything is in {config.out}")


def check_size(size: int) -> int:
    """A size of pictures that the network can take.

    Raises:
      ValueError: a size below `MIN_SIZE` or larger than `image_io` reads.
      TypeError: no int.
    """
    if image_io.check_size(size) < MIN_SIZE:
        raise ValueError(f"size: expected at least {MIN_SIZE}, which the network needs, got {size}")
    return size


def save(out: Path, params: Any, options: dict[str, Any], classes: Sequence[str], size: int) -> None:
    """Writes the model file, then classes.json with the file's checksum.

    A run that ends between the two leaves a classes.json of an older model; the checksum shows it.
    """
    path = out / "model.safetensors"
    cnn_jax.save_params(path, params, net=NET, options=options)
    cli.write_json(out / "classes.json", {"model": checksum(path), "classes": classes, "size": size})


def checksum(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def classify(config: Classify) -> None:
    """Prints one line for each picture; exits with code 2 if one could not be read."""
    predict.classify_files(config.pictures, functools.partial(load_model, config.model))


def load_model(folder: Path) -> predict.FileClassifier:
    """The classifier of picture files in the output folder of a training run.

    Raises:
      ValueError: a model file or a classes.json that no training run writes, or that belong to different runs.
      OSError: a file that cannot be opened.
    """
    path = folder / "classes.json"
    model = folder / "model.safetensors"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        expected_checksum = content["model"]
        classes = check_classes(content["classes"])
        size = check_size(content["size"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: expected a file of a training run, got something else ({error})") from error
    if checksum(model) != expected_checksum:
        raise ValueError(f"{path}: does not belong to the model {model}, whose training did not finish; train again")
    net, params = predict.load_classifier(model, NET, (size, size, 3), len(classes))
    read_file = functools.partial(image_io.read_square, size=size)
    return predict.FileClassifier(predict.predictor(net, params, TTA_VIEWS), read_file, classes)


def check_classes(classes: Any) -> tuple[str, ...]:
    """The names of classes, from JSON."""
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes: expected a list of strings")
    if len(set(classes)) < len(classes):
        raise ValueError("classes: expected different names")
    return tuple(classes)


def main() -> None:
    """Runs the command that the arguments name."""
    if sys.argv[1:2] == ["classify"]:
        classify(cli.parse_options(Classify, "folder classify", Classify.__doc__, sys.argv[2:]))
    else:
        runner.run_experiment(cli.parse_options(Train, "folder", __doc__), train)


if __name__ == "__main__":
    cli.run_script(main)
