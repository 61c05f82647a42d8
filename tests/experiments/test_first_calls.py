"""experiments._lib.first_calls: seconds of a first call, in another process."""

import subprocess

import pytest

from experiments._lib import first_calls


def test_seconds_are_printed(capsys):
    first_calls.main(["zncc", "20", "21", "3", "4"])
    assert 0 < float(capsys.readouterr().out) < 100


def test_the_process_has_no_disk_cache_and_its_failure_is_shown(monkeypatch):
    calls = []

    def run(command, *, env, **options):
        calls.append((command[2:], env["JAX_ENABLE_COMPILATION_CACHE"]))
        return subprocess.CompletedProcess(command, len(calls) - 1, "0.25\n", "broken\n")

    monkeypatch.setattr(first_calls.subprocess, "run", run)
    assert first_calls.first_call_seconds("find", (480, 640), (64, 64)) == 0.25
    assert calls[0] == (["experiments._lib.first_calls", "find", "480", "640", "64", "64"], "false")
    with pytest.raises(RuntimeError, match="find 480 640 64 64: broken"):
        first_calls.first_call_seconds("find", (480, 640), (64, 64))


@pytest.mark.slow
def test_a_process_measures_a_call():
    assert 0 < first_calls.first_call_seconds("zncc", (20, 21), (3, 4)) < 100
