"""Hyperparameters that `optax.inject_hyperparams` keeps in an optimizer's state, where a run resumes."""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import PyTree

from ._checksums import path_name

INJECTED = "hyperparams"  # the field of optax's states that holds them


def injected_hyperparameters(state: PyTree) -> dict[str, object]:
    """The values of all injected hyperparameters by path, as JSON holds them.

    >>> import optax
    >>> optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
    >>> injected_hyperparameters(optimizer.init({"bias": np.zeros(2)}))
    {'hyperparams/learning_rate': 0.5}
    """
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {path_name(path): np.asarray(leaf).tolist() for path, leaf in leaves if _is_injected(path)}


def changed_hyperparameters(state: PyTree, previous: Mapping[str, object]) -> dict[str, str]:
    """The injected hyperparameters of a state that differ from those of an earlier state: what changed, by path.

    >>> import optax
    >>> state = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5).init({})
    >>> changed_hyperparameters(state, {"hyperparams/learning_rate": 0.25})
    {'hyperparams/learning_rate': 'learning_rate 0.25 -> 0.5'}
    """
    values = injected_hyperparameters(state)
    return {
        path: f"{path.rpartition('/')[2]} {_text(previous[path])} -> {_text(value)}"
        for path, value in values.items()
        if path in previous and previous[path] != value
    }


def take_leaves(state: PyTree, source: PyTree, paths: Mapping[str, object]) -> PyTree:
    """The state with the arrays of `source` at some paths; both have one structure.

    >>> take_leaves({"a": 1, "b": 2}, {"a": 3, "b": 4}, {"b": "changed"})
    {'a': 1, 'b': 4}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf, other: other if path_name(path) in paths else leaf, state, source
    )


def _is_injected(path: jax.tree_util.KeyPath) -> bool:
    return any(getattr(entry, "name", None) == INJECTED for entry in path)


def _text(value: object) -> str:
    return f"{value:.7g}" if isinstance(value, float) else str(value)
