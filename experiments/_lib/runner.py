"""How a training script runs: on one device or many, in one process or several, and on from where it was stopped."""

import contextlib
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

import cnn_jax
from cnn_jax._sharding import to_host

from . import cli

SAVES = 20  # in the course of a training
FEWEST_STEPS = 100  # from one save to the next
HEARTBEAT = 30  # seconds without one, and a process counts as dead
ELSEWHERE = ("out", "data_dir", "resume", "devices", "distributed")  # options that make no other run


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every script that trains can be asked."""

    resume: bool = True
    """Go on where an earlier run with the same options was stopped; else start anew."""
    devices: int | None = None
    """Devices of each process that share every batch. CPUs are made as many as asked for."""
    distributed: tuple[str, ...] = ()
    """This is one of several processes: "auto" under SLURM, Open MPI, Kubernetes or on a TPU pod; elsewhere
    HOST:PORT of the first one, how many there are, and which this is, from 0."""


class Run(NamedTuple):
    """A script's run."""

    out: Path
    """Where this process writes what comes out: of several, the first alone to the folder that was asked for."""
    checkpoint_dir: Path
    mesh: Mesh | None


class TrainingResult(NamedTuple):
    """A network that has learned, and how."""

    net: cnn_jax.Layer
    params: Any
    history: dict[str, np.ndarray]
    seconds: float
    """Of training since the last start, the compilation included."""
    resumed_after: int
    """Steps that were done before that."""


@contextlib.contextmanager
def open_run(config: Any) -> Iterator[Run]:
    """Connects devices and processes, and finds what an unfinished run has saved in `config.out`.

    What is saved on the way is gone once all is done. A folder with an unfinished run of other options is refused.
    """
    mesh = connect_devices(config.devices, config.distributed)
    with contextlib.ExitStack() as stack:
        first = jax.process_index() == 0
        if not first:
            sys.stdout = stack.enter_context(open(os.devnull, "w"))
        own = config.out if first else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        run = Run(cli.make_output_dir(own), config.out / "saves", mesh)
        if first:
            claim_dir(run.checkpoint_dir, config)
        barrier("claimed")
        try:
            yield run
        except BaseException:
            if first and not has_checkpoints(run.checkpoint_dir):
                delete_checkpoints(run.checkpoint_dir)
            raise
        barrier("done")
        if first:
            delete_checkpoints(run.checkpoint_dir)


def run_experiment(config: Any, work: Callable[[Any, Run], Any]) -> Any:
    """What work(config, run) returns, within a run."""
    with open_run(config) as run:
        return work(config, run)


def has_checkpoints(checkpoint_dir: Path) -> bool:
    """Whether a training was saved here."""
    return any(path.name.isdecimal() for path in checkpoint_dir.glob("*/*"))


def claim_dir(checkpoint_dir: Path, config: Any) -> None:
    """Makes the folder of checkpoints one of these options, or finds that it is."""
    asked = {name: value for name, value in options_as_text(config).items() if name not in ELSEWHERE}
    if not config.resume or not has_checkpoints(checkpoint_dir):
        delete_checkpoints(checkpoint_dir)
        cli.write_json(checkpoint_dir / "config.json", asked)
        return
    try:
        found = json.loads((checkpoint_dir / "config.json").read_text())
    except ValueError as error:
        raise ValueError(f"{checkpoint_dir / 'config.json'}: not what a run wrote ({error})") from error
    for name in found | asked:
        if found.get(name) != asked.get(name):
            given = f"{name} {found.get(name)}, this one has {asked.get(name)}"
            raise ValueError(
                f"{checkpoint_dir}: holds an unfinished run with {given}; expected another --out, or --no-resume"
            )


def delete_checkpoints(checkpoint_dir: Path) -> None:
    """Deletes a folder of checkpoints: one that was cut short in this is none any more."""
    rest = checkpoint_dir.with_name(f"{checkpoint_dir.name}.done")
    shutil.rmtree(rest, ignore_errors=True)
    if checkpoint_dir.exists():
        checkpoint_dir.rename(rest)
        shutil.rmtree(rest)


def fit_with_checkpoints(
    run: Run, name: str, net: cnn_jax.Layer, data: Any, *, steps: int, **options: Any
) -> TrainingResult:
    """`cnn_jax.fit`, saved in the run under a name of its own; its parameters are this process's."""
    started, checkpoint_dir = time.monotonic(), run.checkpoint_dir / name
    names = [path.name for path in checkpoint_dir.iterdir()] if checkpoint_dir.is_dir() else []
    resumed = max((int(name) for name in names if name.isdecimal()), default=0)
    if resumed:
        print(f"{name}: going on after step {resumed}", file=sys.stderr)
    every = max(steps // SAVES, FEWEST_STEPS)
    params, history = cnn_jax.fit(
        net, data, steps=steps, checkpoint_dir=checkpoint_dir, save_every=every, mesh=run.mesh, **options
    )
    if run.mesh is not None:
        params = jax.tree.map(lambda leaf: jax.numpy.asarray(to_host(leaf)), params)
    return TrainingResult(net, jax.block_until_ready(params), history, time.monotonic() - started, resumed)


def connect_devices(devices: int | None, distributed: tuple[str, ...]) -> Mesh | None:
    """The mesh of the devices asked for, of all processes; None for one device of one process."""
    if devices is not None:
        jax.config.update("jax_num_cpu_devices", cli.check_positive("--devices", devices))
    if distributed:
        connect_processes(distributed)
    here = len(jax.local_devices())
    wanted = devices or (here if distributed else 1)
    if wanted > here:
        raise ValueError(f"devices: expected at most the {here} that there are, got {devices}")
    if wanted == 1 and not distributed:
        return None
    chosen = [device for i in range(jax.process_count()) for device in jax.local_devices(i)[:wanted]]
    return Mesh(np.array(chosen), ("batch",))


def connect_processes(distributed: tuple[str, ...]) -> None:
    """Finds the other processes."""
    try:
        if distributed == ("auto",):
            found: dict[str, Any] = {}
        else:
            address, processes, number = distributed
            found = {"coordinator_address": address, "num_processes": int(processes), "process_id": int(number)}
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT, **found)
    except (ValueError, RuntimeError) as error:
        given = " ".join(distributed)
        raise ValueError(f"distributed: expected auto, or HOST:PORT COUNT NUMBER, got {given!r} ({error})") from error


def barrier(place: str) -> None:
    """Waits until all processes are at this place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def options_as_text(config: Any) -> dict[str, str]:
    """A script's options, for metrics.json."""
    return {name: str(value) for name, value in dataclasses.asdict(config).items()}
