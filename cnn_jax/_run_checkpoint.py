"""Checkpoints of a training run in a directory, written by Orbax."""

import contextlib
import functools
import json
import logging
import os
import time
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ._checksums import json_checksum, leaves_by_path, tree_checksums
from ._errors import one_line
from ._history import loss_to_compare
from ._hyperparameters import changed_hyperparameters, injected_hyperparameters, take_leaves
from ._orbax import import_orbax, make_manager, restore_numpy, silence_abandoned_tasks
from ._processes import assert_same_step, gather_positions
from ._sharding import is_prng_key, key_data, put_on_sharding, to_host
from ._typing import JsonObject
from .files import local_path, writable_folder

STATE = "state"  # names of a checkpoint's items
RECORD = "record"
FORMAT = 2  # of checkpoints: the arrays of the state are saved as a list
# After a failure the reads and writes that Orbax abandoned report from other threads. They are silenced this long.
LATE_REPORTS_SECONDS = 0.05
log = logging.getLogger(__name__)


class IncompatibleCheckpoint(ValueError):
    """A checkpoint is intact, but belongs to another run."""


class SavedRun(NamedTuple):
    """What a checkpoint holds."""

    step: int
    state: PyTree
    history: dict[str, np.ndarray]
    position: int | None
    """Where this process continues to read its data, if they have a position on the host."""
    hyperparameters: Mapping[str, object] = MappingProxyType({})
    """The injected hyperparameters that the optimizer began with."""


class RunCheckpointer:
    """Saves the states of one run in a directory: the newest ones, and the one of the lowest loss.

    A checkpoint is written to a temporary directory in the background and then renamed, so it is complete or absent.
    Checksums of all arrays are saved with it. A damaged checkpoint is renamed to `damaged-STEP`, and the one before it
    is restored.

    Args:
      directory: where the checkpoints are, each in a directory named after its step; created if needed.
      run: JSON-serializable identification of the run. Checkpoints of another run are refused.

    Example:

        with RunCheckpointer(directory, {"batch_size": 64}) as checkpointer:
            saved = checkpointer.restore_latest(state)
            ...
            checkpointer.save(100, state, {"loss": losses})
    """

    def __init__(self, directory: str | os.PathLike[str], run: Mapping[str, object]):
        import_orbax()
        self.directory = local_path(directory, name="checkpoint_dir").absolute()
        self._run = json.loads(json.dumps({"format": FORMAT, **run}))  # as it comes back from a checkpoint
        self._hyperparameters: dict[str, object] = {}
        self._last_step = 0
        self._failed = False
        self._hooks = contextlib.ExitStack()

    def __enter__(self) -> "RunCheckpointer":
        self._hooks.enter_context(silence_abandoned_tasks())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._hooks:
            try:
                if "_manager" in self.__dict__:
                    self._manager.close()
            except Exception as failure:
                self._failed = True
                if error is None:
                    raise self._not_saved(failure) from failure
            finally:
                if self._failed:
                    time.sleep(LATE_REPORTS_SECONDS)

    def save(self, step: int, state: PyTree, history: Mapping[str, np.ndarray], position: int | None = None) -> None:
        """Starts to write a checkpoint.

        Args:
          step: the number of steps done.
          state: any tree of arrays.
          history: metrics of all steps. The loss of a validation after `step` decides which checkpoint is the best;
            without validations, the mean "loss" since the last checkpoint.
          position: where this process continues to read its data; every process saves its own.

        Raises:
          OSError: this checkpoint or the one before it cannot be written.
        """
        args = import_orbax().args
        arrays = {"state": [to_host(leaf) for leaf in jax.tree.leaves(state)], "history": dict(history)}
        record: dict[str, object] = {
            "run": self._run,
            "state": _describe(state),
            "history": list(history),
            "hyperparameters": self._hyperparameters,
            "positions": gather_positions(position),
            "checksums": tree_checksums(arrays),
        }
        record["record_checksum"] = json_checksum(record)
        items = args.Composite(**{STATE: args.PyTreeSave(arrays), RECORD: args.JsonSave(record)})
        loss = loss_to_compare(history, step, self._last_step)
        self._last_step = step
        try:
            self._manager.save(step, args=items, metrics={"loss": loss}, force=True)
        except Exception as error:
            raise self._not_saved(error) from error

    def wait(self) -> None:
        """Waits until all checkpoints are on disk. Raises an OSError if one cannot be written."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._not_saved(error) from error

    def restore_latest(self, like: PyTree) -> SavedRun | None:
        """Reads the newest intact checkpoint; None if there are no checkpoints.

        Args:
          like: the state of a new run. The restored state has its tree structure, shapes, dtypes and shardings.

        Raises:
          ValueError: no checkpoint is intact, or the newest intact one belongs to another run
            (`IncompatibleCheckpoint`).
        """
        self._hyperparameters = injected_hyperparameters(like)
        damaged: dict[int, Exception] = {}
        saved = None
        error = None
        try:
            saved = self._newest_intact(like, damaged)
        except Exception as failure:  # raised below, once the other processes know of it
            error = failure
        self._failed = bool(damaged)
        assert_same_step(saved.step if saved else 0, self.directory, error)
        if saved is None:
            return None
        self._quarantine(damaged, saved.step)
        self._last_step = saved.step
        state = jax.tree.map(_restore_array, saved.state, like)
        changed = changed_hyperparameters(like, saved.hyperparameters)
        if changed and jax.process_index() == 0:
            log.warning("%s: resumes with new hyperparameters: %s", self.directory, ", ".join(changed.values()))
        return saved._replace(state=take_leaves(state, like, changed))

    def check_writable(self, state: PyTree) -> None:
        """Raises an OSError if the directory cannot be written to, or has not enough space for a state."""
        error = None
        try:
            state_bytes = sum(key_data(leaf).nbytes for leaf in jax.tree.leaves(state))
            writable_folder(self.directory, name="checkpoint_dir", free_bytes=state_bytes)
        except OSError as failure:  # raised once the other processes know of it
            error = failure
        assert_same_step(0, self.directory, error)

    def _newest_intact(self, like: PyTree, damaged: dict[int, Exception]) -> SavedRun | None:
        """The newest intact checkpoint as this process reads it; adds the reasons of damaged ones to `damaged`."""
        for step in sorted(self._saved_steps(), reverse=True):
            try:
                saved = self._read(step, like)
            except IncompatibleCheckpoint:
                raise
            except Exception as error:  # damaged files make Orbax and its dependencies raise errors of many kinds
                damaged[step] = error
                continue
            damaged.update(self._unreadable_losses(before=step))
            return saved
        if damaged:
            reason = one_line(next(iter(damaged.values())))
            raise ValueError(
                f"checkpoint_dir: none of the checkpoints {sorted(damaged)} in {self.directory} is intact ({reason}); "
                "use another directory"
            )
        return None

    @functools.cached_property
    def _manager(self) -> Any:  # the type of `make_manager`
        """Created only after damaged checkpoints are moved away, because its constructor fails on them."""
        return make_manager(self.directory)

    def _saved_steps(self) -> list[int]:
        names = [path.name for path in self.directory.iterdir()] if self.directory.is_dir() else []
        return [int(name) for name in names if name.isdecimal()]

    def _read(self, step: int, like: PyTree) -> SavedRun:
        """A checkpoint with its arrays in host memory. Raises an error of any kind if it is damaged."""
        path = self.directory / str(step)
        record = json.loads((path / RECORD / "metadata").read_text())
        if record.pop("record_checksum") != json_checksum(record):
            raise ValueError(f"{RECORD}: its checksum differs")
        self._read_loss(step)
        self._check_compatible(record, like)
        leaves, structure = jax.tree.flatten(like)
        arrays = restore_numpy(path / STATE, {"state": leaves, "history": dict.fromkeys(record["history"], 0)})
        if tree_checksums(arrays) != record["checksums"]:
            raise ValueError(f"{STATE}: its checksums differ")
        positions = record["positions"]
        return SavedRun(
            step=step,
            state=structure.unflatten(arrays["state"]),
            history=arrays["history"],
            position=positions[jax.process_index()] if positions else None,
            hyperparameters=record["hyperparameters"],
        )

    def _check_compatible(self, record: JsonObject, like: PyTree) -> None:
        """Raises IncompatibleCheckpoint for a record of another run or of a state with other arrays."""
        expected = self._run | _describe(like)
        saved = record["run"] | record["state"]
        for name in expected | saved:
            if expected.get(name) != saved.get(name):
                raise IncompatibleCheckpoint(
                    f"checkpoint_dir: expected {name}={expected.get(name)}, got checkpoints with "
                    f"{name}={saved.get(name)} in {self.directory}; use another directory"
                )
        positions = record["positions"]
        if positions and len(positions) != jax.process_count():
            raise IncompatibleCheckpoint(
                f"checkpoint_dir: expected checkpoints of {jax.process_count()} processes, got those of "
                f"{len(positions)} in {self.directory}; use {len(positions)} processes"
            )

    def _read_loss(self, step: int) -> float:
        return float(json.loads((self.directory / str(step) / "metrics" / "metrics").read_text())["loss"])

    def _unreadable_losses(self, before: int) -> dict[int, Exception]:
        """Older checkpoints whose loss cannot be read, by step, with the reasons. Orbax needs to read every loss."""
        damaged: dict[int, Exception] = {}
        for step in self._saved_steps():
            if step >= before:
                continue
            try:
                self._read_loss(step)
            except Exception as error:
                damaged[step] = error
        return damaged

    def _quarantine(self, damaged: Mapping[int, Exception], restored_step: int) -> None:
        """Renames damaged checkpoints to `damaged-STEP` in process 0; the other processes wait for it."""
        error = None
        if jax.process_index() == 0:
            try:
                self._set_aside(damaged)
            except OSError as failure:
                error = failure
        assert_same_step(restored_step, self.directory, error)

    def _set_aside(self, damaged: Mapping[int, Exception]) -> None:
        for step, error in damaged.items():
            path = self.directory / str(step)
            log.warning("%s: damaged, set aside (%s)", path, one_line(error))
            target = self.directory / f"damaged-{step}"
            while target.exists():
                target = target.with_name(f"{target.name}+")
            path.rename(target)

    def _not_saved(self, error: Exception) -> OSError:
        self._failed = True
        return OSError(
            f"checkpoint_dir: cannot save the run in {self.directory} ({one_line(error)}); "
            "earlier checkpoints are unchanged"
        )


def _restore_array(array: np.ndarray, like: Array) -> Array:
    """An array of a checkpoint on the devices, as a key if `like` is one."""
    if not is_prng_key(like):
        return put_on_sharding(array, like.sharding)
    key = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
    return put_on_sharding(key, like.sharding)


def _describe(tree: PyTree) -> dict[str, str]:
    """The dtype and shape of every array, by path."""
    arrays = leaves_by_path(jax.tree.map(key_data, tree))
    return {path: f"{array.dtype}{list(array.shape)}" for path, array in arrays.items()}
