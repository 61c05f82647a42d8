"""Reading of a training run's checkpoint without the run."""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import tree_leaves_with_path
from jaxtyping import PyTree

from ._checksums import json_checksum, path_name, tree_checksums
from ._errors import one_line
from ._history import History
from ._orbax import import_orbax, restore_numpy
from ._run_checkpoint import RECORD, STATE
from ._typing import AnyArray, JsonObject
from ._validation import check_choice
from .files import local_path

log = logging.getLogger(__name__)

PARAMS = "params"  # begins the paths of parameters in a state


class Checkpoint(NamedTuple):
    """What `load_checkpoint` reads."""

    params: PyTree
    """The parameters. With BatchNorm, pass them to `calibrate` before use."""
    history: History
    """The metrics of all steps until then, but for those before `fit(state=...)`."""
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
        without them in training, as the mean since the checkpoint before it. Instead of a damaged checkpoint the next
        one is taken, and a warning is logged.
      like: parameters of the same structure, such as `net.init` makes. They are needed only where parameters are not
        nested dicts with text keys.

    Returns:
      The parameters, the history until then and the number of updates. `fit(params=...)` trains them further;
      `fit(checkpoint_dir=...)` itself continues a run that was broken off.

    Raises:
      OSError: the directory cannot be read.
      ValueError: the directory holds no checkpoint or only damaged ones, or the parameters have another structure than
        `like`.
      ImportError: Orbax is not installed.

    Example:

        fit(net, data, validation=(images, labels), validate_every=100, checkpoint_dir="run", ...)
        params, history, step = load_checkpoint("run", which="best")
    """
    import_orbax()
    check_choice("which", which, ("latest", "best"))
    folder = local_path(directory, name="directory").absolute()
    steps = sorted((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), reverse=True)
    if not steps:
        raise ValueError(f"directory: expected checkpoints of fit, got none in {folder}")
    if which == "best":
        steps.sort(key=lambda step: (_read_loss(folder / str(step)), step))
    problems = []
    for step in steps:
        try:
            record, leaves, history = _read(folder / str(step))
        except Exception as error:  # damaged files make Orbax and its dependencies raise errors of many kinds
            problems.append(f"{step}: {one_line(error)}")
            log.warning("%s: the checkpoint of step %d cannot be read (%s)", folder, step, one_line(error))
            continue
        arrays = zip(record["state"], leaves, strict=True)
        params = {path: jnp.asarray(array) for path, array in arrays if path.split("/")[0] == PARAMS}
        return Checkpoint(_rebuild(params, like), history, step)
    raise ValueError(f"directory: none of the checkpoints in {folder} can be read ({'; '.join(problems)})")


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
    """The loss by which a checkpoint is chosen; infinite if it cannot be read."""
    try:
        return float(json.loads((folder / "metrics" / "metrics").read_text())["loss"])
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf


def _rebuild(arrays: Mapping[str, jax.Array], like: PyTree | None) -> PyTree:
    """The parameters of which `arrays` has the leaves by path, in the structure of `like` or as nested dicts."""
    if like is not None:
        expected = {path_name(path): jnp.shape(leaf) for path, leaf in tree_leaves_with_path({PARAMS: like})}
        saved = {path: array.shape for path, array in arrays.items()}
        if list(saved.items()) != list(expected.items()):
            raise ValueError(f"like: expected parameters with arrays {saved}, got {expected}")
        return jax.tree.structure(like).unflatten(arrays.values())
    tree: dict[str, Any] = {}
    for path, array in arrays.items():
        *parents, name = path.split("/")
        subtree = tree
        for parent in parents:
            subtree = subtree.setdefault(parent, {})
        subtree[name] = array
    return tree.get(PARAMS, {})
