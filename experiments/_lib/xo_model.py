"""The trained network of `experiments.xo` and its input, letters of picture files; `experiments.draw` uses both."""

import contextlib
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float

import cnn_jax
from cnn_jax.data import image_io, xo
from cnn_jax.data.letters import segment_letter

from . import predict, runner
from .xo_compare import SIZE, TTA_VIEWS
from .xo_train import NET, OUT, Train, train


def load_model(path: Path | None) -> tuple[cnn_jax.Layer, Any]:
    """The network and parameters of a model file; without a path those of runs/xo, trained first if necessary."""
    if path is None:
        path = OUT / "model.safetensors"
        if not path.exists():
            print(f"no model at {path} yet: training one first", file=sys.stderr)
            with contextlib.redirect_stdout(sys.stderr):
                runner.run_experiment(Train(), train)
    return predict.load_classifier(path, NET, (SIZE, SIZE, 1), len(xo.CLASSES))


def load_predictor(path: Path | None) -> predict.Predict:
    """The function that predicts segmented letters by `load_model`, with test-time augmentation."""
    net, params = load_model(path)
    return predict.predictor(net, params, TTA_VIEWS)


def open_letter(file: Path | IO[bytes]) -> Float[np.ndarray, "H W"]:
    """The letter of a picture file, centered at the size that the network is trained on.

    Raises:
      ValueError: no picture, or a picture of one color.
      OSError: a file that cannot be opened.
    """
    letter = segment_letter(image_io.read_image(file), size=SIZE)
    if letter.max() < 0:
        raise ValueError(f"{file if isinstance(file, Path) else 'picture'}: nothing is drawn on it")
    return letter
