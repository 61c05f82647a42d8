"""Training runs: one device or many, one process or several, resumed from checkpoints after an interruption."""

import contextlib
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

import cnn_jax

from . import cli

CHECKPOINTS_PER_TRAINING = 20
MIN_STEPS_PER_CHECKPOINT = 100
HEARTBEAT_TIMEOUT_SECONDS = 30
IDENTITY_EXCLUDES = ("out", "data_dir", "resume", "devices", "distributed")  # options that do not change the results

Result = TypeVar("Result")
Options = TypeVar("Options", bound="RunOptions")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of every script that can resume and that shares its work among devices and processes."""

    resume: bool = True
    """Continue an interrupted run with the same options; --no-resume starts over."""
    devices: int | None = None
    """Devices per process that share the work. A CPU is split into as many virtual devices."""
    distributed: tuple[str, ...] = ()
    """Share the work among several processes: HOST:PORT of the first one, their number, and this one's index from 0.
    "auto" finds them under SLURM, Open MPI, Kubernetes and on TPU pods."""
    out: Path
    """Folder for the results."""


class Run(NamedTuple):
    """A script's run."""

    out: Path
    """Folder for this process's results: `--out` in the first process, a temporary folder in all others."""
    checkpoint_dir: Path
    mesh: Mesh | None


class TrainingResult(NamedTuple):
    """A trained network and how it was trained."""

    net: cnn_jax.Layer
    params: Any
    history: dict[str, np.ndarray]
    seconds: float
    """Training time since the last start, compilation included."""
    resumed_after: int
    """Training steps done before the last start."""


def run_experiment(config: Options, work: Callable[[Options, Run], Result]) -> Result:
    """Returns `work(config, run)`, called within `open_run`."""
    with open_run(config) as run:
        return work(config, run)


@contextlib.contextmanager
def open_run(config: RunOptions) -> Iterator[Run]:
    """Connects devices and processes, and opens the checkpoints of an unfinished run in `config.out`.

    The checkpoints are deleted when the run finishes.

    Raises:
      ValueError: `config.out` holds an unfinished run with other options.
    """
    mesh = connect_devices(config.devices, config.distributed)
    is_first = jax.process_index() == 0
    checkpoint_dir = config.out / "saves"
    with contextlib.nullcontext(config.out) if is_first else discarded_output() as out:
        run = Run(cli.make_output_dir(out), checkpoint_dir, mesh)
        if is_first:
            claim_dir(checkpoint_dir, config)
        barrier("claimed")
        try:
            yield run
        except BaseException:
            if is_first and not has_checkpoints(checkpoint_dir):
                delete_checkpoints(checkpoint_dir)
            raise
        barrier("done")
        if is_first:
            delete_checkpoints(checkpoint_dir)


@contextlib.contextmanager
def discarded_output() -> Iterator[Path]:
    """Discards what is printed; yields a temporary folder to write to."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as devnull,
        contextlib.redirect_stdout(devnull),
    ):
        yield Path(folder)


def claim_dir(checkpoint_dir: Path, config: RunOptions) -> None:
    """Records the run's options in a checkpoint folder, or checks them against those of the unfinished run there.

    Raises:
      ValueError: the folder holds an unfinished run with other options.
    """
    options = options_as_text(config)
    identity = {name: value for name, value in options.items() if name not in IDENTITY_EXCLUDES}
    record = checkpoint_dir / "config.json"
    if not config.resume or not has_checkpoints(checkpoint_dir):
        delete_checkpoints(checkpoint_dir)
        cli.write_json(record, identity)
        return
    try:
        recorded = json.loads(record.read_text())
    except ValueError as error:
        raise ValueError(f"{record}: not the record of a run ({error})") from error
    refuse_other_options(f"{checkpoint_dir}: holds an unfinished run", recorded, identity)


def refuse_other_options(subject: str, recorded: Mapping[str, Any], requested: Mapping[str, Any]) -> None:
    """Raises ValueError, beginning with `subject`, if recorded options differ from the requested ones."""
    for name in {**recorded, **requested}:
        recorded_value = recorded.get(name)
        requested_value = requested.get(name)
        if recorded_value != requested_value:
            raise ValueError(
                f"{subject} with {name}={recorded_value}, this one has {name}={requested_value}; "
                "choose another --out, or pass --no-resume"
            )


def has_checkpoints(checkpoint_dir: Path) -> bool:
    """Whether a training left a checkpoint in this folder."""
    return any(path.name.isdecimal() for path in checkpoint_dir.glob("*/*"))


def delete_checkpoints(checkpoint_dir: Path) -> None:
    """Deletes a folder of checkpoints. It is renamed first, so an interrupted deletion leaves no valid checkpoint."""
    renamed_dir = checkpoint_dir.with_name(f"{checkpoint_dir.name}.done")
    shutil.rmtree(renamed_dir, ignore_errors=True)
    if checkpoint_dir.exists():
        checkpoint_dir.rename(renamed_dir)
        shutil.rmtree(renamed_dir)


def fit_with_checkpoints(
    run: Run, name: str, net: cnn_jax.Layer, data: Any, *, steps: int, **options: Any
) -> TrainingResult:
    """Trains with `cnn_jax.fit`, from the latest checkpoint if there is one, on the run's devices.

    Args:
      run: the run whose checkpoint folder and devices are used.
      name: the training's name within the run; its checkpoints are in a folder of that name.
      net, data, steps, options: arguments of `cnn_jax.fit`.
    """
    started = time.monotonic()
    checkpoint_dir = run.checkpoint_dir / name
    resumed_after = latest_step(checkpoint_dir)
    if resumed_after:
        print(f"{name}: resuming after step {resumed_after}", file=sys.stderr)
    params, history = cnn_jax.fit(
        net,
        data,
        steps=steps,
        checkpoint_dir=checkpoint_dir,
        save_every=max(steps // CHECKPOINTS_PER_TRAINING, MIN_STEPS_PER_CHECKPOINT),
        mesh=run.mesh,
        **options,
    )
    if run.mesh is not None:
        params = jax.tree.map(lambda leaf: jnp.asarray(np.array(leaf.addressable_data(0))), params)
    return TrainingResult(net, jax.block_until_ready(params), history, time.monotonic() - started, resumed_after)


def latest_step(checkpoint_dir: Path) -> int:
    """The step of the latest checkpoint in a training's folder; 0 without a checkpoint."""
    names = [path.name for path in checkpoint_dir.iterdir()] if checkpoint_dir.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)


def connect_devices(devices: int | None, distributed: tuple[str, ...]) -> Mesh | None:
    """The mesh of `devices` devices of every process; None for one device of one process.

    Raises:
      ValueError: this process has fewer devices, or it cannot be connected to the others.
    """
    if devices is not None:
        jax.config.update("jax_num_cpu_devices", cli.check_positive("--devices", devices))
    if distributed:
        connect_processes(distributed)
    available = len(jax.local_devices())
    devices_per_process = devices or (available if distributed else 1)
    if devices_per_process > available:
        raise ValueError(f"--devices: expected at most {available} (available), got {devices}")
    if devices_per_process == 1 and not distributed:
        return None
    chosen = [device for i in range(jax.process_count()) for device in jax.local_devices(i)[:devices_per_process]]
    return Mesh(np.array(chosen), ("batch",))


def connect_processes(distributed: tuple[str, ...]) -> None:
    """Connects this process to the others, as the option --distributed describes them."""
    try:
        address: dict[str, Any] = {}
        if distributed != ("auto",):
            coordinator, count, index = distributed
            address = {"coordinator_address": coordinator, "num_processes": int(count), "process_id": int(index)}
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS, **address)
    except (ValueError, RuntimeError) as error:
        option_value = " ".join(distributed)
        expected = "auto, or HOST:PORT COUNT INDEX"
        raise ValueError(f"--distributed: expected {expected}, got {option_value!r} ({error})") from error


def barrier(name: str) -> None:
    """Waits until every process has reached the barrier of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def options_as_text(config: Any) -> dict[str, str]:
    """A script's options as text, for metrics.json."""
    return {name: str(value) for name, value in dataclasses.asdict(config).items()}
