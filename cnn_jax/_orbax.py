"""What the checkpoints of training runs need from Orbax."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ._optional import optional_import

NEWEST_KEPT = 2  # checkpoints, beside the one of the lowest loss


def import_orbax() -> ModuleType:
    """The module `orbax.checkpoint`. Raises an ImportError that names the extra to install."""
    with optional_import(needed_by="fit(checkpoint_dir=...)", extra="train"):
        import orbax.checkpoint
    return orbax.checkpoint


def make_manager(directory: Path) -> Any:  # Orbax is imported only here, so its types are unknown elsewhere
    """An Orbax manager that keeps the newest checkpoints and the one of the lowest "loss".

    Its constructor reads the metrics of all checkpoints in the directory, and fails if some are damaged.
    """
    orbax = import_orbax()
    policy = orbax.checkpoint_managers.preservation_policy
    policies = [
        policy.LatestN(NEWEST_KEPT),
        policy.BestN(get_metric_fn=_loss_of, reverse=True, n=1),
    ]
    options = orbax.CheckpointManagerOptions(
        preservation_policy=policy.AnyPreservationPolicy(policies),
        cleanup_tmp_directories=True,
        best_fn=_loss_of,
        best_mode="min",
    )
    return orbax.CheckpointManager(directory, options=options)


def restore_numpy(path: Path, like: PyTree) -> PyTree:
    """Reads a tree of arrays with the structure of `like` as NumPy arrays."""
    orbax = import_orbax()
    as_numpy = jax.tree.map(lambda _: orbax.RestoreArgs(restore_type=np.ndarray), like)
    with orbax.PyTreeCheckpointer() as reader:
        return reader.restore(path, args=orbax.args.PyTreeRestore(restore_args=as_numpy))


@contextlib.contextmanager
def silence_abandoned_tasks() -> Iterator[None]:
    """Hides the exceptions of tasks that Orbax abandons when one array cannot be read or written.

    Python reports them to `sys.unraisablehook`, which is replaced within the block. Other reports pass.
    """
    previous: Callable[[Any], object] = sys.unraisablehook

    def hook(unraisable: Any) -> None:  # sys.UnraisableHookArgs exists for type checkers only
        if unraisable.object is not None or str(unraisable.exc_value) != "Event loop is closed":
            previous(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = previous


def _loss_of(metrics: Mapping[str, float]) -> float:
    return metrics["loss"]
