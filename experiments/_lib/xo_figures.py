"""The figures of `experiments.xo`: letters, accuracy by strength, training, and explanations of an X and an O."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import cnn_jax
from cnn_jax import explain, figures
from cnn_jax.data import xo
from cnn_jax.layers import Stages

from . import classification_report
from .xo_compare import CLASSIFIERS, DISTORTIONS, SIZE

FIGURES = {
    "letters.png": "Letters: as the program draws them, a row for each distortion",
    "strength.png": "Accuracy by strength: all distortions together, from none to twice the strength of training",
    "omniglot.png": "Real drawings: Omniglot's X's and O's, as segmented for the network, and the letter predicted",
    "stages_X.png": "An X, stage by stage: the intermediate activations of the network, a scale for each row",
    "stages_O.png": "An O, stage by stage: the intermediate activations of the network, a scale for each row",
    "counted_X.png": "Pixels that count for the X: the magnitude of the logit's gradient (saliency, SmoothGrad), each "
    "pixel's contribution (integrated gradients), the fall of the logit where a window is covered (occlusion), and "
    "where features support the class (Grad-CAM); orange for, purple against",
    "counted_O.png": "Pixels that count for the O: the same five methods",
    "patches.png": "Patches that activate features most: of the letters above, for eight features of the second layer, "
    "a row each",
    **classification_report.TRAINING_FIGURES,
}
COLUMNS = 8  # of letters, and of patches
CAM_STAGE = "relu3"
PATCHES_STAGE = "relu2"
PATCH_ROWS = 8  # features in the figure of patches

Examples = Mapping[str, Float[np.ndarray, "H W 1"]]
"""An image of each letter."""


def draw_figures(
    net: cnn_jax.Layer, params: Any, metrics: Mapping[str, Any], history: Mapping[str, Any], out: Path, seed: int
) -> None:
    """Draws all figures of a training run but omniglot.png."""
    letters = draw_letters(out, seed)
    draw_strengths(out, metrics["accuracy_by_strength"])
    classification_report.draw_training(out, params, history)
    examples: Examples = dict(zip(map(str, xo.CLASSES), letters[-COLUMNS:], strict=False))
    draw_stages(net, params, examples, out)
    draw_attributions(net, params, examples, out)
    draw_patches(net, params, letters, out)


def draw_letters(out: Path, seed: int) -> Float[np.ndarray, "N H W 1"]:
    """Draws letters.png: the same X's and O's under every distortion; returns the letters."""
    keys = jax.random.split(jax.random.key(seed), COLUMNS)
    labels = jnp.arange(COLUMNS) % len(xo.CLASSES)
    draw = jax.jit(
        jax.vmap(lambda key, label, strengths: xo.draw(key, size=SIZE, label=label, **strengths), (0, 0, None))
    )
    letters: list[np.ndarray] = []
    titles: list[str] = []
    for name, distorted in DISTORTIONS.items():
        strengths = {option: float(option in distorted) for option in xo.CLEAN}
        letters += list(np.asarray(draw(keys, labels, strengths)[0]))
        titles += [name] + [""] * (COLUMNS - 1)
    figures.save(figures.image_grid(letters, titles, columns=COLUMNS), out / "letters.png")
    return np.stack(letters)[..., None]


def draw_strengths(out: Path, by_strength: Mapping[str, list[float]]) -> None:
    """Draws strength.png: the accuracy of each classifier by the strength of all distortions."""
    lines = {name: 100 * np.array(by_strength[name]) for name in CLASSIFIERS}
    xlabel = "strength of all distortions together"
    figure = figures.curves(by_strength["strength"], lines, xlabel=xlabel, ylabel="accuracy, %", title="Accuracy")
    figures.save(figure, out / "strength.png")


def draw_stages(net: cnn_jax.Layer, params: Any, examples: Examples, out: Path) -> None:
    """Draws stages_LETTER.png for an X and an O: the intermediate activations of the network."""
    stages = jax.jit(net.stages)
    for letter, image in examples.items():
        named = {"image": image} | stages(params, image)
        figures.save(figures.stages(named, title=f"An {letter}, stage by stage"), out / f"stages_{letter}.png")


def draw_attributions(net: cnn_jax.Layer, params: Any, examples: Examples, out: Path) -> None:
    """Draws counted_LETTER.png for an X and an O: the pixels that count for its logit, by five methods."""

    @jax.jit
    def attributions(params: Any, image: jax.Array) -> Stages:
        return Stages(
            {
                "saliency": explain.saliency(net, params, image),
                "SmoothGrad": explain.smooth_grad(jax.random.key(0), net, params, image),
                "integrated gradients": explain.integrated_gradients(net, params, image)[..., 0],
                "occlusion": explain.occlusion(net, params, image),
                "Grad-CAM": explain.grad_cam(net, params, image, stage=CAM_STAGE),
            }
        )

    for letter, image in examples.items():
        figure = figures.overlay(image, attributions(params, image), title=f"Pixels that count for the {letter}")
        figures.save(figure, out / f"counted_{letter}.png")


def draw_patches(net: cnn_jax.Layer, params: Any, letters: Float[np.ndarray, "N H W 1"], out: Path) -> None:
    """Draws patches.png: of all letters, the patches that activate features of a middle stage most."""
    find_patches = jax.jit(
        lambda params, letters: explain.top_activating_patches(net, params, letters, stage=PATCHES_STAGE, count=COLUMNS)
    )
    top = jax.device_get(find_patches(params, letters))
    is_active = top.values[:, -1] > 0
    patches = top.patches[is_active][:PATCH_ROWS]
    (out / "patches.png").unlink(missing_ok=True)  # of an earlier run: features may all be inactive
    if len(patches):
        tiles = patches.reshape(-1, *patches.shape[2:])
        figures.save(figures.image_grid(tiles, columns=COLUMNS, title="A row for each feature"), out / "patches.png")
