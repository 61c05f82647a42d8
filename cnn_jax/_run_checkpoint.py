"""Training that outlives its process: the states of a run in a folder, by Orbax, and signals that ask it to stop."""

import contextlib
import functools
import json
import logging
import os
import signal
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ._sharding import checksum, is_prng_key, key_data, put_on_sharding, to_host

KEPT = 2  # newest saves, beside the one of the lowest loss
STATE, RECORD = "state", "record"
log = logging.getLogger(__name__)


class RunCheckpointer:
    """The saved states of one run in a folder: the newest ones, and the one of the lowest loss.

    with RunCheckpointer(folder, {"batch_size": 64}) as saves:
        step, state, history = saves.newest(state) or (0, state, {})
        saves.save(100, state, history)

    A state is a tree of dicts, lists and arrays. A save is written beside its place, in the background, and then
    renamed: it is whole or not there. Sums of all bytes are kept with it, so that a damaged one is known, set aside
    as `damaged-STEP`, and the one before it taken.

    Args:
      folder: where the saves are, each in a folder of its step's number; made if needed.
      run: what makes the run the one that it is, as JSON knows it. RunCheckpointer of another one are refused.
    """

    def __init__(self, folder: str | os.PathLike[str], run: Mapping[str, Any]):
        _orbax()
        self.folder, self.run = Path(folder).absolute(), json.loads(json.dumps(dict(run)))
        self.last = 0

    @functools.cached_property
    def manager(self) -> Any:
        """Orbax's, which reads what is in the folder once it is made, and does not bear what is damaged."""
        orbax = _orbax()
        policy = orbax.checkpoint_managers.preservation_policy
        best: dict[str, Any] = {"best_fn": lambda metrics: metrics["loss"], "best_mode": "min"}
        kept = [policy.LatestN(KEPT), policy.BestN(get_metric_fn=best["best_fn"], reverse=True, n=1)]
        options = orbax.CheckpointManagerOptions(
            preservation_policy=policy.AnyPreservationPolicy(kept), cleanup_tmp_directories=True, **best
        )
        return orbax.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "RunCheckpointer":
        silence_orbax_noise()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if "manager" in self.__dict__:
                self.manager.close()
        except Exception as failed:
            if error is None:
                raise self._not_saved(failed) from failed

    def save(self, step: int, state: Any, history: Mapping[str, np.ndarray]) -> None:
        """Starts to write the state after a step, and the history until then, which has a "loss" that is compared.

        Raises an OSError if this or the save before it cannot be written.
        """
        args = _orbax().args
        whole = {"state": jax.tree.map(to_host, state), "history": dict(history)}
        record = {"run": self.run, "state": _described(state), "history": list(history), "sums": _sums(whole)}
        record["own"] = _own_sum(record)
        items = args.Composite(**{STATE: args.PyTreeSave(whole), RECORD: args.JsonSave(record)})
        loss, self.last = {"loss": float(np.mean(history["loss"][self.last - step :]))}, step
        try:
            self.manager.save(step, args=items, metrics=loss, force=True)
        except Exception as error:
            raise self._not_saved(error) from error

    def wait(self) -> None:
        """Waits until what was saved is on the disk. Raises an OSError if it cannot be."""
        try:
            self.manager.wait_until_finished()
        except Exception as error:
            raise self._not_saved(error) from error

    def newest(self, like: Any) -> tuple[int, Any, dict[str, np.ndarray]] | None:
        """The newest whole save, (step, state, history), its arrays placed as those of a state like it; None if there
        is no save.

        Raises:
          ValueError: the saves are of another run, or of a state with other arrays; or none of them is whole.
        """
        damaged: dict[int, Exception] = {}
        for step in sorted(self._steps(), reverse=True):
            try:
                whole = self._read(step, like)
            except _Other as error:
                raise ValueError(str(error)) from None
            except Exception as error:  # whatever Orbax and what it builds on make of damaged files
                damaged[step] = error
                continue
            for other in self._steps():  # no more than Orbax must read to go on
                if other < step:
                    try:
                        self._loss(other)
                    except Exception as error:
                        damaged[other] = error
            self._set_aside(damaged, step)
            self.last = step
            return step, jax.tree.map(_placed, whole["state"], like), whole["history"]
        if damaged:
            error = _line(next(iter(damaged.values())))
            raise ValueError(f"{self.folder}: none of the saves {sorted(damaged)} is whole ({error}); start elsewhere")
        _agree(0, self.folder)
        return None

    def _steps(self) -> list[int]:
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return [int(name) for name in names if name.isdecimal()]

    def _set_aside(self, damaged: Mapping[int, Exception], step: int) -> None:
        _agree(step, self.folder)
        if jax.process_index() == 0:
            for other, error in damaged.items():
                log.warning("%s: damaged, set aside (%s)", self.folder / str(other), _line(error))
                name = f"damaged-{other}"
                while (self.folder / name).exists():
                    name += "+"
                (self.folder / str(other)).rename(self.folder / name)
        _agree(step, self.folder)  # all wait for the first

    def _read(self, step: int, like: Any) -> Any:
        orbax, folder = _orbax(), self.folder / str(step)
        record = json.loads((folder / RECORD / "metadata").read_text())
        if record.pop("own") != _own_sum(record):
            raise ValueError(f"{RECORD} is not what was saved")
        self._loss(step)
        found, own = record["run"], self.run
        for name in found | own:
            if found.get(name) != own.get(name):
                raise _Other(f"{self.folder}: holds a run with {name} {found.get(name)}, this one has {own.get(name)}")
        found, own = record["state"], _described(like)
        for place in own | found:
            if found.get(place) != own.get(place):
                raise _Other(f"{self.folder}: holds {place} as {found.get(place)}, this run has {own.get(place)}")
        shape = {"state": like, "history": dict.fromkeys(record["history"], 0)}
        plain = jax.tree.map(lambda _: orbax.RestoreArgs(restore_type=np.ndarray), shape)
        with orbax.PyTreeCheckpointer() as reader:
            whole = reader.restore(folder / STATE, args=orbax.args.PyTreeRestore(restore_args=plain))
        sums = _sums(whole)
        wrong = [path for path, value in record["sums"].items() if sums.get(path) != value]
        if wrong:
            raise ValueError(f"{wrong[0]} is not what was saved")
        return whole

    def _loss(self, step: int) -> float:
        return float(json.loads((self.folder / str(step) / "metrics" / "metrics").read_text())["loss"])

    def _not_saved(self, error: Exception) -> OSError:
        return OSError(f"{self.folder}: training is not saved ({_line(error)}); earlier saves are as they were")


class _Other(Exception):
    """A save of another run."""


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[int], signal.Signals | None]]:
    """Yields a function of the step just begun that says which signal asks the run to stop after it, if one does.

    It is the first SIGINT or SIGTERM, in place of what that does otherwise; a second one does that. Elsewhere than in
    the main thread there is none. Of several processes a SIGTERM to one stops all, after the same step.
    """
    if jax.process_count() > 1:
        stop = multihost_utils.reached_preemption_sync_point
        yield functools.lru_cache(1)(lambda step: signal.SIGTERM if stop(step) else None)
        return
    asked: list[signal.Signals] = []
    kinds = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def restore() -> None:
        for kind, handler in before.items():
            signal.signal(kind, handler)

    def note(kind: int, frame: Any) -> None:
        asked.append(signal.Signals(kind))
        restore()

    for kind in kinds:
        signal.signal(kind, note)
    try:
        yield lambda step: asked[0] if asked else None
    finally:
        restore()


def _agree(step: int, folder: Path) -> None:
    """Waits for the other processes, which must have found the same."""
    if jax.process_count() > 1:
        steps = set(multihost_utils.process_allgather(np.int32(step)).tolist())
        if len(steps) > 1:
            raise ValueError(f"{folder}: processes find saves of steps {sorted(steps)}; expected a disk that all share")


def silence_orbax_noise() -> None:
    """Where one array cannot be read or written, Orbax does not wait for the others, whose answers then find nobody,
    now or later: that is not for the user's eyes."""
    heard = sys.unraisablehook
    if heard.__module__ == __name__:
        return

    def hook(answer: Any) -> None:
        if answer.object is not None or str(answer.exc_value) != "Event loop is closed":
            heard(answer)

    sys.unraisablehook = hook


def _orbax() -> Any:
    try:
        import orbax.checkpoint
    except ImportError as error:
        raise ImportError("checkpoint_dir needs Orbax: pip install 'cnn_jax[experiments]'") from error
    return orbax.checkpoint


def _placed(array: np.ndarray, like: jax.Array) -> jax.Array:
    whole = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like)) if is_prng_key(like) else array
    return put_on_sharding(whole, like.sharding)


def _by_path(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _described(tree: Any) -> dict[str, str]:
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in _by_path(jax.tree.map(key_data, tree)).items()}


def _sums(tree: Any) -> dict[str, int]:
    return {path: checksum(leaf) for path, leaf in _by_path(tree).items()}


def _own_sum(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _line(error: Exception) -> str:
    """The start of an error's message, in one line."""
    return " ".join(str(error).split())[:200]
