"""How does a convolutional network read an X? The article's worked example, step by step, with its own numbers.

Claim: a 9x9 X, three hand-drawn 3x3 features, match, ReLU and two poolings give twelve numbers whose votes say X with
1.00 against 0.56 for O, and still say X (0.82 against 0.56) when the X is deformed. Exact up to float32 rounding.

Source: Rohrer, "How Convolutional Neural Networks Work" (2016).
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import cnn_jax
from cnn_jax import figures

from ._lib import cli, report

THE_X = """
. . . . . . . . .
. # . . . . . # .
. . # . . . # . .
. . . # . # . . .
. . . . # . . . .
. . . # . # . . .
. . # . . . # . .
. # . . . . . # .
. . . . . . . . .
"""
DEFORMED_X = """
. . . . . . . . .
. . . . . . # . .
. # . . . # . . .
. . # # . # . . .
. . . . # . . . .
. . . # . # # . .
. . . # . . . # .
. . # . . . . . .
. . . . . . . . .
"""
FEATURES = {
    "diagonal": "# . .\n. # .\n. . #",
    "crossing": "# . #\n. # .\n# . #",
    "other diagonal": ". . #\n. # .\n# . .",
}
# Which of the twelve last numbers each letter listens to; in a real network training finds them.
LISTENS = {"X": [0, 3, 4, 9, 10], "O": [1, 2, 8, 11]}
FIGURES = {
    "1_image.png": "Pictures: the X and a deformed X; compared pixel by pixel they do not match",
    "2_features.png": "Features: pieces of an X that every X has, wherever it is drawn",
    "3_multiplication.png": "Multiplication: a patch against a feature, pixel by pixel; the mean of the products is 1 "
    "where all pixels are alike",
    "4_match.png": "Match: how well the patch around each pixel of the X fits each feature",
    "5_relu.png": "ReLU: what does not fit counts as nothing",
    "6_pooled.png": "Pooling: the best fit in each window, so that it no longer matters where exactly it was",
    "7_pooled_twice.png": "Pooling again: twelve numbers are left",
    "8_votes.png": "Votes: each letter's is the mean of the numbers that it listens to",
}


@dataclasses.dataclass(frozen=True)
class Walkthrough:
    """The article's worked example, step by step: image, features, matching, ReLU, pooling, votes."""

    out: Path = Path("runs/walkthrough")
    """Folder for report.html, metrics.json and the figures."""


def picture(text: str) -> np.ndarray:
    """A picture typed in characters: # is 1 (white), . is -1 (black)."""
    return np.array(
        [[1.0 if c == "#" else -1.0 for c in line.split()] for line in text.split("\n") if line], np.float32
    )


@jax.jit
def steps(image: jax.Array, features: jax.Array) -> dict[str, jax.Array]:
    """Every step's images for one picture, a map for each feature."""
    match = jax.vmap(cnn_jax.match, in_axes=(None, 0))(image, features)
    relu = jax.nn.relu(match)
    pool = jax.vmap(lambda maps: cnn_jax.max_pool(maps, window=2, stride=2, padding="CEIL"))
    return {"match": match, "relu": relu, "pooled": pool(relu), "pooled twice": pool(pool(relu))}


def votes(last: jax.Array) -> dict[str, float]:
    """Each letter's vote: the mean of the numbers it listens to."""
    return {letter: float(jnp.mean(last.ravel()[jnp.array(places)])) for letter, places in LISTENS.items()}


def main(config: Walkthrough) -> dict[str, Any]:
    """Computes and draws all steps; returns what metrics.json holds."""
    out = cli.make_output_dir(config.out)
    images = {"the X": picture(THE_X), "a deformed X": picture(DEFORMED_X)}
    features = np.stack([picture(text) for text in FEATURES.values()])
    names = list(FEATURES)
    computed = {name: jax.device_get(steps(image, features)) for name, image in images.items()}
    the_x, maps = images["the X"], computed["the X"]

    drawn = {
        "1_image": figures.image_grid(
            list(images.values()), list(images), numbers=True, title="1. Pictures: white 1, black -1"
        ),
        "2_features": figures.image_grid(features, names, numbers=True, title="2. Features: small pieces of an X"),
        "3_multiplication": multiplication(the_x, features),
        "4_match": figures.image_grid(maps["match"], names, numbers=True, title="4. Match: how well each patch fits"),
        "5_relu": figures.image_grid(maps["relu"], names, numbers=True, title="5. ReLU: what does not fit counts as 0"),
        "6_pooled": figures.image_grid(
            maps["pooled"], names, numbers=True, title="6. Pooling: the best of each 2x2 window"
        ),
        "7_pooled_twice": figures.image_grid(maps["pooled twice"], names, numbers=True, title="7. Pooled again"),
    }
    outcome = {name: votes(stages["pooled twice"]) for name, stages in computed.items()}
    bars = {name: {f"votes for {letter}": vote for letter, vote in won.items()} for name, won in outcome.items()}
    drawn["8_votes"] = figures.bars(bars, ylabel="mean of the inputs listened to", title="8. Votes")
    for name, figure in drawn.items():
        figures.save(figure, out / f"{name}.png")

    metrics = {"votes": outcome, "steps": computed} | cli.versions()
    cli.write_json(out / "metrics.json", metrics)
    table = [["votes", *LISTENS]] + [[name, *(f"{vote:.4f}" for vote in won.values())] for name, won in outcome.items()]
    report.write_html(out, "walkthrough", config, [table], FIGURES)
    print(f"{report.as_text([table])}\n{len(drawn)} figures in {out}")
    return metrics


def multiplication(image: np.ndarray, features: np.ndarray) -> Any:
    """Two patches against the diagonal, pixel by pixel: one that matches and one that does not."""
    rows, titles = [], []
    for top, left in ((1, 1), (3, 3)):
        patch = image[top : top + 3, left : left + 3]
        product = patch * features[0]
        rows += [patch, features[0], product]
        titles += [f"patch at ({top}, {left})", "diagonal", f"products: {product.sum():.0f} / 9 = {product.mean():.2f}"]
    return figures.image_grid(
        rows, titles, columns=3, numbers=True, title="3. Multiply, add, divide by the number of pixels"
    )


if __name__ == "__main__":
    cli.run_script(lambda: main(tyro.cli(Walkthrough)))
