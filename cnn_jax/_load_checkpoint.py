"""Reading of a training run's checkpoint without the run."""

import json
import os
from pathlib import Path
from typing import Literal, NamedTuple

from ._checksums import json_checksum, tree_checksums
from ._errors import one_line
from ._history import History
from ._orbax import import_orbax, read_tree
from ._run_checkpoint import RECORD, STATE
from ._validation import check_choice
from .layers import Params


class Checkpoint(NamedTuple):
    """What `load_checkpoint` reads."""

    params: Params
    """The parameters. With BatchNorm, pass them to `calibrate` before use."""
    history: History
    """The metrics of all steps until then."""
    step: int
    """The number of updates."""


def load_checkpoint(directory: str | os.PathLike[str], *, which: Literal["latest", "best"] = "latest") -> Checkpoint:
    """Reads the parameters of a checkpoint that `fit(checkpoint_dir=...)` saved.

    Args:
      directory: the run's `checkpoint_dir`.
      which: "latest" is the checkpoint of the most steps. "best" is that of the lowest loss: on the validation data, or
        without them in training, as the mean since the checkpoint before it.

    Returns:
      The parameters, the history until then and the number of updates. `fit(params=...)` trains them further;
      `fit(checkpoint_dir=...)` itself continues a run that was broken off.

    Raises:
      ValueError: the directory holds no checkpoint, or the checkpoint is damaged.
      ImportError: Orbax is not installed.

    Example:

        fit(net, data, validation=(images, labels), validate_every=100, checkpoint_dir="run", ...)
        params, history, step = load_checkpoint("run", which="best")
    """
    import_orbax()
    check_choice("which", which, ("latest", "best"))
    folder = Path(directory).absolute()
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    if not steps:
        raise ValueError(f"directory: expected checkpoints of fit, got none in {folder}")
    try:
        step = max(steps) if which == "latest" else min(steps, key=lambda step: (_read_loss(folder / str(step)), step))
        return _read(folder / str(step), step)
    except Exception as error:  # damaged files make Orbax and its dependencies raise errors of many kinds
        raise ValueError(f"directory: the checkpoints in {folder} cannot be read ({one_line(error)})") from error


def _read(folder: Path, step: int) -> Checkpoint:
    record = json.loads((folder / RECORD / "metadata").read_text())
    if record.pop("record_checksum") != json_checksum(record):
        raise ValueError(f"{step}/{RECORD}: its checksum differs")
    arrays = read_tree(folder / STATE)
    if tree_checksums(arrays) != record["checksums"]:
        raise ValueError(f"{step}/{STATE}: its checksums differ")
    history = {name: arrays["history"][name] for name in record["history"]}
    return Checkpoint(params=arrays["state"]["params"], history=history, step=step)


def _read_loss(folder: Path) -> float:
    return float(json.loads((folder / "metrics" / "metrics").read_text())["loss"])
