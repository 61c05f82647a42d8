"""Reading of a training run's checkpoint without the run."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ._checksums import json_checksum, tree_checksums
from ._errors import one_line
from ._history import History
from ._orbax import import_orbax, restore_numpy
from ._run_checkpoint import RECORD, STATE
from ._typing import AnyArray, JsonObject
from ._validation import check_choice
from .files import local_path

PARAMS = "params"  # begins the paths of parameters in a state


class Checkpoint(NamedTuple):
    """What `load_checkpoint` reads."""

    params: PyTree
    """The parameters. With BatchNorm, pass them to `calibrate` before use."""
    history: History
    """The metrics of all steps until then."""
    step: int
    """The number of updates."""


def load_checkpoint(
    directory: str | os.PathLike[str],
    *,
    which: Literal["latest", "best"] = "latest",
    like: PyTree | None = None,
) -> Checkpoint:
    """Reads the parameters of a checkpoint that `fit(checkpoint_dir=...)` saved.

    Args:
      directory: the run's `checkpoint_dir`.
      which: "latest" is the checkpoint of the most steps. "best" is that of the lowest loss: on the validation data, or
        without them in training, as the mean since the checkpoint before it.
      like: parameters of the same structure, such as `net.init` makes. They are needed only where parameters are not
        nested dicts with text keys.

    Returns:
      The parameters, the history until then and the number of updates. `fit(params=...)` trains them further;
      `fit(checkpoint_dir=...)` itself continues a run that was broken off.

    Raises:
      OSError: the directory cannot be read.
      ValueError: the directory holds no checkpoint, the checkpoint is damaged, or its parameters have another structure
        than `like`.
      ImportError: Orbax is not installed.

    Example:

        fit(net, data, validation=(images, labels), validate_every=100, checkpoint_dir="run", ...)
        params, history, step = load_checkpoint("run", which="best")
    """
    import_orbax()
    check_choice("which", which, ("latest", "best"))
    folder = local_path(directory, name="directory").absolute()
    steps = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    if not steps:
        raise ValueError(f"directory: expected checkpoints of fit, got none in {folder}")
    try:
        step = max(steps) if which == "latest" else min(steps, key=lambda step: (_read_loss(folder / str(step)), step))
        record, leaves, history = _read(folder / str(step))
    except Exception as error:  # damaged files make Orbax and its dependencies raise errors of many kinds
        raise ValueError(f"directory: the checkpoints in {folder} cannot be read ({one_line(error)})") from error
    arrays = zip(record["state"], leaves, strict=True)
    params = {path: jnp.asarray(array) for path, array in arrays if path.split("/")[0] == PARAMS}
    return Checkpoint(_rebuild(params, like), history, step)


def _read(folder: Path) -> tuple[JsonObject, list[AnyArray], History]:
    """The record of a checkpoint, the arrays of its state and its history. Raises an error if it is damaged."""
    record = json.loads((folder / RECORD / "metadata").read_text())
    if record.pop("record_checksum") != json_checksum(record):
        raise ValueError(f"{folder.name}/{RECORD}: its checksum differs")
    like = {"state": [0] * len(record["state"]), "history": dict.fromkeys(record["history"], 0)}
    arrays = restore_numpy(folder / STATE, like)
    if tree_checksums(arrays) != record["checksums"]:
        raise ValueError(f"{folder.name}/{STATE}: its checksums differ")
    return record, arrays["state"], {name: arrays["history"][name] for name in record["history"]}


def _read_loss(folder: Path) -> float:
    return float(json.loads((folder / "metrics" / "metrics").read_text())["loss"])


def _rebuild(arrays: Mapping[str, jax.Array], like: PyTree | None) -> PyTree:
    """The parameters of which `arrays` has the leaves by path, in the structure of `like` or as nested dicts."""
    if like is not None:
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(like)]
        saved = [array.shape for array in arrays.values()]
        if saved != shapes:
            raise ValueError(f"like: expected parameters with arrays of shapes {saved}, got {shapes}")
        return jax.tree.structure(like).unflatten(arrays.values())
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *parents, name = path.split("/")
        subtree = tree
        for parent in parents:
            subtree = subtree.setdefault(parent, {})
        subtree[name] = array
    return tree[PARAMS]
