"""Runs that end by force: killed at random moments, they go on to the same end; several processes end together."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import settings

from tests.helpers.cli import COMPILED, ROOT

pytestmark = pytest.mark.slow
KILLS = 20 if settings().max_examples > 100 else 1  # with --hypothesis-profile=thorough


def start(**options):
    """A process of tests/helpers/train_process.py."""
    environment = {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": COMPILED.name, "PATH": ""}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "PYTHONFAULTHANDLER": ""}
    environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"]}
    command = [sys.executable, ROOT / "tests" / "helpers" / "train_process.py", json.dumps(options, default=str)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def ended(process):
    """What a process said on stderr until it ended, and its exit code."""
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def result(path):
    with np.load(path) as file:
        return dict(file)


def run(**options):
    code, said = ended(start(**options))
    assert code == 0, said
    return result(options["result"])


def both(results, **options):
    """Two processes that train together, each on two devices."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(**options, result=results / f"{i}.npz", devices=2, process=i, port=port) for i in range(2)]


def wait_for_saves(folder, processes, more_than=0):
    """Waits until there are more saves than so many steps'."""
    while max((int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit()), default=0) <= more_than:
        assert all(process.poll() is None for process in processes), [process.stderr.read() for process in processes]
        time.sleep(0.01)


@pytest.mark.parametrize(("net", "steps"), [("xo", 60), ("cifar", 20)])
def test_killed_at_random_moments_a_run_ends_as_one_that_was_not(tmp_path, net, steps):
    options = {"net": net, "steps": steps * KILLS + 20}
    whole = run(**options, result=tmp_path / "whole.npz")
    options |= {"folder": tmp_path / "saves", "save_every": 3, "result": tmp_path / "killed.npz"}
    moments, last = random.Random(0), 0
    for _ in range(KILLS):
        process = start(**options)
        wait_for_saves(tmp_path / "saves", [process], last)
        time.sleep(moments.uniform(0, 0.5))
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
        last = max(int(path.name) for path in (tmp_path / "saves").glob("[0-9]*") if path.name.isdigit())
    killed = run(**options)
    assert whole.keys() == killed.keys()
    for name in whole:
        np.testing.assert_array_equal(killed[name], whole[name], err_msg=name)


def test_two_processes_train_as_one_device_does(tmp_path):
    options = {"net": "digits", "steps": 100, "x64": True}
    one = run(**options, result=tmp_path / "one.npz")
    eight = run(**options, result=tmp_path / "eight.npz", devices=8)
    for process in both(tmp_path, **options):
        code, said = ended(process)
        assert code == 0, said
    for other in (eight, result(tmp_path / "0.npz"), result(tmp_path / "1.npz")):
        for name in one:
            np.testing.assert_allclose(other[name], one[name], rtol=0, atol=1e-9, err_msg=name)


def test_of_two_processes_one_ends_the_other_and_both_go_on(tmp_path):
    options = {"net": "digits", "folder": tmp_path / "saves", "save_every": 20}
    processes = both(tmp_path, **options | {"steps": 100_000})
    wait_for_saves(tmp_path / "saves", processes)
    processes[1].terminate()  # asked to stop, both do, after the same step
    said = [ended(process)[1] for process in processes]
    stopped = {re.search("stopped by SIGTERM after step ([0-9]+), saved", one).group(1) for one in said}
    assert len(stopped) == 1

    processes = both(tmp_path, **options | {"steps": 100_000})
    wait_for_saves(tmp_path / "saves", processes, int(stopped.pop()))
    processes[1].kill()
    started = time.monotonic()
    (code, said), _ = (ended(process) for process in processes)
    assert code != 0
    assert time.monotonic() - started < 60
    assert "another task died" in said or "Gloo" in said

    last = max(int(path.name) for path in (tmp_path / "saves").iterdir() if path.name.isdecimal())
    options["steps"] = last + 20
    whole = run(**options | {"folder": None}, result=tmp_path / "whole.npz", devices=4)
    for process in both(tmp_path, **options):
        code, said = ended(process)
        assert code == 0, said
    for name, array in result(tmp_path / "0.npz").items():
        np.testing.assert_allclose(array, whole[name], rtol=0, atol=1e-5, err_msg=name)
