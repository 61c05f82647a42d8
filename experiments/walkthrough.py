"""How does a convolutional network read an X? The article's worked example, step by step, with its own numbers.

Claim: a 9x9 X, three hand-drawn 3x3 features, match, ReLU and two poolings give twelve numbers. Their votes are 1.00
for X and 0.56 for O. For a deformed X they are 0.82 and 0.56, so that it is still read as an X. All numbers are exact
up to float32 rounding.

Source: Rohrer, "How Convolutional Neural Networks Work" (2016).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import cnn_jax
from cnn_jax import figures

from ._lib import cli, report
from ._lib.article import FEATURES, IMAGES

# The indices of the twelve last numbers whose mean is a letter's vote. In a real network training finds the weights.
VOTERS = {"X": (0, 3, 4, 9, 10), "O": (1, 2, 8, 11)}
# The figures of one map for each feature, by step.
MAP_FIGURES = {
    "4_match": ("match", "4. Match: how well each patch fits"),
    "5_relu": ("relu", "5. ReLU: negative matches become 0"),
    "6_pooled": ("pooled", "6. Pooling: the maximum of each 2x2 window"),
    "7_pooled_twice": ("pooled twice", "7. Pooled again"),
}
PATCHES = ((1, 1), (3, 3))  # top left corners of the patches that are multiplied: one that matches, one that does not
FIGURES = {
    "1_image.png": "Pictures: the X and a deformed X; compared pixel by pixel they do not match",
    "2_features.png": "Features: small pieces that every X has, wherever it is drawn",
    "3_multiplication.png": "Multiplication: a patch times a feature, pixel by pixel; the mean of the products is 1 "
    "where all pixels are equal",
    "4_match.png": "Match: how well the patch around each pixel of the X fits each feature",
    "5_relu.png": "ReLU: negative matches become 0",
    "6_pooled.png": "Pooling: the maximum of each window; where exactly in the window it was no longer matters",
    "7_pooled_twice.png": "Pooling again: twelve numbers are left",
    "8_votes.png": "Votes: each letter's vote is the mean of some of the twelve numbers",
}


@dataclasses.dataclass(frozen=True)
class Walkthrough:
    """The article's worked example, step by step: image, features, matching, ReLU, pooling, votes."""

    out: Path = Path("runs/walkthrough")
    """Folder for report.html, metrics.json and the figures."""


@jax.jit
def steps(image: Float[Array, "H W"], features: Float[Array, "K h w"]) -> dict[str, Float[Array, "K _ _"]]:
    """The maps after every step, one for each feature."""
    match = jax.vmap(cnn_jax.match, in_axes=(None, 0))(image, features)
    relu = jax.nn.relu(match)
    pool = jax.vmap(lambda maps: cnn_jax.max_pool(maps, window=2, stride=2, padding="CEIL"))
    return {"match": match, "relu": relu, "pooled": pool(relu), "pooled twice": pool(pool(relu))}


def votes(last: Float[np.ndarray, "K _ _"]) -> dict[str, float]:
    """Each letter's vote: the mean of its voters among the last numbers."""
    return {letter: float(jnp.mean(last.ravel()[jnp.array(voters)])) for letter, voters in VOTERS.items()}


def main(config: Walkthrough) -> dict[str, Any]:
    """Computes all steps, writes figures, report and metrics.json; returns the metrics."""
    out = cli.make_output_dir(config.out)
    features = np.stack(list(FEATURES.values()))
    maps = {name: jax.device_get(steps(image, features)) for name, image in IMAGES.items()}
    votes_by_image = {name: votes(steps_of_image["pooled twice"]) for name, steps_of_image in maps.items()}
    drawn = draw_figures(maps["the X"], votes_by_image)
    for name, figure in drawn.items():
        figures.save(figure, out / f"{name}.png")

    metrics = {"votes": votes_by_image, "steps": maps} | cli.versions()
    cli.write_json(out / "metrics.json", metrics)
    table = [["votes", *VOTERS]]
    table += [[name, *(f"{vote:.4f}" for vote in by_letter.values())] for name, by_letter in votes_by_image.items()]
    report.write_html(out, "walkthrough", config, [table], FIGURES)
    print(f"{report.as_text([table])}\n{len(drawn)} figures in {out}")
    return metrics


def draw_figures(maps: Mapping[str, np.ndarray], votes_by_image: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The figure of every step, by file name: the steps for the X, the votes for all images."""
    names = list(FEATURES)
    drawn = {
        "1_image": figures.image_grid(
            list(IMAGES.values()), list(IMAGES), numbers=True, title="1. Pictures: white 1, black -1"
        ),
        "2_features": figures.image_grid(
            list(FEATURES.values()), names, numbers=True, title="2. Features: small pieces of an X"
        ),
        "3_multiplication": draw_multiplication(IMAGES["the X"], FEATURES["diagonal"]),
    }
    for file, (step, title) in MAP_FIGURES.items():
        drawn[file] = figures.image_grid(maps[step], names, numbers=True, title=title)
    bars = {
        name: {f"votes for {letter}": vote for letter, vote in by_letter.items()}
        for name, by_letter in votes_by_image.items()
    }
    drawn["8_votes"] = figures.bars(bars, ylabel="mean of the letter's inputs", title="8. Votes")
    return drawn


def draw_multiplication(image: np.ndarray, feature: np.ndarray) -> Any:
    """The figure of two patches, each multiplied with the diagonal pixel by pixel."""
    tiles = []
    titles = []
    for top, left in PATCHES:
        patch = image[top : top + feature.shape[0], left : left + feature.shape[1]]
        products = patch * feature
        tiles += [patch, feature, products]
        mean = f"products: {products.sum():.0f} / {products.size} = {products.mean():.2f}"
        titles += [f"patch at ({top}, {left})", "diagonal", mean]
    title = "3. Multiply, add, divide by the number of pixels"
    return figures.image_grid(tiles, titles, columns=3, numbers=True, title=title)


if __name__ == "__main__":
    cli.run_script(lambda: main(cli.parse_options(Walkthrough, "walkthrough", __doc__)))
