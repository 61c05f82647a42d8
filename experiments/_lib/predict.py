"""Predictions of a trained classifier: batched log-probabilities, its model file, and the classes of picture files."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Shaped

import cnn_jax
from cnn_jax import nets

from . import cli, tta
from .classification import to_pixels

BATCH_SIZE = 250  # images in a call of the compiled program


class Predict(Protocol):
    """Log-probabilities (N, K) of images (N, H, W) or (N, H, W, C), bytes or pixels in [-1, 1], for any N."""

    def __call__(self, images: np.ndarray, /) -> Float[np.ndarray, "N K"]: ...


def predictor(
    net: cnn_jax.Layer,
    params: Any,
    views: Sequence[tta.View] = (tta.identity_view,),
    weights: Sequence[float] | None = None,
) -> Predict:
    """The function that predicts by `tta.tta_log_probs`, with one compiled program on all devices."""

    def apply(
        params: Any, image: Shaped[ArrayLike, "H W C"], *, train: bool = False, key: jax.Array | None = None
    ) -> jax.Array:
        return tta.tta_log_probs(net, params, to_pixels(jnp.asarray(image)[None]), views, weights)[0]

    log_probs_net = cnn_jax.Layer(net.init, apply, "tta")
    return lambda images: cnn_jax.predict(log_probs_net, params, images, batch_size=BATCH_SIZE)


def load_classifier(path: Path, name: str, shape: tuple[int, int, int], classes: int) -> tuple[cnn_jax.Layer, Any]:
    """The network and parameters of a model file.

    Args:
      path: a file of `cnn_jax.save_params`.
      name: the function of `cnn_jax.nets` that makes the network.
      shape: (H, W, C) of its images.
      classes: the number of its outputs.

    Raises:
      ValueError: another network, or parameters that do not fit it or are not finite; the message names the file.
      OSError: a file that cannot be opened.
    """
    params, saved_name, options = cnn_jax.load_params(path)
    if saved_name != name:
        raise ValueError(f"{path}: expected a model of {name}, got one of {saved_name!r}")
    try:
        net = getattr(nets, name)(**options)
        expected = jax.eval_shape(lambda key: net.init(key, shape), jax.random.key(0))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected options of {name}, got {options} ({error})") from error
    shapes_match = _shapes_and_dtypes(params) == _shapes_and_dtypes(expected)
    if not shapes_match or jax.eval_shape(net.apply, expected, jnp.zeros(shape)).shape != (classes,):
        raise ValueError(f"{path}: the parameters do not fit {name} with {classes} classes and the options {options}")
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        raise ValueError(f"{path}: expected finite parameters, got infinity or NaN")
    return net, params


def _shapes_and_dtypes(params: Any) -> Any:
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)


class FileClassifier(NamedTuple):
    """What `classify_files` needs to classify picture files."""

    predict: Predict
    read_file: Callable[[Path], np.ndarray]
    """Reads a picture file as one image for `predict`; raises a ValueError or an OSError when it cannot."""
    classes: Sequence[str]


def classify_files(files: Sequence[Path], load: Callable[[], FileClassifier]) -> None:
    """Prints the class and its probability for every picture file, one line each.

    A file that cannot be read gives a line on stderr. All others are classified; then the script exits with code 2.

    Raises:
      ValueError: no files.
    """
    if not files:
        raise ValueError("pictures: expected at least one file, got none")
    classifier = load()
    readable = 0
    for start in range(0, len(files), BATCH_SIZE):
        images = list(_read_files(files[start : start + BATCH_SIZE], classifier.read_file))
        readable += len(images)
        if images:
            _print_classes(images, classifier)
    if readable < len(files):
        sys.stdout.flush()
        cli.exit_with_error(f"{len(files) - readable} of {len(files)} pictures could not be read")


def _read_files(files: Sequence[Path], read_file: Callable[[Path], np.ndarray]) -> Iterator[tuple[Path, np.ndarray]]:
    for file in files:
        try:
            yield file, read_file(file)
        except (ValueError, OSError) as error:
            print(cli.one_line_error(error), file=sys.stderr)


def _print_classes(images: Sequence[tuple[Path, np.ndarray]], classifier: FileClassifier) -> None:
    weights = np.exp(classifier.predict(np.stack([image for _, image in images])))
    probabilities = weights / weights.sum(-1, keepdims=True)  # the mean of log-probabilities is not normalized
    for (file, _), row in zip(images, probabilities, strict=True):
        print(f"{file}: {classifier.classes[row.argmax()]} {row.max():.4f}")
