"""Runs that are killed resume to the same end; several processes train, stop and resume together."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from hypothesis import settings

from tests.helpers import train_process
from tests.helpers.cli import COMPILED, ROOT
from tests.helpers.pictures import write_pictures

KILLS = 20 if settings().max_examples > 100 else 1  # with --hypothesis-profile=thorough


def start(**options):
    """A process of tests/helpers/train_process.py."""
    environment = {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": COMPILED.name, "PATH": ""}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONFAULTHANDLER": ""}
    environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]}
    command = [sys.executable, ROOT / "tests" / "helpers" / "train_process.py", json.dumps(options, default=str)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait(process):
    """The exit code of a process, and what it wrote to stderr."""
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def succeed(process):
    code, err = wait(process)
    assert code == 0, err


def result(path):
    with np.load(path) as file:
        return dict(file)


def run(**options):
    succeed(start(**options))
    return result(options["result"])


def start_two(results, **options):
    """Two processes that train together, each on two devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(**options, result=results / f"{i}.npz", devices=2, process=i, port=port) for i in range(2)]


def run_two(results, **options):
    """The results of both processes."""
    for process in start_two(results, **options):
        succeed(process)
    return [result(results / f"{i}.npz") for i in range(2)]


def newest_step(folder):
    return max((int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal()), default=0)


def wait_for_checkpoint(folder, processes, after=0):
    """Waits until there is a checkpoint of more than `after` steps."""
    while newest_step(folder) <= after:
        assert all(process.poll() is None for process in processes), [process.stderr.read() for process in processes]
        time.sleep(0.01)


def assert_equal(results, expected):
    assert results.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(results[name], array, err_msg=name)


def assert_close(results, expected, atol):
    for name, array in expected.items():
        np.testing.assert_allclose(results[name], array, rtol=0, atol=atol, err_msg=name)


def test_a_killed_run_resumes_to_the_end_of_an_uninterrupted_one(tmp_path):
    folder = tmp_path / "checkpoints"
    options = {"net": "line", "folder": folder, "save_every": 20, "devices": jax.device_count()}
    process = start(**options, steps=1_000_000, result=tmp_path / "never.npz")
    wait_for_checkpoint(folder, [process])
    process.kill()
    assert wait(process)[0] == -signal.SIGKILL
    steps = newest_step(folder) + 25
    resumed = train_process.train("line", steps, folder=folder, save_every=20)
    uninterrupted = train_process.train("line", steps)
    assert_equal(train_process.as_arrays(*resumed), train_process.as_arrays(*uninterrupted))


@pytest.mark.slow
@pytest.mark.parametrize(("net", "steps"), [("xo", 60), ("cifar", 20)])
def test_a_run_killed_at_random_moments_ends_as_an_uninterrupted_one(tmp_path, net, steps):
    options = {"net": net, "steps": steps * KILLS + 20}
    uninterrupted = run(**options, result=tmp_path / "uninterrupted.npz")
    folder = tmp_path / "checkpoints"
    options |= {"folder": folder, "save_every": 3, "result": tmp_path / "killed.npz"}
    moments = random.Random(0)
    saved = 0
    for _ in range(KILLS):
        process = start(**options)
        wait_for_checkpoint(folder, [process], after=saved)
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        assert wait(process)[0] == -signal.SIGKILL
        saved = newest_step(folder)
    assert_equal(run(**options), uninterrupted)


@pytest.mark.slow
def test_two_processes_train_as_one_device_does(tmp_path):
    options = {"net": "digits", "steps": 100, "x64": True}
    one_device = run(**options, result=tmp_path / "one.npz")
    eight_devices = run(**options, result=tmp_path / "eight.npz", devices=8)
    for results in (eight_devices, *run_two(tmp_path, **options)):
        assert_close(results, one_device, atol=1e-9)


@pytest.mark.slow
def test_two_processes_resume_in_a_stream_each_at_its_own_position(tmp_path):
    pictures = write_pictures(tmp_path / "pictures")
    for corrupt in sorted(pictures.glob("light/*.png"))[:8]:  # so that the processes leave out different numbers
        corrupt.write_bytes(b"no picture")
    options = {"net": "line", "pictures": pictures, "save_every": 3}
    uninterrupted = run_two(tmp_path, **options, steps=12)
    folder = tmp_path / "checkpoints"
    run_two(tmp_path, **options, steps=5, folder=folder)
    positions = json.loads((folder / "5" / "record" / "metadata").read_text())["positions"]
    assert len(positions) == 2
    assert positions[0] != positions[1]
    for results, expected in zip(run_two(tmp_path, **options, steps=12, folder=folder), uninterrupted, strict=True):
        assert_equal(results, expected)


@pytest.mark.slow
def test_of_two_processes_one_stops_the_other_and_both_resume(tmp_path):
    folder = tmp_path / "checkpoints"
    options = {"net": "digits", "folder": folder, "save_every": 20}
    processes = start_two(tmp_path, **options, steps=100_000)
    wait_for_checkpoint(folder, processes)
    processes[1].terminate()  # both stop, after the same step
    errors = [wait(process)[1] for process in processes]
    stopped = {int(step) for err in errors for step in re.findall("stopped by SIGTERM after step ([0-9]+), saved", err)}
    assert len(stopped) == 1

    processes = start_two(tmp_path, **options, steps=100_000)
    wait_for_checkpoint(folder, processes, after=stopped.pop())
    processes[1].kill()
    started = time.monotonic()
    (code, err), _ = (wait(process) for process in processes)
    assert code != 0
    assert time.monotonic() - started < 60
    assert "another task died" in err or "Gloo" in err

    options["steps"] = newest_step(folder) + 20
    expected = run(**options | {"folder": None}, result=tmp_path / "one.npz", devices=4)
    assert_close(run_two(tmp_path, **options)[0], expected, atol=1e-5)
