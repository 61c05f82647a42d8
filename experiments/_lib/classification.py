"""What the experiments that learn from labelled pictures share: training, reading, figures and metrics."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cnn_jax
from cnn_jax import explain, figures, nets
from cnn_jax.data.dataset import LabeledImages

from . import cli, report, runner

READ = 250  # images read at a time
CALIBRATED = 5000  # images, or up to twice as many, that BatchNorm's statistics are taken from
# What `mistakes` and `draw_training` draw.
MISTAKES = {
    "confusion.png": "Confusion matrix: how often images of each class (rows) were read as each class (columns)",
    "mistakes.png": "The surest mistakes: above each image its number, its class and what it was read as",
}
TRAINING = {
    "curves.png": "Training: the loss and the share of images read wrong, both running means on a logarithmic scale",
    "features.png": "First features: the kernels of the first layer, black the most negative, white the most positive",
}
View = Callable[[jax.Array], jax.Array]
Read = Callable[[Any], np.ndarray]


def scaled(images: Any) -> jax.Array:
    """Bytes as pixels in [-1, 1], (N, H, W, C); floats are pixels already."""
    images = jnp.asarray(images)
    pixels = images if jnp.issubdtype(images.dtype, jnp.floating) else images.astype(jnp.float32) / 127.5 - 1
    return pixels if pixels.ndim == 4 else pixels[..., None]


def generated(count: int, size: int, channels: int, classes: Sequence[str]) -> tuple[LabeledImages, LabeledImages]:
    """Pictures for a first try, to train on and to test on: for each class a blotch of its own under noise."""
    generator = np.random.default_rng(0)
    shape = (size, size, channels) if channels > 1 else (size, size)
    coarse = generator.uniform(0, 255, (len(classes), 4, 4, channels))
    places = np.arange(size) * 4 // size
    blotches = coarse[:, places][:, :, places].reshape(len(classes), *shape)

    def draw() -> LabeledImages:
        labels = np.arange(count, dtype=np.int32) % len(classes)
        noisy = blotches[labels] + generator.normal(0, 40, (count, *shape))
        return LabeledImages(np.clip(noisy, 0, 255).astype(np.uint8), labels, tuple(classes))

    return draw(), draw()


def steps_in(epochs: int, data: LabeledImages, batch_size: int) -> int:
    """The steps of so many passes over the data."""
    if batch_size > len(data.labels):
        raise ValueError(f"batch_size: expected at most the {len(data.labels)} images to train on, got {batch_size}")
    return epochs * (len(data.labels) // batch_size)


def vary(image: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """For `fit(augment=...)`: scales the pixels and varies every image by `image(key, pixels)`."""

    def augment(key: jax.Array, batch: Any) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(image)(jax.random.split(key, len(batch.images)), scaled(batch.images)), batch.labels

    return augment


def train(run: runner.Run, name: str, net: cnn_jax.Layer, data: LabeledImages, **options: Any) -> runner.TrainingResult:
    """`runner.fit_with_checkpoints`, and then the population's statistics for BatchNorm."""
    trained = runner.fit_with_checkpoints(run, name, net, (data.images, data.labels), **options)
    some = data.images[:: max(len(data.images) // CALIBRATED, 1)]  # of all classes, whether sorted or mixed
    return trained._replace(params=cnn_jax.calibrate(net, trained.params, scaled(some)))


def train_each(
    seeds: Sequence[int],
    out: Path,
    train_one: Callable[[str, jax.Array], runner.TrainingResult],
    save_one: Callable[[Path, runner.TrainingResult], None],
    read: Callable[[runner.TrainingResult], np.ndarray],
    labels: np.ndarray,
) -> tuple[runner.TrainingResult, list[np.ndarray], dict[str, Any]]:
    """Trains a network from every seed and saves it; returns the first, all scores of the test set, and metrics."""
    first, scores, seconds, resumed = None, [], [], []
    for seed in seeds:
        trained = train_one(f"seed_{seed}", jax.random.key(seed))
        save_one(out / f"model_{seed}.safetensors", trained)
        first = first or trained
        scores.append(read(trained))
        seconds.append(trained.seconds)
        resumed.append(trained.resumed_after)
        print(f"seed {seed}: {100 * accuracy(scores[-1], labels):.2f} % in {trained.seconds:.0f} s", flush=True)
    assert first is not None
    each = [accuracy(own, labels) for own in scores]
    metrics = {
        "accuracy": float(np.mean(each)),
        "accuracies": each,
        "deviation": float(np.std(each, ddof=1)) if len(each) > 1 else None,
        "images": len(labels),
        "training_seconds": seconds,
        "resumed_after": resumed,
    }
    return first, scores, metrics


def moved(down: int, right: int, mirrored: bool = False) -> View:
    """A view of images: moved by up to one pixel along each axis, what comes in being reflected, and mirrored."""

    def view(images: jax.Array) -> jax.Array:
        rows, columns = images.shape[1:3]
        framed = jnp.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")
        images = framed[:, 1 - down : 1 - down + rows, 1 - right : 1 - right + columns]
        return images[:, :, ::-1] if mirrored else images

    return view


def opinion(
    net: cnn_jax.Layer,
    params: Any,
    pixels: jax.Array,
    views: Sequence[View] = (lambda pixels: pixels,),
    weights: Sequence[float] | None = None,
) -> jax.Array:
    """Scores of all classes, (N, K), for pixels (N, H, W, C): the mean log-probability over several views of every
    image, which count as `weights` say, or alike."""
    seen = jnp.concatenate([view(pixels) for view in views])  # through the network at once: one to compile
    scores = jax.nn.log_softmax(jax.vmap(net.apply, (None, 0))(params, seen))
    shape = (len(views), len(pixels), scores.shape[-1])
    return jnp.average(scores.reshape(shape), axis=0, weights=None if weights is None else jnp.array(weights))


def reader(net: cnn_jax.Layer, params: Any, *views: Any) -> Read:
    """What gives a network's `opinion` of images, bytes or pixels (N, ...), however many, through one program."""

    @jax.jit
    def read_some(params: Any, batch: jax.Array) -> jax.Array:
        return opinion(net, params, scaled(batch), *views)

    def read(images: Any) -> np.ndarray:
        padded = np.concatenate([images, np.zeros((-len(images) % READ, *images.shape[1:]), images.dtype)])
        parts = [read_some(params, padded[i : i + READ]) for i in range(0, len(padded), READ)]
        return np.concatenate(parts)[: len(images)]

    return read


def classify(
    files: Sequence[Path], load: Callable[[], tuple[Read, Callable[[Path], np.ndarray], Sequence[str]]]
) -> None:
    """Prints for each picture file its class and how sure that is; exits with code 2 if one could not be read.

    `load()` gives what reads images, what makes one of a file, and the classes.
    """
    if not files:
        raise ValueError("pictures: expected at least one file, got none")
    read, open_one, classes = load()
    unread = 0
    for start in range(0, len(files), READ):
        opened = {}
        for i, file in enumerate(files[start : start + READ], start):
            try:
                opened[i] = open_one(file)
            except (ValueError, OSError) as error:
                print(cli.one_line_error(error), file=sys.stderr)
                unread += 1
        if opened:
            shares = np.exp(read(np.stack(list(opened.values()))))
            for i, own in zip(opened, shares / shares.sum(-1, keepdims=True), strict=True):
                print(f"{files[i]}: {classes[own.argmax()]} {own.max():.4f}")
    if unread:
        sys.stdout.flush()
        cli.exit_with_error(f"{unread} of {len(files)} pictures could not be read")


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose own class scores most."""
    return float(np.mean(scores.argmax(-1) == labels))


def smoothed(classes: int, share: float) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Cross-entropy with labels of which `share` is spread over all classes."""

    def loss(scores: jax.Array, label: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy(
            scores, optax.smooth_labels(jax.nn.one_hot(label, classes, dtype=scores.dtype), share)
        )

    return loss


def learned_parameters(params: Any) -> int:
    """How many numbers were learned: all but BatchNorm's means and variances, which are the data's."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    return sum(leaf.size for path, leaf in paths if path[-1].key not in ("mean", "variance"))


def mistakes(out: Path, test: LabeledImages, scores: np.ndarray, title: str) -> tuple[np.ndarray, np.ndarray]:
    """Draws what was read as what, and the surest mistakes; returns the confusion matrix and where the mistakes are."""
    read_as = scores.argmax(-1)
    matrix = np.zeros((len(test.classes), len(test.classes)), int)
    np.add.at(matrix, (test.labels, read_as), 1)
    figures.save(figures.confusion(matrix, test.classes, title=title), out / "confusion.png")

    wrong = np.flatnonzero(read_as != test.labels)
    if len(wrong):
        shown = dict(zip(wrong.tolist(), np.asarray(scaled(test.images[wrong])), strict=True))
        figures.save(figures.mistakes(shown, test.labels, scores, test.classes), out / "mistakes.png")
    else:
        (out / "mistakes.png").unlink(missing_ok=True)
    return matrix, wrong


def draw_training(out: Path, params: Any, history: dict[str, np.ndarray]) -> None:
    """Draws how a training went, curves.png, and the first kernels that it ended with, features.png."""
    lines = {"loss": history["loss"], "share read wrong": 1 - history["accuracy"]}
    width = max(len(lines["loss"]) // 50, 1)
    smooth = {name: np.convolve(line, np.full(width, 1 / width), "valid") for name, line in lines.items()}
    steps = np.arange(len(smooth["loss"])) + width
    figure = figures.curves(steps, smooth, xlabel="step", ylabel=f"mean of {width} steps", title="Training", log=True)
    figures.save(figure, out / "curves.png")

    features = figures.image_grid(
        np.asarray(explain.kernels_as_images(params)), columns=8, title="Features of the first layer"
    )
    figures.save(features, out / "features.png")


def write_up(
    name: str,
    config: Any,
    out: Path,
    trained: runner.TrainingResult,
    test: LabeledImages,
    scores: np.ndarray,
    metrics: dict[str, Any],
    came_out: Sequence[str | report.Table],
) -> None:
    """Writes metrics.json, the figures (curves, confusion, mistakes, first features) and report.html."""
    cli.write_json(out / "metrics.json", metrics | cli.versions())
    matrix, _ = mistakes(out, test, scores, "What was read as what")
    draw_training(out, trained.params, trained.history)
    report.write_html(out, name, config, [*came_out, by_class(test.classes, matrix)], MISTAKES | TRAINING)


def by_class(classes: Sequence[str], matrix: np.ndarray) -> report.Table:
    """What was read right of each class."""
    rows = zip(classes, matrix.diagonal(), matrix.sum(axis=1), strict=True)
    shares = [[name, f"{of:,}", f"{right:,}", f"{100 * right / max(of, 1):.2f} %"] for name, right, of in rows]
    return [["class", "images", "read right", "share"], *shares]


def by_seed(seeds: Sequence[int], metrics: dict[str, Any]) -> report.Table:
    """How well and how fast the network of each seed learned, by the metrics of `train_each`."""
    each = zip(seeds, metrics["accuracies"], metrics["training_seconds"], strict=True)
    rows = [[str(seed), f"{100 * accuracy:.2f} %", f"{seconds:.0f}"] for seed, accuracy, seconds in each]
    return [["seed", "read right", "seconds"], *rows]


def load(path: Path, name: str, shape: tuple[int, int, int], classes: int) -> tuple[cnn_jax.Layer, Any]:
    """A model file's network and parameters, which must be of `cnn_jax.nets`' `name` and fit images and classes."""
    params, found, options = cnn_jax.load_params(path)
    if found != name:
        raise ValueError(f"{path}: expected a model of {name}, got one of {found!r}")
    try:
        net = getattr(nets, name)(**options)
        expected = jax.eval_shape(lambda key: net.init(key, shape), jax.random.key(0))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: options that {name} does not take ({error})") from error
    kinds, wanted = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (params, expected))
    if kinds != wanted or jax.eval_shape(net.apply, expected, jnp.zeros(shape)).shape != (classes,):
        raise ValueError(f"{path}: parameters that do not fit {name} for {classes} classes, options {options}")
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(params)):
        raise ValueError(f"{path}: parameters that are not finite numbers")
    return net, params
