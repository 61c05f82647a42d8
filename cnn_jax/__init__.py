"""Template matching and small convolutional networks as pure, differentiable JAX functions.

Every function takes one image; `jax.vmap` adds the batch. By topic:

- Convolution and pooling: `conv`, `conv_transpose`, `window_sum`, `max_pool`, `min_pool`, `avg_pool`, `max_abs_pool`,
  `global_avg_pool`.
- Scores of a feature at every position: `match`, `cosine`, `zncc`, `squared_difference`,
  `normalized_squared_difference`, `sharpened_cosine`; `is_defined` says where a score compares something.
- Search: `find`, `peaks`.
- Layers and networks: `Chain`, `Residual`, `Concatenate`, `Conv`, `Dense`, ..., and the modules `nets`, `initializers`.
- Training: `fit`, `TrainState`, `train_step`, `load_checkpoint`, `calibrate`, and the modules `optimizers`, `augment`.
- Evaluation: `predict`, `evaluate`.
- Model files: `save_params`, `load_params`, `export`.
- Analysis: `summary`, `cost`, `receptive_field`, and the modules `explain` and `figures`.
- Data: `cnn_jax.data`.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from . import augment, explain, initializers, nets, optimizers
from ._cpu import configure_cpu
from ._export import export
from ._summary import summary
from .convolution import conv, conv_transpose, window_sum
from .costs import Cost, cost
from .evaluation import evaluate, predict
from .layers import (
    Activation,
    AvgPool,
    Chain,
    Concatenate,
    Conv,
    ConvTranspose,
    Dense,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Match,
    MaxAbsPool,
    MaxPool,
    Residual,
    SeparableConv,
    Upsample,
)
from .matching import (
    cosine,
    is_defined,
    match,
    normalized_squared_difference,
    sharpened_cosine,
    squared_difference,
    zncc,
)
from .norms import BatchNorm, GroupNorm, LayerNorm, LocalResponseNorm, calibrate
from .pooling import avg_pool, global_avg_pool, max_abs_pool, max_pool, min_pool
from .receptive_field import receptive_field
from .search import Matches, find, peaks
from .serialization import load_params, save_params
from .training import TrainingInterrupted, TrainState, fit, load_checkpoint, train_step

__version__ = "0.1.0"

__all__ = [
    "Activation",
    "AvgPool",
    "BatchNorm",
    "Chain",
    "Concatenate",
    "Conv",
    "ConvTranspose",
    "Cost",
    "Dense",
    "DepthwiseConv",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "LocalResponseNorm",
    "Match",
    "Matches",
    "MaxAbsPool",
    "MaxPool",
    "Residual",
    "SeparableConv",
    "TrainState",
    "TrainingInterrupted",
    "Upsample",
    "augment",
    "avg_pool",
    "calibrate",
    "configure_cpu",
    "conv",
    "conv_transpose",
    "cosine",
    "cost",
    "evaluate",
    "explain",
    "export",
    "find",
    "fit",
    "global_avg_pool",
    "initializers",
    "is_defined",
    "load_checkpoint",
    "load_params",
    "match",
    "max_abs_pool",
    "max_pool",
    "min_pool",
    "nets",
    "normalized_squared_difference",
    "optimizers",
    "peaks",
    "predict",
    "receptive_field",
    "save_params",
    "sharpened_cosine",
    "squared_difference",
    "summary",
    "train_step",
    "window_sum",
    "zncc",
]

if TYPE_CHECKING:
    from . import data as data
    from . import figures as figures
else:  # hidden from type checkers, for which a module with __getattr__ has every attribute

    def __getattr__(name: str) -> ModuleType:
        """Imports `figures`, which needs matplotlib, and `data` when they are first used."""
        if name in ("data", "figures"):
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
