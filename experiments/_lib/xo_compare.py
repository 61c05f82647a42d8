"""Accuracy of three classifiers of X and O on the same letters: two without training, and the trained network."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

import cnn_jax
from cnn_jax import figures
from cnn_jax.data import omniglot, xo
from cnn_jax.data.letters import segment_letter
from cnn_jax.progress import Progress

from . import classification, cli, predict, report, tta

SIZE = 28  # rows and columns of a letter
BATCH_SIZE = 500  # letters drawn and classified by one call
CLASSIFIERS = ("whole image", "hand-made features", "trained network")
TTA_VIEWS = tta.dihedral_views()  # flips and rotations by 90 degrees leave an X an X and an O an O
DISTORTIONS: Mapping[str, tuple[str, ...]] = {
    "clean": (),
    "shifted": ("shift",),
    "shrunken": ("shrink",),
    "rotated": ("rotate",),
    "deformed": ("deform",),
    "all": tuple(xo.CLEAN),
}
# Of all distortions together; the network is trained on 1.
STRENGTHS: Sequence[float] = np.linspace(0, 2, 9).tolist()
STRENGTH_SHARE = 5  # each strength is measured on 1 / STRENGTH_SHARE of the test images
PIECE_SIZE = 9  # rows and columns of a hand-made feature
EMPTY_BELOW = -0.7  # mean of a piece in which next to nothing is drawn
OMNIGLOT_COLUMNS = 10

Strengths = Mapping[str, Any]
"""Options of `xo.draw`: numbers outside of compiled programs, arrays within. Any, since its other options differ."""


class IsCorrect(Protocol):
    """Draws letters, all distorted by `strengths`; says which ones each of the three classifiers gets right."""

    def __call__(self, key: jax.Array, strengths: Strengths, /) -> Bool[Array, "3 N"]: ...


def match_exemplars(image: Float[Array, "H W"], exemplars: Float[Array, "K H W"]) -> Float[Array, " K"]:
    """Classifier 1: the scores of X and O are the matches of the whole image with a clean X and a clean O."""
    return jax.vmap(cnn_jax.match, in_axes=(None, 0))(image, exemplars).ravel()


def cut_features(exemplars: Float[np.ndarray, "K H W"]) -> tuple[Float[np.ndarray, "F h w"], Int[np.ndarray, " F"]]:
    """Hand-made features and their labels: the crossing and the arms of the clean X, the sides and bends of the O."""
    center = SIZE // 2
    reach = round(SIZE / 3)
    features = []
    labels = []
    for label, exemplar in enumerate(exemplars):
        for dy, dx in itertools.product((-1, 0, 1), repeat=2):
            is_side_of_o = label == xo.CLASSES.index("O") and 0 in (dy, dx)
            distance = reach if is_side_of_o else round(0.7 * reach)
            top = center + dy * distance - PIECE_SIZE // 2
            left = center + dx * distance - PIECE_SIZE // 2
            piece = exemplar[top : top + PIECE_SIZE, left : left + PIECE_SIZE]
            if piece.mean() > EMPTY_BELOW:  # not the sides of the X and not the middle of the O
                features.append(piece)
                labels.append(label)
    return np.stack(features), np.array(labels)


def match_features(
    image: Float[Array, "H W"], features: Float[Array, "F h w"], labels: Int[np.ndarray, " F"]
) -> Float[Array, " K"]:
    """Classifier 2: match, ReLU, max-pooling; a letter's score is the mean over its features of their best match."""
    maps = jax.nn.relu(jax.vmap(cnn_jax.match, in_axes=(None, 0))(image, features))
    pooled = jax.vmap(lambda scores: cnn_jax.max_pool(scores, padding="CEIL"))(maps)
    best = jnp.max(pooled, axis=(1, 2))
    return jnp.stack([jnp.mean(best[labels == label]) for label in range(len(xo.CLASSES))])


class Comparison(NamedTuple):
    """The accuracy of every classifier."""

    by_distortion: dict[str, dict[str, float]]
    """For each distortion, the accuracy of each classifier."""
    by_strength: dict[str, list[float]]
    """The strengths of all distortions together, and each classifier's accuracies at these strengths."""


def compare(net: cnn_jax.Layer, params: Any, test_images: int, key: jax.Array) -> Comparison:
    """Draws letters and measures all three classifiers on them, by distortion and by strength."""
    batch_size = min(BATCH_SIZE, test_images)
    is_correct = make_is_correct(net, params, draw_exemplars(key), batch_size)
    keys = iter(jax.random.split(key, len(DISTORTIONS) + len(STRENGTHS)))
    by_distortion = {}
    by_strength: dict[str, list[float]] = {name: [] for name in CLASSIFIERS}
    with Progress("comparing", len(DISTORTIONS) + len(STRENGTHS)) as progress:
        for done, (name, distorted) in enumerate(DISTORTIONS.items(), 1):
            strengths = {option: float(option in distorted) for option in xo.CLEAN}
            by_distortion[name] = accuracies(is_correct, next(keys), strengths, test_images, batch_size)
            progress.update(done, name)
        for done, strength in enumerate(STRENGTHS, len(DISTORTIONS) + 1):
            strengths = dict.fromkeys(xo.CLEAN, strength)
            images = -(-test_images // STRENGTH_SHARE)
            for name, accuracy in accuracies(is_correct, next(keys), strengths, images, batch_size).items():
                by_strength[name].append(accuracy)
            progress.update(done, f"strength {strength:.2f}")
    return Comparison(by_distortion, {"strength": list(STRENGTHS)} | by_strength)


def draw_exemplars(key: jax.Array) -> Float[Array, "K H W"]:
    """A clean X and a clean O."""
    return jnp.stack([xo.draw(key, size=SIZE, label=label, **xo.CLEAN)[0] for label in range(len(xo.CLASSES))])


def make_is_correct(net: cnn_jax.Layer, params: Any, exemplars: Float[Array, "K H W"], batch_size: int) -> IsCorrect:
    """The program that draws a batch of letters and says which ones each classifier gets right, (3, N)."""
    features, feature_labels = cut_features(np.asarray(exemplars))

    @jax.jit
    def is_correct(key: jax.Array, strengths: Strengths) -> Bool[Array, "3 N"]:
        keys = jax.random.split(key, batch_size)
        images, labels = jax.vmap(lambda key: xo.draw(key, size=SIZE, **strengths))(keys)
        scores = (
            jax.vmap(match_exemplars, (0, None))(images, exemplars),
            jax.vmap(lambda image: match_features(image, jnp.asarray(features), feature_labels))(images),
            tta.tta_log_probs(net, params, classification.to_pixels(images), TTA_VIEWS),
        )
        return jnp.stack([jnp.argmax(score, axis=-1) == labels for score in scores])

    return is_correct


def accuracies(
    is_correct: IsCorrect, key: jax.Array, strengths: Strengths, count: int, batch_size: int
) -> dict[str, float]:
    """The accuracy of each classifier on `count` letters, drawn in batches."""
    batches = [is_correct(batch_key, strengths) for batch_key in jax.random.split(key, -(-count // batch_size))]
    correct = np.concatenate(batches, axis=1)[:, :count]
    return dict(zip(CLASSIFIERS, correct.mean(axis=1).tolist(), strict=True))


def table(by_distortion: Mapping[str, Mapping[str, float]]) -> report.Table:
    """A table of the accuracies: a row for each distortion, a column for each classifier."""
    rows = []
    for name, by_classifier in by_distortion.items():
        rows.append([name, *(f"{100 * by_classifier[classifier]:.2f} %" for classifier in CLASSIFIERS)])
    return [["letters", *CLASSIFIERS], *rows]


def evaluate_omniglot(net: cnn_jax.Layer, params: Any, data_dir: Path | None, out: Path) -> dict[str, Any]:
    """Classifies and draws Omniglot's 40 X's and O's, by 20 people; without the data set `line` gives the reason."""
    try:
        drawings, labels = omniglot.load_xo(data_dir)
    except (OSError, ValueError) as error:
        (out / "omniglot.png").unlink(missing_ok=True)  # of an earlier run
        return {"line": f"Omniglot's X's and O's: not available ({cli.one_line_error(error)})"}
    images = np.stack([segment_letter(drawing, size=SIZE) for drawing in drawings])
    predicted = predict.predictor(net, params, TTA_VIEWS)(images).argmax(-1)
    titles = [
        f"{xo.CLASSES[label]} predicted {xo.CLASSES[guess]}" for label, guess in zip(labels, predicted, strict=True)
    ]
    title = "Omniglot's X's and O's, segmented"
    figures.save(figures.image_grid(images, titles, columns=OMNIGLOT_COLUMNS, title=title), out / "omniglot.png")
    correct = int(np.sum(predicted == labels))
    line = f"Omniglot's X's and O's: {correct} of {len(labels)} correct"
    return {"right": correct, "of": len(labels), "line": line}
