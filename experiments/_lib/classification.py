"""Training of image classifiers: the number of steps, augmentation, the loss, training from several seeds, accuracy."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

import cnn_jax
from cnn_jax.data.dataset import LabeledImages
from cnn_jax.data.pixels import from_uint8

from . import runner

CALIBRATION_IMAGES = 5000  # for the statistics of BatchNorm; up to twice as many are taken


def to_pixels(images: Any) -> jax.Array:
    """Bytes as pixels in [-1, 1], (N, H, W, C); floats are pixels already."""
    images = jnp.asarray(images)
    pixels = images if jnp.issubdtype(images.dtype, jnp.floating) else from_uint8(images)
    return pixels if pixels.ndim == 4 else pixels[..., None]


def training_steps(epochs: int, data: LabeledImages, batch_size: int) -> int:
    """The number of whole batches in `epochs` passes over the data.

    Raises:
      ValueError: a batch larger than the data.
    """
    if batch_size > len(data.labels):
        raise ValueError(
            f"batch_size: expected at most the number of training images ({len(data.labels)}), got {batch_size}"
        )
    return epochs * (len(data.labels) // batch_size)


class AugmentImage(Protocol):
    """A random variation of one image (H, W, C) in [-1, 1]."""

    def __call__(self, key: jax.Array, image: jax.Array, /) -> jax.Array: ...


def augment_each(augment_image: AugmentImage) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Augmentation for `fit`: converts a batch to pixels in [-1, 1] and varies every image independently."""

    def augment(key: jax.Array, batch: Any) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(key, len(batch.images))
        return jax.vmap(augment_image)(keys, to_pixels(batch.images)), batch.labels

    return augment


class ClassLoss(Protocol):
    """The loss of one image's logits (K,) for its integer label."""

    def __call__(self, logits: Float[Array, " K"], label: Int[Array, ""], /) -> Float[Array, ""]: ...


def label_smoothing_loss(classes: int, smoothing: float) -> ClassLoss:
    """Cross-entropy with label smoothing: `smoothing` of the label's weight is spread evenly over all classes.

        loss = -sum over k of ((1 - smoothing) [k = label] + smoothing / classes) log_softmax(logits)[k]

    Source: Szegedy et al., "Rethinking the Inception Architecture" (2016), https://arxiv.org/abs/1512.00567.

    >>> loss = label_smoothing_loss(2, 0.5)
    >>> print(f"{loss(jnp.array([0.0, jnp.log(3.0)]), jnp.array(1)):.3f}")
    0.562
    """

    def loss(logits: Float[Array, " K"], label: Int[Array, ""]) -> Float[Array, ""]:
        one_hot = jax.nn.one_hot(label, classes, dtype=logits.dtype)
        return optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, smoothing))

    return loss


def train(run: runner.Run, name: str, net: cnn_jax.Layer, data: LabeledImages, **options: Any) -> runner.TrainingResult:
    """Trains a network by `runner.fit_with_checkpoints`, then calibrates its BatchNorm layers on all classes."""
    # `fit` would calibrate on augmented images.
    trained = runner.fit_with_checkpoints(run, name, net, (data.images, data.labels), calibrate=False, **options)
    stride = max(len(data.images) // CALIBRATION_IMAGES, 1)  # evenly spaced, since images may be sorted by class
    pixels = to_pixels(data.images[::stride])
    return trained._replace(params=cnn_jax.calibrate(net, trained.params, pixels))


class SeedResults(NamedTuple):
    """What `train_seeds` returns."""

    first: runner.TrainingResult
    """The training of the first seed."""
    log_probs: list[Float[np.ndarray, "N K"]]
    """The predictions of every network on the test set."""
    metrics: dict[str, Any]
    """Accuracies and training times, for metrics.json."""


def train_seeds(
    seeds: Sequence[int],
    out: Path,
    *,
    train_one: Callable[[str, jax.Array], runner.TrainingResult],
    save_one: Callable[[Path, runner.TrainingResult], None],
    predict_test: Callable[[runner.TrainingResult], Float[np.ndarray, "N K"]],
    labels: Int[np.ndarray, " N"],
) -> SeedResults:
    """Trains one network from every seed, saves it as `model_SEED.safetensors` and evaluates it on the test set.

    Args:
      seeds: at least one.
      out: folder for the model files.
      train_one: trains a network, given the name of its checkpoints and a key.
      save_one: writes a model file.
      predict_test: a network's log-probabilities on the test set.
      labels: of the test set.
    """
    trainings: list[runner.TrainingResult] = []
    log_probs: list[np.ndarray] = []
    accuracies: list[float] = []
    for seed in seeds:
        trained = train_one(f"seed_{seed}", jax.random.key(seed))
        save_one(out / f"model_{seed}.safetensors", trained)
        trainings.append(trained)
        log_probs.append(predict_test(trained))
        accuracies.append(accuracy(log_probs[-1], labels))
        print(f"seed {seed}: accuracy {100 * accuracies[-1]:.2f} % in {trained.seconds:.0f} s", flush=True)
    metrics = {
        "accuracy": float(np.mean(accuracies)),
        "accuracies": accuracies,
        "deviation": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
        "images": len(labels),
        "training_seconds": [trained.seconds for trained in trainings],
        "resumed_after": [trained.resumed_after for trained in trainings],
    }
    return SeedResults(trainings[0], log_probs, metrics)


def accuracy(log_probs: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> float:
    """The fraction of images whose most probable class is their label.

    >>> accuracy(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([1, 1]))
    0.5
    """
    return float(np.mean(log_probs.argmax(-1) == labels))


def confusion_matrix(
    log_probs: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], classes: int
) -> Int[np.ndarray, "K K"]:
    """How many images of each class (row) were predicted as each class (column).

    >>> confusion_matrix(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]), np.array([1, 1, 0]), 2)
    array([[1, 0],
           [1, 1]])
    """
    matrix = np.zeros((classes, classes), int)
    np.add.at(matrix, (labels, log_probs.argmax(-1)), 1)
    return matrix


def trainable_parameters(params: Any) -> int:
    """The number of learned parameters: all but the means and variances of BatchNorm.

    >>> trainable_parameters({"batch_norm1": {"scale": np.ones(4), "mean": np.zeros(4)}})
    4
    """
    paths = jax.tree_util.tree_leaves_with_path(params)
    return sum(leaf.size for path, leaf in paths if path[-1].key not in ("mean", "variance"))
