"""How well does each patch of an image match each feature, everywhere, at once, and what can be learned from it.

Pure JAX functions for one image; `jax.vmap` gives batches. Rooms: `convolution`, `pooling`, `matching`, `warping`,
`search`, `layers`, `nets`, `costs`, `training`, `checkpoint`, `data`, `figures`.
"""

from . import nets
from .checkpoint import load_params, save_params
from .convolution import conv, window_sum
from .costs import Cost, cost, receptive_field
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
    defined,
    match,
    normalized_squared_difference,
    sharpened_cosine,
    squared_difference,
    zncc,
)
from .memory import keep_freed_memory
from .pooling import avg_pool, global_avg_pool, max_abs_pool, max_pool, min_pool
from .search import Matches, find, peaks
from .training import fit

__all__ = [
    "Activation",
    "AvgPool",
    "Chain",
    "Conv",
    "Cost",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "Layer",
    "Match",
    "Matches",
    "MaxAbsPool",
    "MaxPool",
    "Residual",
    "avg_pool",
    "conv",
    "cosine",
    "cost",
    "defined",
    "find",
    "fit",
    "global_avg_pool",
    "keep_freed_memory",
    "load_params",
    "match",
    "max_abs_pool",
    "max_pool",
    "min_pool",
    "nets",
    "normalized_squared_difference",
    "peaks",
    "receptive_field",
    "save_params",
    "sharpened_cosine",
    "squared_difference",
    "window_sum",
    "zncc",
]
