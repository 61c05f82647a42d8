"""How well does each patch of an image match each feature, everywhere, at once, and what can be learned from it.

Pure JAX functions for one image; `jax.vmap` gives batches. Rooms: `convolution`, `pooling`, `matching`, `warping`,
`augment`, `search`, `layers`, `norms`, `initializers`, `nets`, `costs`, `fields`, `explain`, `optimizers`, `training`,
`checkpoint`, `data`, `figures`.
"""

from . import augment, explain, initializers, nets, optimizers
from ._export import export
from ._malloc import keep_freed_memory
from .convolution import conv, window_sum
from .costs import Cost, cost
from .layers import (
    Activation,
    AvgPool,
    Chain,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    Match,
    MaxAbsPool,
    MaxPool,
    Residual,
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
from .training import fit

__all__ = [
    "Activation",
    "AvgPool",
    "BatchNorm",
    "Chain",
    "Conv",
    "Cost",
    "Dense",
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
    "augment",
    "avg_pool",
    "calibrate",
    "conv",
    "cosine",
    "cost",
    "is_defined",
    "explain",
    "export",
    "find",
    "fit",
    "global_avg_pool",
    "initializers",
    "keep_freed_memory",
    "load_params",
    "match",
    "max_abs_pool",
    "max_pool",
    "min_pool",
    "nets",
    "normalized_squared_difference",
    "optimizers",
    "peaks",
    "receptive_field",
    "save_params",
    "sharpened_cosine",
    "squared_difference",
    "window_sum",
    "zncc",
]
